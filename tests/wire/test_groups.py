"""Messages for many runs stand for exactly the messages that were put into them, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import RemoteProtocolError
from headrace.wire import codec
from headrace.wire.groups import packed, run_count, unpacked
from headrace.wire.messages import (
    MAX_GROUP,
    Acquire,
    AcquireMany,
    Grant,
    GrantMany,
    Heartbeat,
    Hold,
    Refuse,
    Release,
    ReleaseMany,
    StatusRequest,
    TokenCounts,
)

IDS = st.sampled_from(["sp_1", "sp_2", "sp_3"])
ACQUIRES = st.builds(
    Acquire,
    IDS,
    st.sampled_from([1, 1, 1, 2]),
    st.just("openai"),
    st.sampled_from(["m", "m", "other"]),
    st.sampled_from(["batch", "interactive"]),
    st.sampled_from([[], [], [7]]),
    st.booleans(),
    st.just(False),
    account=st.sampled_from(["", "key@"]),
    user=st.sampled_from(["", "u"]),
    tags=st.sampled_from([[], ["t"]]),
    input_tokens=st.integers(0, 9),
    max_output_tokens=st.sampled_from([0, 8]),
    max_wait=st.sampled_from([None, 1.5]),
    is_provider_retry=st.booleans(),
    is_hedge=st.booleans(),
)
GRANTS = st.builds(
    Grant,
    IDS,
    st.sampled_from([1, 1, 2]),
    st.just("w1"),
    st.just("ipc:///w1"),
    st.sampled_from([7, 7, 8]),
    st.just(12),
    st.sampled_from(["", "limit"]),
    st.sampled_from(["", "key"]),
    st.booleans(),
)
RELEASES = st.builds(Release, IDS, st.integers(1, 2), st.sampled_from(["finished", "rate_limit"]))
TO_BROKER = st.lists(
    st.one_of(ACQUIRES, RELEASES, st.just(StatusRequest()), st.builds(Hold, IDS, st.just(1), st.just(7)))
)
FROM_BROKER = st.lists(st.one_of(GRANTS, st.just(Refuse("sp_1", 1, "queue_full", "full")), st.just(Heartbeat())))


def singles(messages: Sequence[msgspec.Struct]) -> list[msgspec.Struct]:
    return [single for message in messages for single in unpacked(message)]


@given(TO_BROKER)
def test_what_a_client_says_is_the_same_in_groups_also_after_its_way_over_the_wire(messages: list[Any]) -> None:
    groups = packed(messages)
    _, arrived = codec.to_broker.decode(codec.encode_frame(1, groups))

    assert singles(arrived) == messages
    assert sum(map(run_count, groups)) == len(messages)


@given(FROM_BROKER)
def test_what_the_broker_says_is_the_same_in_groups(messages: list[Any]) -> None:
    _, arrived = codec.from_broker.decode(codec.encode_frame(1, packed(messages)))

    assert singles(arrived) == messages


def test_neighbours_that_fit_together_become_one_message() -> None:
    questions = [Acquire(f"sp_{number}", 1, "openai", "m", "batch", input_tokens=number) for number in range(3)]
    releases = [Release("a", 1, "finished", TokenCounts(1, 2)), Release("b", 2, "rate_limit", status_code=429)]
    grants = [Grant(f"sp_{number}", 1, "w1", "ipc:///w1", 7) for number in range(3)]

    assert packed([*questions, *releases]) == [
        AcquireMany(questions[0], [("sp_1", 1), ("sp_2", 2)]),
        ReleaseMany(releases),
    ]
    assert packed(grants) == [GrantMany(grants[0], ["sp_1", "sp_2"])]


@pytest.mark.parametrize("one", [Acquire("s", 1, "p", "m"), Release("s", 1), Grant("s", 1, "w", "ipc:///w", 7)])
def test_a_group_has_no_more_than_its_bound(one: Any) -> None:
    groups = packed([one] * (2 * MAX_GROUP + 1))

    assert [run_count(message) for message in groups] == [MAX_GROUP, MAX_GROUP, 1]
    assert type(groups[2]) is type(one)


@pytest.mark.parametrize(
    "beyond",
    [
        AcquireMany(Acquire("s", 1, "p", "m"), [("s", 0)] * MAX_GROUP),
        ReleaseMany([Release("s", 1)] * (MAX_GROUP + 1)),
        AcquireMany(Acquire("s", 1, "p", "m"), [("s" * 65, 0)]),
        AcquireMany(Acquire("s", 1, "p", "m"), [("s", -1)]),
    ],
)
def test_a_group_beyond_its_bound_is_refused(beyond: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        codec.to_broker.decode(codec.encode_frame(1, [beyond]))
