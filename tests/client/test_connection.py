"""What a connection promises of the engine that it asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connection import Connection
from headrace.delivery import Delivery, Interest
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.reactor import Reactor
from headrace.session import RunPlan, Session
from headrace.streams import ResultFuture
from headrace.types import RunLocalResult


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

    def problem(self) -> str | None:
        return "it ended"

    def error(self, reason: str) -> HeadraceError:
        return EngineUnavailableError(self.address, reason)

    def is_broker(self, pid: int) -> bool:  # noqa: ARG002 - the source's form
        return True

    def is_starting(self) -> bool:
        return False

    def last_words(self) -> str:
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


def test_an_engine_that_cannot_start_is_not_started_again_to_take_back_leases(reactor: Reactor, tmp_path: Path) -> None:
    source = EngineThatEnds(tmp_path)
    connection = Connection(reactor, source, 1, 5.0)
    results: list[ResultFuture[RunLocalResult]] = []
    for number in range(3):
        session = Session(RunPlan(f"sp_{number:016x}", "openai", "gpt-4o", b"", streams=True))
        delivery = Delivery(session, "tr_0000000000000000", time.monotonic(), connection, 1)
        results.append(ResultFuture(delivery, Interest(delivery)))
        connection.submit(delivery)

    for result in results:
        with pytest.raises(EngineUnavailableError, match="it ended"):
            result.result(10)
    done = threading.Event()
    connection.post_close(done.set)
    assert done.wait(5)

    assert source.starts == 1
