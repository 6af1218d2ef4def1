"""What a process promises of its threads, without an engine.

An ended thread is replaced, a blocked thread delays little.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headrace.connections.client_process import ClientProcess
from headrace.connections.connection import Connection
from headrace.connections.io_thread import start_io_thread
from headrace.errors import EngineUnavailableError, InvalidRequestError, RunError
from headrace.runs.delivery import Delivery, RunHandle
from headrace.runs.result_future import ResultFuture
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.types import RunLocalResult
from tests.waiting import busyness, wait_until

ADDRESS = "silent"
OTHER = "silent too"


class SilentEngines(ClientProcess):
    """A process that can reach two engines. Their brokers take every message, and answer none."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._routers: list[Router] = []
        self.addresses: dict[str, str] = {}
        for number, name in enumerate((ADDRESS, OTHER)):
            directory = folder / str(number)
            directory.mkdir(mode=0o700)
            self._routers.append(Router(f"ipc://{directory / 'broker'}"))
            self.addresses[name] = f"ipc://{directory}"

    def end_engines(self) -> None:
        for router in self._routers:
            router.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[SilentEngines]:
    made = SilentEngines(tmp_path)
    yield made
    made.shut_down()
    made.end_engines()


def begin(
    process: SilentEngines, number: int = 0, owner: int = 1, address: str = ADDRESS
) -> tuple[Connection, ResultFuture[RunLocalResult]]:
    connection = process.connection(process.addresses[address], 30.0, owner)
    plan = RunPlan(f"sp_{number:016x}", "openai", "gpt-4o", b"", streams=True)
    delivery = Delivery(Session(plan), "tr_0000000000000000", time.monotonic(), connection, owner)
    future: ResultFuture[RunLocalResult] = ResultFuture(delivery, RunHandle(delivery))
    process.submit(connection, delivery)
    return connection, future


def end_thread(connection: Connection) -> None:
    """Have the I/O thread end by an exception outside of callbacks."""

    def fail() -> None:
        raise MemoryError

    reactor = connection._reactor._reactor
    reactor.turn = fail  # type: ignore[method-assign]
    reactor.wake()
    wait_until(lambda: connection.is_lost, 10.0, "the end of the thread")


def block(connection: Connection, release: threading.Event) -> None:
    """Block the I/O thread, as a finalizer that waits does."""

    def wait() -> None:
        release.wait(30)

    connection._reactor.call(wait)


