"""The supervisor's watch over the broker: a broker that is silent for too long is named once, and its successor starts anew."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from headrace.wire.codec import encode_frame, to_broker
from headrace.wire.messages import FromBroker, Heartbeat, RestartAnswer, Silent
from headrace_engine.liveness import HUNG_AFTER, START_WITHIN, SUSPECT_AFTER
from headrace_engine.supervisor.broker_watch import BrokerWatch
from headrace_engine.supervisor.children import Child
from tests.client.transport.test_link import OtherEnd

LOOK_EVERY = 0.5


class WatchedBroker:
    """A broker in this process, whose end of the link is a test's, and the watch over it."""

    def __init__(self, path: Path) -> None:
        self.end = OtherEnd(path)
        self.child = Child("broker", [sys.executable], os.environ)
        self.heard: list[FromBroker] = []
        self.connections = 0
        self.watch = BrokerWatch(self.child, self.end.reactor, self.end.endpoint, self.heard.append, self._connected)

    def start(self, epoch: int) -> None:
        self.child.process = cast("Any", SimpleNamespace(pid=os.getpid()))
        self.child.epoch = epoch
        self.watch.started()

    def looks(self, since: float, until: float) -> list[Silent]:
        """Look each half second; return what the looks say."""
        times = [since + LOOK_EVERY * step for step in range(int((until - since) / LOOK_EVERY) + 1)]
        return [silent for now in times if (silent := self.watch.look(now, now + LOOK_EVERY)) is not None]

    def beat(self) -> float:
        """Let the broker send a heartbeat to the supervisor; return when it has arrived."""
        self.end.until(lambda: self.end.who)
        count = len(self.heard)
        self.end.send(encode_frame(1, [Heartbeat()]))
        self.end.until(lambda: len(self.heard) > count)
        return time.monotonic()

    def _connected(self) -> None:
        self.connections += 1


class OtherProcess:
    """A process that is not the one at the socket. Counts how often its number is looked at."""

    def __init__(self) -> None:
        self.looks = 0

    @property
    def pid(self) -> int:
        self.looks += 1
        return 1


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the broker has waited for a processor, look by look; at last, and if the list is empty, it waits no longer."""
    waits: list[float] = []

    def processor_wait(_: int) -> float:
        return waits.pop(0) if len(waits) > 1 else sum(waits)

    monkeypatch.setattr("headrace_engine.supervisor.broker_watch.processor_wait", processor_wait)
    return waits


@pytest.fixture
def broker(tmp_path: Path, waits: list[float]) -> Iterator[WatchedBroker]:
    assert not waits
    made = WatchedBroker(tmp_path / "broker")
    yield made
    made.watch._link.close()  # a watch is never closed: it lives as long as its process
    made.end.end()
    made.end.reactor.close()


def test_no_broker_is_silent_while_none_runs(broker: WatchedBroker) -> None:
    assert broker.looks(0.0, 100.0) == []


def test_a_broker_that_never_speaks_is_named_once(broker: WatchedBroker) -> None:
    broker.start(epoch=7)

    assert broker.looks(0.0, START_WITHIN - LOOK_EVERY) == []
    assert broker.looks(START_WITHIN, START_WITHIN + 20.0) == [Silent("broker", 7, START_WITHIN)]
    assert not broker.child.has_served


def test_a_broker_that_falls_silent_is_named_once_and_one_that_speaks_is_not(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    broker.watch.look(time.monotonic(), time.monotonic() + LOOK_EVERY)
    heard_at = broker.beat()

    assert broker.child.has_served
    assert broker.looks(heard_at, heard_at + HUNG_AFTER - LOOK_EVERY) == []
    heard_at = broker.beat()
    (silent,) = broker.looks(heard_at, heard_at + HUNG_AFTER + 20.0)
    assert silent.epoch == 7
    assert HUNG_AFTER <= silent.silence < HUNG_AFTER + 2 * LOOK_EVERY


def test_a_supervisor_that_was_stopped_itself_names_nobody_at_once(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    heard_at = broker.beat()
    broker.watch.look(heard_at, heard_at + LOOK_EVERY)

    assert broker.watch.look(heard_at + 60.0, heard_at + 60.0 + LOOK_EVERY) is None


def test_the_silence_of_a_broker_does_not_count_against_the_next_one(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    heard_at = broker.beat()
    assert len(broker.looks(heard_at, heard_at + 20.0)) == 1

    broker.start(epoch=8)

    started_at = heard_at + 20.0
    assert broker.looks(started_at, started_at + START_WITHIN - LOOK_EVERY) == []
    assert [silent.epoch for silent in broker.looks(started_at + START_WITHIN, started_at + START_WITHIN + 5.0)] == [8]


def test_a_broker_that_was_started_just_before_all_processes_were_frozen_is_not_hung(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    now = time.monotonic()
    assert broker.watch.look(now, now + LOOK_EVERY) is None
    broker.start(epoch=8)
    heard_at = broker.beat()

    late = heard_at + 2 * HUNG_AFTER
    assert broker.watch.look(late, late + LOOK_EVERY) is None
    assert len(broker.looks(late + LOOK_EVERY, late + 2 * HUNG_AFTER)) == 1


def test_a_broker_that_waits_for_a_processor_is_not_hung(broker: WatchedBroker, waits: list[float]) -> None:
    broker.start(epoch=7)
    heard_at = broker.beat()
    waits += [LOOK_EVERY * step for step in range(21)]

    silent_at_last = heard_at + SUSPECT_AFTER + 10.0
    assert broker.looks(heard_at, silent_at_last) == []
    (silent,) = broker.looks(silent_at_last + LOOK_EVERY, silent_at_last + HUNG_AFTER)
    assert silent.silence == pytest.approx(HUNG_AFTER, abs=LOOK_EVERY)


def test_a_broker_is_connected_once_and_hears_what_the_supervisor_sends(broker: WatchedBroker) -> None:
    broker.end.decode = to_broker.decode
    broker.watch.send([RestartAnswer(1)])  # nobody is there yet: it is not kept
    broker.start(epoch=7)
    broker.beat()
    broker.watch.send([RestartAnswer(2)])
    broker.end.until(lambda: RestartAnswer(2) in broker.end.heard)

    assert RestartAnswer(1) not in broker.end.heard
    assert broker.connections == 1


def test_another_process_at_the_brokers_place_is_told_nothing(broker: WatchedBroker) -> None:
    other = OtherProcess()
    broker.child.process = cast("Any", other)
    broker.watch.started()

    broker.end.until(lambda: other.looks)
    for _ in range(10):
        broker.end.turn()

    assert not broker.end.heard, "it was told nothing"
    assert not broker.heard


def test_a_broker_is_asked_every_two_seconds(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    broker.end.decode = to_broker.decode
    broker.beat()

    for step in range(9):
        broker.watch.ask(LOOK_EVERY * step)
    broker.watch.send([RestartAnswer(1)])
    broker.end.until(lambda: RestartAnswer(1) in broker.end.heard)

    assert broker.end.heard.count(Heartbeat()) == 3


def test_an_answer_is_due_from_the_question_until_the_broker_speaks(broker: WatchedBroker) -> None:
    broker.start(epoch=7)
    broker.end.decode = to_broker.decode
    broker.beat()
    assert not broker.watch.is_answer_due

    broker.watch.ask(time.monotonic())
    assert broker.watch.is_answer_due
    broker.beat()
    assert not broker.watch.is_answer_due
