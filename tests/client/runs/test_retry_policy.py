"""What is promised of the delays between attempts."""

from __future__ import annotations

import statistics
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.runs.retry_policy import LONGEST_DELAY, LONGEST_RETRY_AFTER, retry_delay
from headrace.wire.messages import Failed


def delay(span_id: str = "sp_1", retries: int = 0, attempt: int = 1, **facts: Any) -> float | None:
    failed = Failed(span_id, attempt, 0, "provider_unavailable", "no", **{"may_retry": True} | facts)
    return retry_delay(failed, span_id, retries)


@given(retries=st.integers(0, 200), attempt=st.integers(1, 300), span_id=st.text(max_size=20))
def test_a_delay_is_within_its_limit_and_always_the_same_for_one_attempt(
    retries: int, attempt: int, span_id: str
) -> None:
    found = delay(span_id, retries, attempt)

    assert found is not None
    assert 0.0 <= found <= min(LONGEST_DELAY, 0.5 * 2 ** min(retries, 10))
    assert delay(span_id, retries, attempt) == found


def test_delays_of_many_runs_are_spread_evenly() -> None:
    delays = [delay(f"sp_{number:016x}", 4) or 0.0 for number in range(2000)]

    assert abs(statistics.mean(delays) - LONGEST_DELAY / 2) < 0.25
    assert all(sum(low <= found < low + 1.0 for found in delays) > 150 for low in range(int(LONGEST_DELAY)))


@given(said=st.floats(allow_nan=True))
def test_the_time_that_a_provider_asks_for_is_kept_unless_it_is_absurd(said: float) -> None:
    found = delay(retry_after=said)

    if 0.0 < said <= LONGEST_RETRY_AFTER:
        assert found == said
    elif said > LONGEST_RETRY_AFTER:
        assert found is None
    else:
        assert found is not None
        assert found <= 0.5
