"""The Release of an attempt says how it ended, and the broker can decode it whatever figures a provider gave."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.types import Usage
from headrace.wire import codec
from headrace.wire.messages import Aborted, Failed, Finished, Release, Terminal, TokenCounts
from headrace.wire.settlement import release_of

USAGE = Usage(10, 5, 15, 4, source="provider")
TOKENS = TokenCounts(10, 5, 4, "provider")


@pytest.mark.parametrize(
    ("terminal", "release"),
    [
        (Finished("s", 2, 0, 0, "stop", "stop", USAGE, [], "m"), Release("s", 2, "finished", TOKENS)),
        (Aborted("s", 1, 0, USAGE), Release("s", 1, "aborted", TOKENS)),
        (
            Failed("s", 1, 0, "rate_limit", "slow down", USAGE, 429, retry_after=2.5),
            Release("s", 1, "rate_limit", TOKENS, 429, 2.5),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_release_says_how_the_attempt_ended_and_what_it_used(terminal: Terminal, release: Release) -> None:
    assert release_of(terminal) == release


def test_usage_that_is_not_known_is_left_out() -> None:
    assert release_of(Aborted("s", 1, 0, Usage())).tokens is None


@given(
    st.integers(-(2**63), 2**64 - 1),
    st.one_of(st.none(), st.integers(-(2**63), 2**64 - 1)),
    st.one_of(st.none(), st.floats(), st.sampled_from([-1.0, 1e300])),
)
def test_the_broker_can_read_a_release_whatever_figures_a_provider_gave(
    count: int, status_code: int | None, retry_after: float | None
) -> None:
    usage = Usage(count, count, count, count, source="provider")
    release = release_of(Failed("s", 1, 0, "rate_limit", "", usage, status_code, retry_after=retry_after))

    assert codec.to_broker.decode(codec.encode_frame(1, [release])) == (1, [release])