def test_the_thread_makes_its_loop_itself(process: SilentEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under gevent, a selector serves only the thread that made it."""
    makers: list[str] = []

    class Noted(Reactor):
        def __init__(self) -> None:
            makers.append(threading.current_thread().name)
            super().__init__()

    monkeypatch.setattr("headrace.connections.io_thread.Reactor", Noted)
    begin(process)

    assert makers == ["headrace-io"]


def test_a_start_that_is_interrupted_leaves_no_thread(process: SilentEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, while the caller waits for the new thread."""
    made: list[Reactor] = []
    is_interrupted = threading.Event()

    class Slow(Reactor):
        def __init__(self) -> None:
            is_interrupted.wait(30)
            super().__init__()
            made.append(self)

    def interrupted(*_: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("headrace.connections.io_thread.Reactor", Slow)
        patch.setattr("headrace.connections.io_thread.Alarm.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            begin(process)
        is_interrupted.set()
        wait_until(lambda: made and made[0].has_ended, 10.0, "the end of the thread")
    _, future = begin(process)
    assert not future.done()


def test_a_signal_handler_may_start_a_run_while_the_first_thread_starts(
    process: SilentEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both runs use the thread of the handler. The other thread ends."""
    started: list[tuple[Reactor, threading.Thread]] = []
    in_handler: list[Connection] = []

    def interrupted(serve: Callable[[Reactor], None]) -> tuple[Reactor, threading.Thread]:
        is_first = not in_handler and not started
        made = start_io_thread(serve)
        started.append(made)
        if is_first:
            in_handler.append(begin(process)[0])
        return made

    monkeypatch.setattr("headrace.connections.client_process.start_io_thread", interrupted)
    connection, future = begin(process, 1)

    (given_up, thread), (used, _) = started
    assert in_handler == [connection]
    assert connection._reactor._reactor is used
    thread.join(60)
    assert given_up.has_ended
    assert not used.has_ended
    assert not future.done()


def test_a_loop_that_cannot_be_made_fails_the_call(process: SilentEngines, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Reactor:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("headrace.connections.io_thread.Reactor", fail)
        with pytest.raises(EngineUnavailableError, match="Too many open files"):
            begin(process)
    begin(process)


def test_an_address_has_one_connection_and_all_share_one_thread(process: SilentEngines) -> None:
    first, _ = begin(process)
    second, _ = begin(process, 1, owner=2)
    third, _ = begin(process, 2, address=OTHER)

    assert first is second
    assert first is not third
    assert first._reactor._reactor is third._reactor._reactor
    assert first.owners == {1, 2}
    assert process.is_connected(process.addresses[ADDRESS])
    assert not process.is_connected("ipc:///tmp/another")


def test_a_run_that_is_running_already_is_refused(process: SilentEngines) -> None:
    _, first = begin(process)
    _, again = begin(process)

    with pytest.raises(InvalidRequestError, match="running already"):
        again.result(60)
    assert not first.done()


def test_a_thread_that_ends_ends_the_runs_of_all_its_connections(process: SilentEngines) -> None:
    connection, first = begin(process)
    _, second = begin(process, 1, address=OTHER)
    end_thread(connection)

    for future in (first, second):
        with pytest.raises(EngineUnavailableError, match="I/O thread has ended"):
            future.result(60)
    assert not process.is_connected(process.addresses[ADDRESS])


def test_the_next_run_starts_another_thread(process: SilentEngines) -> None:
    connection, _ = begin(process)
    end_thread(connection)
    other, future = begin(process, 1)

    assert other is not connection
    assert not other.is_lost
    process.release(process.addresses[ADDRESS], 1)
    assert getattr(future.result(60), "aborted", None) is True


def test_a_run_that_is_submitted_to_an_ended_thread_ends_at_once(process: SilentEngines) -> None:
    connection, _ = begin(process)
    end_thread(connection)
    plan = RunPlan("sp_0000000000000009", "openai", "gpt-4o", b"", streams=True)
    delivery = Delivery(Session(plan), "tr_0000000000000000", time.monotonic(), connection, 1)
    connection.submit(delivery)

    assert delivery.outcome.has_ended
    assert isinstance(delivery.see_result(), EngineUnavailableError)


def test_where_no_thread_can_be_started_the_call_says_so(
    process: SilentEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(EngineUnavailableError, match="cannot start a thread: can't start new thread"):
            begin(process)
    begin(process)


def test_a_client_whose_thread_is_blocked_closes_all_the_same(process: SilentEngines) -> None:
    connection, future = begin(process)
    release = threading.Event()
    block(connection, release)
    began = time.monotonic()
    process.release(process.addresses[ADDRESS], 1)

    assert 1.9 < time.monotonic() - began < 2.5 + busyness()
    with pytest.raises(EngineUnavailableError, match="closed"):
        future.result(0)
    release.set()
    wait_until(lambda: connection._engine_runs._is_closed, 10.0, "the end of the connection")


def test_a_blocked_thread_keeps_the_end_of_the_program_two_seconds_at_most(process: SilentEngines) -> None:
    connection, first = begin(process)
    _, second = begin(process, 1, address=OTHER)
    release = threading.Event()
    block(connection, release)
    began = time.monotonic()
    process.shut_down()

    assert time.monotonic() - began < 2.0 * busyness()
    for future in (first, second):
        with pytest.raises(EngineUnavailableError, match="ending"):
            future.result(0)
    release.set()


def test_an_exception_in_a_callback_ends_only_the_runs_of_its_connection(process: SilentEngines) -> None:
    connection, first = begin(process)
    _, second = begin(process, 1, address=OTHER)

    def fail() -> None:
        raise SystemExit(3)

    connection._reactor.call(fail)
    with pytest.raises(RunError, match="SystemExit: 3"):
        first.result(60)
    assert not second.done()
    assert not connection.is_lost
    _, third = begin(process, 2)
    process.release(process.addresses[ADDRESS], 1)
    assert getattr(third.result(60), "aborted", None) is True


def test_a_client_releases_its_own_runs_only(process: SilentEngines) -> None:
    _, mine = begin(process)
    _, others = begin(process, 1, owner=2)
    process.release(process.addresses[ADDRESS], 1)

    assert getattr(mine.result(60), "aborted", None) is True
    assert not others.done()


def test_another_process_shuts_nothing_down(process: SilentEngines) -> None:
    connection, future = begin(process)
    process.pid = os.getpid() + 1
    process.shut_down()
    process.pid = os.getpid()

    assert not connection.is_lost
    assert not future.done()
