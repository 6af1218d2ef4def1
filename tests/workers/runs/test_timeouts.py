"""Each clock of a run runs when it should, and the clock that runs out first is named."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.settings.settings import EngineConfig
from headrace.wire.run_request import RunRequest
from headrace_workers.runs.timeouts import ClockLimits, Clocks, Expired
from headrace_workers.worker_settings import clock_limits

LIMITS = ClockLimits(connect=1.0, first_chunk=4.0, idle=2.0, total=10.0)
WITH_READER = ClockLimits(connect=1.0, first_chunk=4.0, idle=2.0, total=10.0, reader=3.0)


def connected(limits: ClockLimits = LIMITS) -> Clocks:
    clocks = Clocks(limits, 0.0)
    clocks.connected()
    clocks.last_life = 0.5
    return clocks


def test_the_connect_clock_runs_from_the_start() -> None:
    clocks = Clocks(LIMITS, 100.0)

    assert clocks.next_deadline() == 101.0
    assert clocks.expired(100.9) is None
    assert clocks.expired(101.0) == Expired("connect", 1.0)


def test_the_idle_clock_runs_from_the_last_sign_of_life() -> None:
    clocks = connected()
    assert clocks.next_deadline() == 2.5
    clocks.connected()
    assert clocks.next_deadline() == 2.5, "a connection is no sign of life"

    clocks.last_life = 1.5
    assert clocks.expired(3.4) is None
    assert clocks.expired(3.5) == Expired("idle", 2.0)


def test_before_the_first_byte_only_the_first_chunk_clock_runs() -> None:
    clocks = Clocks(LIMITS, 0.0)
    clocks.connected()

    assert clocks.expired(3.9) is None
    assert clocks.expired(4.0) == Expired("first_chunk", 4.0)


def test_the_first_chunk_clock_runs_until_there_is_content() -> None:
    clocks = connected()
    clocks.last_life = 3.9
    assert clocks.expired(4.0) == Expired("first_chunk", 4.0)

    clocks.content()
    assert clocks.expired(4.0) is None


def test_the_idle_clock_stands_still_while_paused_and_starts_anew() -> None:
    clocks = connected()
    clocks.content()
    clocks.paused()
    assert clocks.expired(9.9) is None
    assert clocks.next_deadline() == 10.0

    clocks.resumed(7.0)
    assert clocks.next_deadline() == 9.0


def test_the_total_clock_never_stands_still() -> None:
    clocks = connected()
    clocks.content()
    clocks.paused()

    assert clocks.expired(10.0) == Expired("total", 10.0)


def test_the_first_chunk_clock_stands_still_while_paused() -> None:
    clocks = connected()
    clocks.paused()

    assert clocks.expired(9.9) is None


def test_the_reader_clock_runs_while_paused_since_the_reader_last_took_events() -> None:
    clocks = connected(WITH_READER)
    clocks.content()
    clocks.paused()
    assert clocks.next_deadline() == 3.5

    clocks.taken(2.0)
    assert clocks.expired(4.9) is None
    assert clocks.expired(5.0) == Expired("reader", 3.0)

    clocks.resumed(4.0)
    assert clocks.expired(5.9) is None
    assert clocks.expired(6.0) == Expired("idle", 2.0)


def test_after_the_end_only_the_reader_clock_runs() -> None:
    clocks = connected(WITH_READER)
    clocks.last_life = 9.0
    clocks.ended()

    assert clocks.expired(11.9) is None
    assert clocks.expired(12.0) == Expired("reader", 3.0)
    clocks.taken(12.0)
    assert clocks.next_deadline() == 15.0


def test_an_end_does_not_restart_a_running_reader_clock() -> None:
    clocks = connected(WITH_READER)
    clocks.paused()
    clocks.taken(1.0)
    clocks.last_life = 3.0
    clocks.ended()

    assert clocks.expired(4.0) == Expired("reader", 3.0)


def test_without_a_limit_the_reader_clock_never_runs_out() -> None:
    clocks = connected()
    clocks.ended()

    assert clocks.next_deadline() == math.inf


@pytest.mark.parametrize(
    ("time_left", "ends_at"), [(None, 600.0), (600.0, 600.0), (2.5, 2.5), (0.0, 0.0), (1e9, 600.0)]
)
def test_a_further_attempt_has_what_is_left_of_the_total_time_and_tells_the_whole_limit(
    time_left: float | None, ends_at: float
) -> None:
    request = RunRequest(provider="p", model="m", messages=[], stream=True)
    config = EngineConfig(connect_timeout=1000.0, first_chunk_timeout=1000.0)
    clocks = Clocks(clock_limits(request, config, time_left), 100.0)

    assert clocks.next_deadline() == 100.0 + ends_at
    assert clocks.expired(100.0 + ends_at) == Expired("total", 600.0)


@pytest.mark.parametrize(("now", "clock"), [(1.0, "connect"), (4.0, "connect"), (10.0, "connect")])
def test_the_clock_that_runs_out_first_is_named(now: float, clock: str) -> None:
    expired = Clocks(LIMITS, 0.0).expired(now)

    assert expired is not None
    assert expired.clock == clock


def test_a_clock_without_a_limit_never_runs_out() -> None:
    never = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)

    assert Clocks(never, 0.0).expired(1e12) is None
    assert connected(never).next_deadline() == math.inf


@settings(deadline=None)
@given(
    happenings=st.lists(
        st.tuples(
            st.floats(0, 3), st.sampled_from(["connected", "alive", "content", "paused", "resumed", "taken", "ended"])
        ),
        max_size=15,
    )
)
def test_a_clock_has_run_out_exactly_when_its_deadline_has_come(happenings: list[tuple[float, str]]) -> None:
    clocks = Clocks(WITH_READER, 0.0)
    now = 0.0
    for seconds, happening in happenings:
        now += seconds
        match happening:
            case "connected":
                clocks.connected()
            case "alive":
                clocks.last_life = now
            case "content":
                clocks.content()
            case "paused":
                clocks.paused()
            case "taken":
                clocks.taken(now)
            case "ended":
                clocks.ended()
            case _:
                clocks.resumed(now)
        deadline = clocks.next_deadline()
        assert clocks.expired(deadline) is not None
        assert (clocks.expired(now) is not None) == (now >= deadline)
        assert clocks.expired(math.nextafter(deadline, -math.inf)) is None
