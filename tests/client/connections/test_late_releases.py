"""Leases that are given back a few milliseconds late: only those of finished runs, which have no news for the broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.connections.engine_link import EngineLink
from headrace.connections.engine_runs import EngineRuns
from headrace.runs.open_runs import OpenRun, OpenRuns
from headrace.runs.row_run import EndedRuns, RowRun
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.runs.session_commands import Command
from headrace.transport.reactor import Reactor
from headrace.types import Message, Usage
from headrace.wire.messages import Failed, Finished, Grant, Release
from tests.client.connections.test_connection import EngineThatStays

EPOCH = 7
USAGE = Usage(1, 2, 3, source="provider")


class FakeWorkers:
    """In place of the links to workers. The test says what a worker would."""

    def __init__(self, *given: Any) -> None:
        self.carry_out: Callable[[OpenRun, list[Command]], None] = given[3]

    def has(self, _: str) -> bool:
        return True

    def tell(self, *_: object, **__: object) -> None:
        pass

    def release(self, _: OpenRun) -> None:
        pass


class Story:
    """One row on a worker, and what the client says to the broker, at once and late."""

    def __init__(self, reactor: Reactor, directory: Path) -> None:
        made: list[FakeWorkers] = []
        self.at_once: list[msgspec.Struct] = []
        self.late: list[msgspec.Struct] = []

        def make(*given: Any) -> FakeWorkers:
            made.append(FakeWorkers(*given))
            return made[0]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("headrace.connections.engine_runs.WorkerLinks", make)
            self._runs = EngineRuns(reactor, EngineThatStays(directory), 1, 60.0, OpenRuns(600.0))
        self._workers = made[0]
        session = Session(RunPlan("sp_1", "openai", "gpt-4o", b"", streams=False, max_retries=2))
        self._row = RowRun(session, "tr_0000000000000000", time.monotonic(), 1, EndedRuns())

    def granted(self, waited_for: Any = "") -> None:
        self._runs.submit_all([self._row])
        self._runs.granted(Grant("sp_1", 1, "w1", "ipc://w1", EPOCH, waited_for=waited_for))
        self.at_once.clear()

    def ended(self, terminal: Finished | Failed) -> None:
        self._workers.carry_out(self._row, self._row.session.ended(EPOCH, terminal, time.monotonic()))

    @property
    def releases(self) -> tuple[list[str], list[str]]:
        """How the runs ended whose leases were given back at once, and late."""
        said, kept = ([one.outcome for one in told if isinstance(one, Release)] for told in (self.at_once, self.late))
        return said, kept


@pytest.fixture
def story(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Story]:
    reactor = Reactor()
    made = Story(reactor, tmp_path)
    monkeypatch.setattr(EngineLink, "ask", lambda _, message: made.at_once.append(message))
    monkeypatch.setattr(EngineLink, "give_back_late", lambda _, message: made.late.append(message))
    yield made
    reactor.close()


FINISHED = Finished("sp_1", 1, 0, 0, "stop", "stop", USAGE, [], "gpt-4o", Message("assistant", "yes"))


def test_the_lease_of_a_run_that_has_finished_is_given_back_late(story: Story) -> None:
    story.granted()
    story.ended(FINISHED)
    assert story.releases == ([], ["finished"])


def test_it_is_given_back_at_once_where_runs_wait(story: Story) -> None:
    story.granted(waited_for="limit")
    story.ended(FINISHED)
    assert story.releases == (["finished"], [])


def test_the_broker_hears_of_a_429_at_once(story: Story) -> None:
    story.granted()
    story.ended(Failed("sp_1", 1, 0, "rate_limit", "slow down", status_code=429, retry_after=2.0, may_retry=True))
    assert story.releases == (["rate_limit"], [])
