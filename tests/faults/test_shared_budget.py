"""Two engines with one budget in a real redis-server send no more than the limit together, also while it is killed."""

from __future__ import annotations

import signal
import time

import pytest

from tests.e2e.engines import running_engine
from tests.faults.flows import FlowPrograms, kinds_of, limited_engine, most_within, times_of
from tests.faults.limited_load import Flow
from tests.redis_server import RedisServer, needs_redis
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.timeout(240), needs_redis]

PER_MINUTE = 600
BURST = PER_MINUTE // 5
SECONDS = repeated(10.0, 110.0)
KILLED_AFTER, BACK_AFTER = repeated((0.4, 0.7), (0.68, 0.85))
"""Parts of that time. In the long form the first minute is over: until its bursts are a minute old, an engine's share is used up."""
ENGINES = 2


@pytest.mark.tries(3)
def test_two_engines_share_a_limit_and_go_on_while_their_store_is_killed_and_comes_back_empty(
    redis_server: RedisServer,
) -> None:
    config = f"""
[limits.shared]
requests_per_minute = {PER_MINUTE}

[budget]
url = "{redis_server.url}"
engines = {ENGINES}
"""
    flow = Flow(name="shared", provider="shared", key="sk-shared", streams=30, script={"first_token_delay": 0.1})
    with (
        limited_engine(config, names=["shared"], workers=1) as engine,
        running_engine(engine.provider, "--workers", "1", settings_file=engine.config) as other,
    ):
        programs = [FlowPrograms(engine.address, 1), FlowPrograms(other, 1)]
        try:
            for program in programs:
                program.begin(flow)
            began = engine.wait_for(1, flow.key)[0].at
            engine.wait_until_monotonic(began + SECONDS * KILLED_AFTER)
            assert engine.status().budget == "ok"

            redis_server.signal(signal.SIGKILL)
            killed_at = time.monotonic()
            wait_until(lambda: "redis.sock" in engine.status().budget, what="the engine notices")
            engine.wait_until_monotonic(began + SECONDS * BACK_AFTER)
            redis_server.start()
            back_at = time.monotonic()
            wait_until(lambda: engine.status().budget == "ok", what="the engine asks the new store")
            engine.wait_until_monotonic(began + SECONDS)
            seen = [run for program in programs for run in program.stop()["shared"]]
        finally:
            for program in programs:
                program.close()
        times = times_of(engine.arrivals(flow.key))

    assert kinds_of(seen) == {"done"}
    assert most_within([at for at in times if at < killed_at], 60.0) <= PER_MINUTE
    # The minute in which the store dies may have a burst more: an engine's share is counted by itself.
    assert most_within(times, 60.0) <= PER_MINUTE + BURST
    for seconds in (1.0, 2.0, 5.0, 20.0):
        # Each engine has a burst and a pace of its own. No stretch of time has more, whatever becomes of the store.
        assert most_within(times, seconds) <= ENGINES * (BURST + PER_MINUTE / 60 * seconds) + 5
    meanwhile = [at for at in times if killed_at + 1.0 <= at < back_at]
    assert len(meanwhile) >= 0.5 * PER_MINUTE / 60 * (back_at - killed_at - 1.0) / busyness()
    print(
        f"{len(times)} requests in {times[-1] - times[0]:.0f} s, fullest minute {most_within(times, 60.0)}, "
        f"{len(meanwhile)} in the {back_at - killed_at:.1f} s without a store"
    )
