"""Merged and split deltas have the same content, in fewer or smaller events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.answers.assembly import assemble
from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta, Usage, UsageUpdate
from headrace.wire.flow import characters, event_characters
from headrace_workers.runs.event_merging import merge_neighbours, split_within

TEXTS = st.text(max_size=6)
EVENTS: st.SearchStrategy[RunEvent] = st.one_of(
    TEXTS,
    st.builds(ReasoningDelta, TEXTS),
    st.builds(RefusalDelta, TEXTS),
    st.builds(ToolCallDelta, st.integers(0, 2), st.none() | TEXTS, st.none() | TEXTS, TEXTS),
    st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9))),
)


@settings(deadline=None)
@given(events=st.lists(EVENTS, max_size=12))
def test_merged_events_have_the_same_content(events: list[RunEvent]) -> None:
    merged = merge_neighbours(events)

    assert assemble(merged) == assemble(events)
    assert characters(merged) == characters(events)
    assert len(merged) <= len(events)
    assert merge_neighbours(merged) == merged


def test_neighbours_of_one_kind_become_one() -> None:
    events: list[RunEvent] = ["a", "b", ReasoningDelta("c"), ReasoningDelta("d"), "e", "f"]

    assert merge_neighbours(events) == ["ab", ReasoningDelta("cd"), "ef"]


def test_pieces_of_different_tool_calls_stay_apart() -> None:
    events: list[RunEvent] = [
        ToolCallDelta(0, "a", "f", "{"),
        ToolCallDelta(0, arguments="}"),
        ToolCallDelta(1, "b", "g", "{}"),
    ]

    assert merge_neighbours(events) == [ToolCallDelta(0, "a", "f", "{}"), ToolCallDelta(1, "b", "g", "{}")]


def test_the_last_of_neighbouring_usage_updates_stays() -> None:
    assert merge_neighbours([UsageUpdate(Usage(1)), UsageUpdate(Usage(2))]) == [UsageUpdate(Usage(2))]


def test_merging_does_not_change_the_given_list() -> None:
    events: list[RunEvent] = ["a", "b"]
    merge_neighbours(events)

    assert events == ["a", "b"]


@settings(deadline=None)
@given(event=EVENTS, limit=st.integers(0, 8))
def test_a_split_event_has_the_same_content(event: RunEvent, limit: int) -> None:
    halves = split_within(event, limit)

    if isinstance(event, UsageUpdate):
        assert halves is None
        return
    assert halves is not None
    assert event_characters(halves[0]) == min(limit, event_characters(event))
    assert assemble(halves) == assemble([event])
