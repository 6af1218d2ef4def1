"""What the collector promises to senders: a span is acknowledged after it is committed, and never before."""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import pytest

from headrace.process.lifecycle import open_process
from headrace.spans.span import Rank, Span, SpanContent, encode_content, encode_span
from headrace.transport.router import Router
from headrace.wire.codec import encode_frame, from_collector, to_broker
from headrace.wire.engine_status import ProcessStatus, SpanStatus
from headrace.wire.messages import (
    CollectorReport,
    Flush,
    Flushed,
    FlushRequest,
    FlushResult,
    Goodbye,
    Hello,
    PeerRole,
    ProcessReport,
    SpanAck,
    SpanBatch,
    Welcome,
)
from headrace_engine.spans.flushing import MAX_OPEN
from headrace_engine.spans.recovery.slots import take_slot, try_slot
from tests.engine.spans.test_span_store import kept, span
from tests.engine.spans.test_spool_recovery import locked, spool
from tests.peers import RawDealer, new_context
from tests.waiting import wait_until

NOW = time.time()
PATIENCE = 45.0
"""Seconds for what takes one on a machine that has nothing else to do."""

WORKER = "w1"

pytestmark = pytest.mark.timeout(180)


class CollectorPeer:
    """A worker or client, as the collector sees it."""

    def __init__(self, endpoint: str, role: PeerRole = "worker", epoch: int = 1) -> None:
        self._context = new_context()
        self._dealer = RawDealer(self._context, endpoint)
        self._epoch = epoch
        self._heard: list[msgspec.Struct] = []
        self.send(Hello(role, 1, os.getpid(), name=WORKER if role == "worker" else ""))

    def send(self, *messages: msgspec.Struct) -> None:
        self._dealer.send(encode_frame(self._epoch, messages))

    def send_bytes(self, frame: bytes) -> None:
        self._dealer.send(frame)

    def hear(self, kind: type[msgspec.Struct], where: Callable[..., bool] = lambda _: True) -> msgspec.Struct:
        """Return the next message of a kind; others before it are left out."""

        def found() -> msgspec.Struct | None:
            for frame in self._dealer.receive():
                self._heard.extend(from_collector.decode(frame)[1])
            while self._heard:
                message = self._heard.pop(0)
                if isinstance(message, kind) and where(message):
                    return message
            return None

        return wait_until(found, PATIENCE, kind.__name__)

    def wait_for(self, sequence: int) -> None:
        """Wait until all up to a batch is acknowledged."""
        self.hear(SpanAck, lambda ack: ack.sequence >= sequence)

    def close(self) -> None:
        self._dealer.close()
        self._context.term()


