"""How many spans a second the store takes, through the real collector process.

Sent as workers send them, until acknowledged.

Run ``python -m bench.spans_store`` from the root of the repository. Counted is what is committed; the figure is that of the whole
run, files rotated and indexes kept. The senders' CPU is shown beside: they share the machine.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from bench.measure import mark
from headrace.files.engine_directory import collector_endpoint
from headrace.spans.data_directory import database_files
from headrace.spans.span import Rank, Span, SpanAttempt, SpanContent, encode_content, encode_span
from headrace.transport.unix_dealer import UnixDealer
from headrace.types import Message, Usage
from headrace.wire.codec import encode_frame, from_collector
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, Hello, ProcessReport, SpanAck, SpanBatch

TARGET = 10_000
"""Spans a second, on two cores."""
BATCH = 250
WINDOW = 8
"""Batches of one worker on their way."""
_WORKER = "w1"
_EPOCH = 1
"""All senders are connections of one worker, because they are in one process."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.spans_store", description="What the span store takes.")
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--bytes", type=int, default=4096, help="of one span")
    parser.add_argument("--workers", type=int, default=2, help="how many send")
    parser.add_argument("--durability", choices=["normal", "full"], default="normal")
    parser.add_argument("--directory", help="where the store is made; default: the system's temporary directory")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="hr-", dir="/tmp"))
    data = Path(tempfile.mkdtemp(prefix="headrace-bench-", dir=arguments.directory))
    try:
        with collector(directory, data / "0", arguments.durability):
            seconds, cpu, own = measure(directory, arguments.workers, arguments.spans, arguments.bytes)
        rows, size = stored(data / "0")
    finally:
        shutil.rmtree(directory)
        shutil.rmtree(data)
    rate = arguments.spans / seconds
    print(
        f"{arguments.spans} spans of {arguments.bytes} bytes from {arguments.workers} senders, {arguments.durability}"
    )
    print(f"{rate:,.0f} spans/s (target: {TARGET:,}); {rows} rows, {size / 2**20:.0f} MiB")
    print(
        f"CPU of a span: collector {cpu / arguments.spans * 1e6:.1f} us, senders {own / arguments.spans * 1e6:.1f} us"
    )
    if rows != arguments.spans:
        sys.exit("the rows are not the spans")


@contextmanager
def collector(directory: Path, slot: Path, durability: str) -> Iterator[None]:
    """Run a collector."""
    slot.mkdir(mode=0o700)
    config = directory / "headrace.toml"
    config.write_text(f'[spans]\ndurability = "{durability}"\n')
    command = [sys.executable, "-m", "headrace_engine", "collector", "--directory", str(directory)]
    command += ["--data", str(slot), "--parent", str(os.getpid()), "--epoch", "1"]
    process = subprocess.Popen(command, env={**os.environ, "HEADRACE_CONFIG": str(config)})
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


class StoreSender:
    """What a worker is to the collector."""

    def __init__(self, endpoint: str, span: Span, spans: int, number: int) -> None:
        self._dealer = UnixDealer(endpoint)
        self._span = span
        self._left = spans
        self._sequence = 0
        self._acknowledged = 0
        self._random = random.Random(number)
        self._dealer.send(
            encode_frame(_EPOCH, [Hello("worker", PROTOCOL_MINOR, os.getpid(), CAPABILITIES, name=_WORKER)])
        )

    def turn(self) -> bool:
        """Send what may be sent; return whether all is acknowledged."""
        if not self._dealer.has_peer and self._dealer.is_disconnected:
            sys.exit("there is no collector")
        while self._left and self._sequence - self._acknowledged < WINDOW:
            count = min(self._left, BATCH)
            self._left -= count
            self._sequence += 1
            self._dealer.send(encode_frame(_EPOCH, [SpanBatch(self._sequence, [self._next() for _ in range(count)])]))
        for frame in self._dealer.receive():
            for message in from_collector.decode(frame)[1]:
                if isinstance(message, SpanAck):
                    self._acknowledged = message.sequence
        return not self._left and self._acknowledged == self._sequence

    def close(self) -> None:
        self._dealer.close()

    def _next(self) -> bytes:
        now, name = time.time(), f"{self._random.getrandbits(64):016x}"
        return encode_span(
            msgspec.structs.replace(self._span, span_id=f"sp_{name}", trace_id=f"tr_{name}", started_at=now)
        )


class StoreSupervisor:
    """What the supervisor is to the collector: it says that this process is a worker of the engine."""

    def __init__(self, endpoint: str) -> None:
        self._dealer = UnixDealer(endpoint)
        hello = Hello("supervisor", PROTOCOL_MINOR, os.getpid(), CAPABILITIES)
        worker = ProcessStatus(_WORKER, os.getpid(), "running", 0, epoch=_EPOCH)
        self._dealer.send(encode_frame(1, [hello, ProcessReport([worker])]))

    def turn(self) -> None:
        """Take part in the handshake: the report leaves after it."""
        self._dealer.receive()

    def close(self) -> None:
        self._dealer.close()


def measure(directory: Path, workers: int, spans: int, size: int) -> tuple[float, float, float]:
    """Return the seconds until all is committed, and the CPU seconds of the collector and of the senders."""
    like = span_of(size)
    share = [spans // workers + (number < spans % workers) for number in range(workers)]
    endpoint = collector_endpoint(directory)
    while not Path(endpoint.removeprefix("ipc://")).exists():
        time.sleep(0.01)
    supervisor = StoreSupervisor(endpoint)
    senders = [StoreSender(endpoint, like, count, number) for number, count in enumerate(share, 1)]
    before, own, began = mark(os.getpid()).cpu, _own_cpu(), time.monotonic()
    while sum(not sender.turn() for sender in senders):
        supervisor.turn()
        time.sleep(0.0005)
    took = time.monotonic() - began
    after = mark(os.getpid()).cpu
    for sender in senders:
        sender.close()
    supervisor.close()
    return took, after["collector"] - before["collector"], _own_cpu() - own


def span_of(size: int) -> Span:
    """Return a span that takes about so many bytes."""
    now = time.time()
    bare = Span(
        span_id="sp_0123456789abcdef",
        rank=Rank.WORKER,
        provider="openai",
        model="gpt-4o",
        trace_id="tr_0123456789abcdef",
        streamed=True,
        status="ok",
        response_model="gpt-4o-2024-08-06",
        finish_reason="stop",
        provider_finish_reason="stop",
        started_at=now,
        ended_at=now + 1.5,
        duration_seconds=1.5,
        queue_seconds=0.01,
        first_chunk_seconds=0.4,
        usage=Usage(500, 200, 700, 0, 0, 0, "provider"),
        tags=["bench"],
        parameters={"temperature": 0.5},
        attempts=[SpanAttempt(1, "w1", now, now + 1.5, now + 0.3, now + 0.4, 200, "req_0123456789abcdef", "ok")],
    )
    room = max(size - len(encode_span(bare)) - 100, 0)
    content = SpanContent(messages=[Message("user", "x" * (room // 2))], text="y" * (room - room // 2))
    return msgspec.structs.replace(bare, content=encode_content(content))


def stored(slot: Path) -> tuple[int, int]:
    """Return the rows and the bytes of a slot."""
    rows = 0
    for path in database_files(slot):
        with closing(sqlite3.connect(path)) as connection:
            rows += connection.execute("SELECT count(*) FROM spans").fetchone()[0]
    return rows, sum(path.stat().st_size for path in database_files(slot))


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
