"""Runs a collector without an engine.

It is killed and started again while one sender sends spans to it, as a worker does.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Self

from headrace.spans.outbox import SpanOutbox
from headrace.spans.span import Rank, Span, SpanContent, encode_content, encode_span
from headrace.spans.spool_format import encode_record
from headrace.wire.codec import encode_frame, from_collector
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import Hello, ProcessReport, SpanAck
from tests.peers import RawDealer, new_context

_EPOCH = 1
_WORKER = "w1"
_JOURNAL_HEAD = 32
_PAGE_HEAD = 24


class LoneCollector:
    """The process, and the directories that it is told of."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hr-"))
        self.data = self.directory / "data"
        self.slot = self.data / "0"
        (self.slot / "spool").mkdir(parents=True, mode=0o700)
        self._process: subprocess.Popen[bytes] | None = None
        self._context = new_context()
        self._supervisor: RawDealer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._context.term()
        shutil.rmtree(self.directory)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"ipc://{self.directory / 'collector'}"

    def start(self) -> None:
        """Start one."""
        command = [sys.executable, "-m", "headrace_engine", "collector", "--directory", str(self.directory)]
        command += ["--data", str(self.slot), "--parent", str(os.getpid()), "--epoch", "1"]
        self._process = subprocess.Popen(command)
        # This process has started it, and says who else is one of the engine's: itself, as a worker.
        self._supervisor = RawDealer(self._context, self.endpoint)
        worker = ProcessStatus(_WORKER, os.getpid(), "running", 0, epoch=_EPOCH)
        self._supervisor.send(encode_frame(1, [Hello("supervisor", 1, os.getpid()), ProcessReport([worker])]))

    def kill(self) -> None:
        """Kill it; none is fine."""
        if self._supervisor is not None:
            self._supervisor.close()
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()

    def journals(self) -> list[Path]:
        """Return the files that a commit is written to first."""
        return list(self.slot.glob("*.db-wal"))

    def leave_spool(self, name: str, spans: list[Span]) -> None:
        """Leave a file of a worker that is dead."""
        path = self.slot / "spool" / f"{name}.spool"
        path.write_bytes(b"".join(encode_record(encode_span(span)) for span in spans))


class Sender:
    """Sends spans to whichever collector there is, until they are acknowledged."""

    def __init__(self, endpoint: str) -> None:
        self.acknowledged: set[str] = set()
        self._endpoint = endpoint
        self._context = new_context()
        self._dealer: RawDealer | None = None
        self._outbox = SpanOutbox(1_000_000, 1024 * 1024 * 1024)
        self._sent: dict[int, set[str]] = {}
        self._names: dict[bytes, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._drop()
        self._context.term()

    def connect(self) -> None:
        """Begin anew, with all that is not acknowledged."""
        self._drop()
        self._outbox.disconnected()
        self._sent.clear()
        self._dealer = RawDealer(self._context, self._endpoint)
        self._dealer.send(encode_frame(_EPOCH, [Hello("worker", 1, os.getpid(), name=_WORKER)]))
        self._pump()

    def send(self, spans: list[Span]) -> None:
        """Send spans, as one batch where they are not too many."""
        for span in spans:
            encoded = encode_span(span)
            self._names[encoded] = span.span_id
            self._outbox.add(encoded)
        self._pump()

    def _pump(self) -> None:
        dealer = self._dealer
        if dealer is None:
            return
        for batch in self._outbox.batches():
            self._sent[batch.sequence] = {self._names[span] for span in batch.spans}
            dealer.send(encode_frame(_EPOCH, [batch]))

    def look(self) -> None:
        """Take the acknowledgements that have come."""
        for frame in self._dealer.receive() if self._dealer is not None else ():
            for message in from_collector.decode(frame)[1]:
                if isinstance(message, SpanAck):
                    self._outbox.acknowledged(message.sequence)
                    for sequence in [known for known in self._sent if known <= message.sequence]:
                        self.acknowledged |= self._sent.pop(sequence)

    def has_all(self) -> bool:
        """Read acknowledgements; return whether the collector has acknowledged all spans. That may be true from the start."""
        self.look()
        return not self._outbox

    def _drop(self) -> None:
        if self._dealer is not None:
            self._dealer.close()
            self._dealer = None


def has_unfinished_commit(journal: Path) -> bool:
    """Return whether a commit's pages are in a database's journal, and not the last one, which makes them count."""
    data = journal.read_bytes()
    if len(data) < _JOURNAL_HEAD:
        return False
    page_size, salts = int.from_bytes(data[8:12], "big"), data[16:24]
    is_open = False
    for start in range(_JOURNAL_HEAD, len(data) - page_size - _PAGE_HEAD + 1, _PAGE_HEAD + page_size):
        if data[start + 8 : start + 16] != salts:
            break  # of before the last checkpoint
        is_open = not int.from_bytes(data[start + 4 : start + 8], "big")
    return is_open


def made_up_spans(prefix: str, count: int, now: float) -> list[Span]:
    """Return spans of about 4 kB."""
    content = encode_content(SpanContent(text="word " * 800))
    return [
        Span(
            span_id=f"sp_{prefix}-{number}",
            rank=Rank.WORKER,
            provider="openai",
            model="gpt-4o",
            status="ok",
            started_at=now,
            ended_at=now,
            content=content,
        )
        for number in range(count)
    ]