class CollectorEngine:
    """The directories of an engine that consists of a collector and of what stands for its broker."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hr-"))
        self.slot = take_slot(self.directory / "data").path
        self.endpoint = f"ipc://{self.directory / 'collector'}"
        self.process: subprocess.Popen[bytes] | None = None
        self.config = self.directory / "headrace.toml"
        self.config.touch()
        self._broker = Router(f"ipc://{self.directory / 'broker'}")
        self._peers: list[CollectorPeer] = []
        self._epoch = 0

    def start(self) -> None:
        self._epoch += 1
        self._supervisor = self.peer("supervisor")
        command = [sys.executable, "-m", "headrace_engine", "collector", "--directory", str(self.directory)]
        command += ["--data", str(self.slot), "--parent", str(os.getpid()), "--epoch", str(self._epoch)]
        self.process = subprocess.Popen(command, env={**os.environ, "HEADRACE_CONFIG": str(self.config)})

    def peer(self, role: PeerRole = "worker", epoch: int = 1) -> CollectorPeer:
        """Connect as a peer. Of a worker this process says first that it is one: it is the collector's supervisor."""
        if role == "worker":
            worker = ProcessStatus(WORKER, os.getpid(), "running", 0, epoch=epoch)
            self._supervisor.send(ProcessReport([worker]))
        self._peers.append(CollectorPeer(self.endpoint, role, epoch))
        return self._peers[-1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def report(self, where: Callable[[SpanStatus], bool] = lambda _: True) -> SpanStatus:
        """Return the next report that is as asked for."""
        seen: list[SpanStatus] = []

        def found() -> SpanStatus | None:
            for _, frame in self._broker.receive():
                for message in to_broker.decode(frame)[1]:
                    if isinstance(message, CollectorReport):
                        seen.append(message.spans)
                        if where(message.spans):
                            return message.spans
            return None

        return wait_until(found, PATIENCE, "such a report", lambda: seen[-1:])

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for peer in self._peers:
            peer.close()
        self._broker.close()
        shutil.rmtree(self.directory)


@pytest.fixture
def engine() -> Iterator[CollectorEngine]:
    made = CollectorEngine()
    try:
        yield made
    finally:
        made.close()


def batch(sequence: int, *spans: Span, dropped: dict[str, int] | None = None, untraced: int = 0) -> SpanBatch:
    return SpanBatch(sequence, [encode_span(one) for one in spans], dropped or {}, untraced)


def made(number: int, **fields: object) -> Span:
    return span(f"sp_{number}", **{"started_at": NOW, **fields})  # type: ignore[arg-type]


def test_an_acknowledged_span_is_committed_and_survives_the_collector(engine: CollectorEngine) -> None:
    engine.start()
    worker = engine.peer()
    for sequence in range(1, 21):
        worker.send(batch(sequence, *[made(100 * sequence + number) for number in range(20)]))
    worker.wait_for(20)
    engine.end(signal.SIGKILL)

    assert len(kept(engine.slot)) == 400


def test_a_batch_sent_again_to_the_next_collector_is_stored_once(engine: CollectorEngine) -> None:
    engine.start()
    worker = engine.peer()
    worker.send(batch(1, made(1), made(2)))
    worker.wait_for(1)
    engine.end(signal.SIGKILL)

    engine.start()
    again = engine.peer()
    again.send(batch(1, made(1), made(2)), batch(2, made(3)))
    again.wait_for(2)

    assert set(kept(engine.slot)) == {"sp_1", "sp_2", "sp_3"}


def test_a_spool_is_recovered_when_the_process_of_its_writer_ends(engine: CollectorEngine) -> None:
    spool(engine.slot, "w9-a-1", made(1), tail=b"HRS1 torn")
    engine.start()
    status = engine.report(lambda status: status.dropped == {"torn": 1})
    assert (status.recovered, status.stored, status.directory) == (1, 1, str(engine.slot))

    worker = engine.peer()
    worker.hear(Welcome)
    spool(engine.slot, "w1-b-1", made(2, rank=Rank.STUB))
    worker.send(Goodbye("it ends"))

    engine.report(lambda status: status.recovered == 2)
    assert {name: row.rank for name, row in kept(engine.slot).items()} == {"sp_1": 2, "sp_2": 0}


def test_a_bad_frame_ends_its_connection_and_no_other(engine: CollectorEngine) -> None:
    engine.start()
    worker = engine.peer()
    for frame in (b"", b"\x01", b"\x02" + bytes(9), os.urandom(10_000), encode_frame(1, [SpanAck(1)])):
        bad = engine.peer("client")
        bad.send_bytes(frame)
        bad.hear(Goodbye)
    unknown = CollectorPeer.__new__(CollectorPeer)
    unknown._context, unknown._epoch, unknown._heard = new_context(), 1, []
    unknown._dealer = RawDealer(unknown._context, engine.endpoint)
    engine._peers.append(unknown)
    unknown.send(batch(1, made(1)))
    goodbye = unknown.hear(Goodbye)
    assert isinstance(goodbye, Goodbye)
    assert "hello" in goodbye.reason

    worker.send(SpanBatch(1, [b"no span", encode_span(made(2))]))
    worker.wait_for(1)
    assert set(kept(engine.slot)) == {"sp_2"}
    assert engine.report(lambda status: bool(status.dropped)).dropped == {"unreadable": 1}


def test_spans_that_senders_dropped_are_reported_and_counted_once(engine: CollectorEngine) -> None:
    engine.start()
    for epoch, connections in ((7, 2), (8, 1)):
        for _ in range(connections):
            worker = engine.peer(epoch=epoch)
            worker.send(batch(1, made(epoch), dropped={"spool_full": 5}, untraced=3))
            worker.wait_for(1)

    status = engine.report(lambda status: status.untraced == 6)
    assert (status.stored, status.dropped, status.state) == (2, {"spool_full": 10}, "ok")


def test_a_flush_waits_for_spans_that_workers_still_have(engine: CollectorEngine) -> None:
    engine.start()
    worker, client = engine.peer(), engine.peer("client")
    worker.hear(Welcome)
    client.send(Flush(5, 10.0))
    request = worker.hear(FlushRequest)
    assert isinstance(request, FlushRequest)
    worker.send(batch(1, made(1), made(2)), Flushed(request.token, 1))

    assert client.hear(FlushResult) == FlushResult(5, delivered=2, pending=0, failed=0)
    assert set(kept(engine.slot)) == {"sp_1", "sp_2"}


def test_a_flush_waits_for_workers_that_have_not_connected_to_a_new_collector(engine: CollectorEngine) -> None:
    with locked(spool(engine.slot, "w1-b-1", made(1, rank=Rank.STUB))):
        engine.start()
        client = engine.peer("client")
        client.hear(Welcome)
        client.send(Flush(5, 10.0))
        engine.report()
        worker = engine.peer(epoch=0xB)
        request = worker.hear(FlushRequest)
        assert isinstance(request, FlushRequest)
        worker.send(batch(1, made(1)), Flushed(request.token, 1))

        assert client.hear(FlushResult) == FlushResult(5, delivered=1, pending=0, failed=0)


def test_a_flush_ends_with_its_timeout_if_a_worker_does_not_answer(engine: CollectorEngine) -> None:
    engine.start()
    worker, client = engine.peer(), engine.peer("client")
    worker.hear(Welcome)
    client.send(Flush(5, 0.2))

    result = client.hear(FlushResult)
    assert isinstance(result, FlushResult)
    assert result.token == 5


def test_a_flood_of_flushes_is_answered_and_asks_the_workers_seldom(engine: CollectorEngine) -> None:
    engine.start()
    worker, client, other = engine.peer(), engine.peer("client"), engine.peer("client", epoch=2)
    worker.hear(Welcome)
    other.hear(Welcome)
    count = 20_000
    for start in range(0, count, 1000):
        client.send(*[Flush(start + number, 3600.0) for number in range(1000)])
    client.hear(FlushResult, lambda result: result.token == count - 1 - MAX_OPEN)
    other.send(Flush(1, 3600.0))
    client.hear(FlushResult, lambda result: result.token == count - MAX_OPEN)  # its process has one more
    requests: list[FlushRequest] = []

    def is_acknowledged(message: msgspec.Struct) -> bool:
        requests.extend([message] if isinstance(message, FlushRequest) else [])
        return isinstance(message, SpanAck)

    # By now it has been asked for all: what it has sent when it was asked last, it has sent for those before, too.
    worker.send(batch(1, made(1)), Flushed(2**62, 1))
    worker.hear(msgspec.Struct, is_acknowledged)
    assert other.hear(FlushResult) is not None
    client.hear(FlushResult, lambda result: result.token == count - 1)
    assert 1 <= len(requests) <= 21, "one for each turn, and not for each question"


def test_the_content_of_clients_spans_is_treated_by_policy(engine: CollectorEngine) -> None:
    engine.config.write_text('[spans]\ncontent = "none"\n')
    engine.start()
    content = encode_content(SpanContent(text="secret"))
    client = engine.peer("client")
    client.send(batch(1, made(1, rank=Rank.CLIENT, content=content)))
    client.wait_for(1)

    row = kept(engine.slot)["sp_1"]
    assert (row.content, row.content_note) == (b"", "policy")


def test_a_batch_with_too_many_values_is_left_out_and_takes_no_memory(engine: CollectorEngine) -> None:
    """Decoded, the lists of nothing in it would take gigabytes."""
    engine.start()
    client, worker = engine.peer("client"), engine.peer()
    worker.send(batch(1, made(1)))
    worker.wait_for(1)
    assert engine.process is not None
    before = peak_bytes(engine.process.pid)
    large = [made(number, parameters={"x": [[]] * 150_000}) for number in range(100, 200)]
    client.send(batch(1, *large))
    client.send(batch(2, made(2, parameters={"x": [[]] * 3_000_000})))
    worker.send(batch(2, made(3)))
    client.wait_for(2)
    worker.wait_for(2)

    stored = set(kept(engine.slot))
    assert stored == {"sp_1", "sp_3", "sp_100", "sp_101", "sp_102"}
    assert peak_bytes(engine.process.pid) - before < 400 * 1024 * 1024


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_the_cost_of_a_run_is_stored_with_it(engine: CollectorEngine) -> None:
    engine.config.write_text("[prices.gpt-4o]\ninput = 1.0\noutput = 3.0\n")
    engine.start()
    worker = engine.peer()
    usage = {"input_tokens": 1_000_000, "output_tokens": 500_000, "total_tokens": 1_500_000, "source": "provider"}
    worker.send(batch(1, msgspec.convert({**msgspec.to_builtins(made(1)), "usage": usage}, Span)))
    worker.wait_for(1)

    with closing(sqlite3.connect(next(engine.slot.glob("*.db")))) as connection:
        assert connection.execute("SELECT cost FROM spans").fetchall() == [(2.5,)]


def test_at_its_end_the_collector_stores_the_spans_of_ended_workers_and_leaves_whole_files(
    engine: CollectorEngine,
) -> None:
    engine.start()
    worker = engine.peer()
    worker.send(batch(1, made(1)))
    worker.wait_for(1)
    spool(engine.slot, "w1-b-1", made(2))

    assert engine.end() == 0
    assert not list(engine.slot.glob("*-wal"))
    assert set(kept(engine.slot)) == {"sp_1", "sp_2"}


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="another process's limits can be set on Linux only")
def test_the_store_says_that_it_cannot_be_written_and_recovers_by_itself(engine: CollectorEngine) -> None:
    engine.start()
    worker = engine.peer()
    worker.send(batch(1, made(1)))
    worker.wait_for(1)
    assert engine.process is not None
    _, hard = resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (1000, hard))
    worker.send(batch(2, made(2)))
    status = engine.report(lambda status: status.state != "ok")
    assert (status.state, status.waiting, bool(status.error)) == ("failing", 1, True)
    worker.send(batch(2, dropped={"memory_full": 3}))
    status = engine.report(lambda status: bool(status.dropped))
    assert (status.state, status.waiting, status.dropped) == ("failing", 1, {"memory_full": 3})

    resource.prlimit(engine.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
    worker.wait_for(2)

    assert set(kept(engine.slot)) == {"sp_1", "sp_2"}
    status = engine.report(lambda status: status.state == "ok")
    assert (status.waiting, status.error) == (0, "")


def test_the_unsent_spans_of_an_ended_engine_are_sent_by_another_engine(
    engine: CollectorEngine, tmp_path: Path
) -> None:
    lines = tmp_path / "spans.jsonl"
    engine.config.write_text(f'[sinks.lines]\ntype = "jsonl"\npath = "{lines}"\n')
    for number in (1, 2):
        spool(engine.slot.parent / str(number), "w1-a-1", made(number))
    taken = try_slot(engine.slot.parent / "2")
    assert taken is not None
    with taken:
        engine.start()
        engine.report(lambda status: status.recovered == 1)
        wait_until(lambda: lines.exists() and "sp_1" in lines.read_text(), PATIENCE, "the span's line")
        assert "sp_2" not in lines.read_text()


def test_a_damaged_file_is_reported(engine: CollectorEngine) -> None:
    name = f"spans-{time.strftime('%Y-%m-%d', time.gmtime())}.db"
    (engine.slot / name).write_bytes(b"damaged" * 1000)
    engine.start()

    status = engine.report(lambda status: status.error != "")
    assert (status.state, status.error) == ("ok", f"damaged and moved aside: {name}.corrupt")


def test_the_collector_ends_with_its_parent(engine: CollectorEngine) -> None:
    program = (
        "import subprocess, sys, os\n"
        "process = subprocess.Popen([*sys.argv[1:], '--parent', str(os.getpid())])\n"
        "print(process.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-m", "headrace_engine", "collector", "--directory", str(engine.directory)]
    command += ["--data", str(engine.slot), "--epoch", "1"]
    parent = subprocess.Popen(
        [sys.executable, "-c", program, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent, watched(int(parent.stdout.readline() if parent.stdout else 0)) as has_ended:
        engine.peer("client").hear(Welcome)
        parent.kill()
        assert has_ended(PATIENCE)


@contextmanager
def watched(pid: int) -> Iterator[Callable[[float], bool]]:
    """Watch a process that is not ours; what is yielded tells whether it ends within so many seconds."""
    handle = open_process(pid)
    assert handle is not None
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    try:
        yield lambda seconds: bool(poll.poll(seconds * 1000))
    finally:
        os.close(handle)
