"""What a connection promises about its engine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connections.connection import Connection
from headrace.connections.engine_link import EngineLink
from headrace.errors import EngineUnavailableError, HeadraceError, RunError
from headrace.runs.delivery import Delivery, RunHandle
from headrace.runs.result_future import ResultFuture
from headrace.runs.row_run import EndedRuns, RowRun
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.transport.reactor import Reactor
from headrace.transport.zmtp import FrameParser, opening
from headrace.types import RunLocalResult
from headrace.wire.codec import to_broker
from headrace.wire.messages import MAX_FRAME_BYTES, Acquire


class EngineThatEnds:
    """An engine that ends right after its start, each time."""

    address = "nowhere"
    hint = "there is none"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.starts = 0

    def open(self) -> str:
        self.starts += 1
        return f"ipc://{self._directory / 'broker'}"

    @property
    def is_running(self) -> bool:
        return True

    def why_gone(self) -> str | None:
        return "it ended"

    def error(self, reason: str) -> HeadraceError:
        return EngineUnavailableError(self.address, reason)

    def is_broker(self, pid: int) -> bool:  # noqa: ARG002 - the source's form
        return True

    def is_starting(self) -> bool:
        return False

    def end_of_log(self) -> str:
        return ""

    def close(self) -> None:
        pass


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    running = Reactor()
    thread = threading.Thread(target=running.run)
    thread.start()
    yield running
    running.stop()
    thread.join()


def test_an_engine_that_cannot_start_is_not_started_again_to_release_leases(reactor: Reactor, tmp_path: Path) -> None:
    source = EngineThatEnds(tmp_path)
    connection = Connection(reactor, source, 1, 5.0)
    results: list[ResultFuture[RunLocalResult]] = []
    for number in range(3):
        session = Session(RunPlan(f"sp_{number:016x}", "openai", "gpt-4o", b"", streams=True))
        delivery = Delivery(session, "tr_0000000000000000", time.monotonic(), connection, 1)
        results.append(ResultFuture(delivery, RunHandle(delivery)))
        connection.submit(delivery)

    for result in results:
        with pytest.raises(EngineUnavailableError, match="it ended"):
            result.result(60)
    done = threading.Event()
    connection.post_close(done.set)
    assert done.wait(60)

    assert source.starts == 1


class EngineThatStays(EngineThatEnds):
    """An engine that runs; the test is its broker."""

    def why_gone(self) -> str | None:
        return None


def test_the_next_link_repeats_the_questions_of_all_runs_that_wait(
    reactor: Reactor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing but the second run opens the next link: the first one waits for it.
    monkeypatch.setattr("headrace.connections.engine_link.REOPEN_DELAY", 60.0)
    dropped, drop = threading.Event(), EngineLink.drop

    def noted(link: EngineLink) -> None:
        drop(link)
        dropped.set()

    monkeypatch.setattr(EngineLink, "drop", noted)
    tmp_path.chmod(0o700)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "broker"))
        listener.listen()
        listener.settimeout(20)
        connection = Connection(reactor, EngineThatStays(tmp_path), 1, 60.0)
        try:
            submit(connection, "sp_one")
            broker, _ = listener.accept()
            with broker:
                assert asked(broker, 1) == [("sp_one", False)]  # and does not answer
            assert dropped.wait(60)

            submit(connection, "sp_two")
            broker, _ = listener.accept()
            with broker:
                assert sorted(asked(broker, 2)) == [("sp_one", True), ("sp_two", False)], "each once"
        finally:
            done = threading.Event()
            connection.post_close(done.set)
            assert done.wait(60)


def submit(connection: Connection, span_id: str) -> None:
    session = Session(RunPlan(span_id, "openai", "gpt-4o", b"", streams=True))
    connection.submit(Delivery(session, "tr_0000000000000000", time.monotonic(), connection, 1))


def asked(broker: socket.socket, count: int) -> list[tuple[str, bool]]:
    """Greet, and return the runs that are asked for, and whether the question is a repeat: all of one turn, at least ``count``."""
    broker.settimeout(60)
    broker.sendall(opening())
    inbound = FrameParser(MAX_FRAME_BYTES)
    found: list[tuple[str, bool]] = []
    while len(found) < count:
        for frame in inbound.received(broker.recv(65536)):
            messages = to_broker.decode(frame)[1]
            found += [(message.span_id, message.is_repeat) for message in messages if isinstance(message, Acquire)]
    return found


def test_rows_that_are_given_up_before_they_begin_are_open_no_more(reactor: Reactor, tmp_path: Path) -> None:
    source = EngineThatStays(tmp_path)
    connection = Connection(reactor, source, 1, 60.0)
    ended, may_go_on = EndedRuns(), threading.Event()
    ended.use(connection)

    def be_late() -> None:
        assert may_go_on.wait(60)

    reactor.call(be_late)
    plans = [RunPlan(f"sp_{number}", "openai", "gpt-4o", b"", streams=False) for number in range(3)]
    rows = [RowRun(Session(plan), "tr_0000000000000000", time.monotonic(), 1, ended) for plan in plans]
    connection.submit_all(rows)
    for row in rows:
        row.give_up(RunError(row.span_id, "the job was stopped"))
    may_go_on.set()

    done = threading.Event()
    connection.post_close(done.set)
    assert done.wait(60)
    assert (ended.take(), source.starts) == (rows, 0)
    assert not connection.runs
