"""A worker process for tests of its spans, with a client that speaks the protocol, and a collector."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from headrace.files.engine_directory import collector_endpoint
from headrace.spans.span import Span, decode_span
from headrace.spans.spool_format import read_records
from headrace.testing import SimulatedProvider
from headrace.transport.router import Router
from headrace.types import Message
from headrace.wire.codec import encode_frame, encode_request, from_worker, to_collector
from headrace.wire.messages import (
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Abort,
    Aborted,
    Chunk,
    Failed,
    Finished,
    Flushed,
    FlushRequest,
    Goodbye,
    Hello,
    Run,
    SpanAck,
    SpanBatch,
    Welcome,
)
from headrace.wire.run_request import RunRequest
from tests.peers import RawDealer, new_context
from tests.waiting import wait_until

EPOCH = 7


class FakeCollector:
    """Takes batches, and acknowledges them when it is told to."""

    def __init__(self, directory: Path) -> None:
        self._router = Router(collector_endpoint(directory))
        self.hellos: list[Hello] = []
        self.batches: list[SpanBatch] = []
        self.flushed: list[Flushed] = []
        self._peer = b""

    @property
    def spans(self) -> list[Span]:
        """The spans that have come, with repetitions."""
        self.poll()
        return [decode_span(data) for batch in self.batches for data in batch.spans]

    def poll(self) -> None:
        """Receive the batches that have come."""
        for identity, frame in self._router.receive():
            self._peer = identity
            for message in to_collector.decode(frame)[1]:
                match message:
                    case Hello():
                        self.hellos.append(message)
                        self._send(Welcome(1, os.getpid()))
                    case SpanBatch():
                        self.batches.append(message)
                    case Flushed():
                        self.flushed.append(message)

    def acknowledge(self) -> None:
        """Acknowledge all batches that have come."""
        self.poll()
        if self.batches:
            self._send(SpanAck(self.batches[-1].sequence))

    def ask_flush(self, *tokens: int) -> None:
        """Send flush requests in one frame."""
        self._router.send(self._peer, encode_frame(1, [FlushRequest(token) for token in tokens]))

    def close(self) -> None:
        self._router.close()

    def _send(self, message: Any) -> None:
        self._router.send(self._peer, encode_frame(1, [message]))


class SpanWorker:
    """A worker process, and one client's connection to it."""

    def __init__(self, directory: Path, provider: SimulatedProvider, environ: dict[str, str]) -> None:
        self.directory = directory
        self.slot = directory / "slot"
        self.slot.mkdir()
        command = [
            sys.executable,
            "-m",
            "headrace_workers",
            "--directory",
            str(directory),
            "--parent",
            str(os.getpid()),
        ]
        command += ["--name", "w1", "--epoch", str(EPOCH), "--data", str(self.slot)]
        self.process = subprocess.Popen(command, env={**os.environ, **provider.environment, **environ})
        self._context = new_context()
        self._dealer: RawDealer | None = None
        self._count = 0
        self.texts: dict[str, str] = {}
        self.terminals: dict[str, Finished | Failed | Aborted] = {}

    @property
    def dealer(self) -> RawDealer:
        if self._dealer is None:
            self._dealer = RawDealer(self._context, f"ipc://{self.directory / f'w1-{EPOCH:x}'}")
            self.tell(Hello("client", 1, os.getpid()))
        return self._dealer

    def tell(self, *messages: Any) -> None:
        """Send messages in one frame."""
        self.dealer.send(encode_frame(1, messages))

    def run(
        self, *, queued: float = 0.0, is_aborted: bool = False, told: dict[str, Any] | None = None, **fields: Any
    ) -> str:
        """Start a run, and abort it at once if it ``is_aborted``; return its id.

        ``simulate`` is the provider's script. ``told``: further fields of the message that starts the run.
        """
        self._count += 1
        span_id = f"sp_{self._count:016x}"
        script = fields.pop("simulate", {})
        values: dict[str, Any] = {
            "provider": "openai",
            "model": "gpt-4o",
            "messages": [Message("user", "Hello")],
            "stream": True,
            "custom_options": {"simulate": script},
        }
        request = encode_request(RunRequest(**{**values, **fields}))
        run = Run(span_id, 1, EPOCH, request, WINDOW_EVENTS, WINDOW_CHARACTERS, "sk-of-the-caller", queued)
        run = msgspec.structs.replace(run, **(told or {}))
        self.tell(run, *([Abort(span_id, 1)] if is_aborted else []))
        return span_id

    def poll(self) -> None:
        """Receive the messages that the worker has sent to its client."""
        for frame in self.dealer.receive():
            for message in from_worker.decode(frame)[1]:
                match message:
                    case Chunk():
                        said = "".join(event for event in message.events if isinstance(event, str))
                        self.texts[message.span_id] = self.texts.get(message.span_id, "") + said
                    case Finished() | Failed() | Aborted():
                        self.terminals[message.span_id] = message
                    case Welcome() | Goodbye():
                        pass

    def terminal(self, span_id: str) -> Finished | Failed | Aborted:
        """Wait for the run to end."""

        def has_ended() -> bool:
            self.poll()
            return span_id in self.terminals

        wait_until(has_ended, what="the end of the run")
        return self.terminals[span_id]

    def text(self, span_id: str) -> str:
        """Wait for the run's first text."""

        def begun() -> str | None:
            self.poll()
            return self.texts.get(span_id)

        return wait_until(begun, what="the run's first text")

    def leave(self) -> None:
        """Close the client's connection without a goodbye."""
        if self._dealer is not None:
            self._dealer.close()
            self._dealer = None

    @property
    def spooled(self) -> list[Span]:
        """The spans in the spool."""
        paths = sorted((self.slot / "spool").glob("*.spool"))
        return [decode_span(record) for path in paths for record in read_records(path.read_bytes())]

    def close(self) -> None:
        self.leave()
        self._context.term()
        self.process.kill()
        self.process.wait()


@contextmanager
def span_worker(provider: SimulatedProvider, **environ: str) -> Iterator[SpanWorker]:
    """Run a worker with spans."""
    with TemporaryDirectory(prefix="hr-") as name:
        worker = SpanWorker(Path(name), provider, environ)
        try:
            yield worker
        finally:
            worker.close()


@contextmanager
def collector_for(worker: SpanWorker) -> Iterator[FakeCollector]:
    """Run a collector for the worker. When it has ended, another may follow."""
    collector = FakeCollector(worker.directory)
    try:
        yield collector
    finally:
        collector.close()
