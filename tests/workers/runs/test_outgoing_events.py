"""Outgoing events leave in sequence, never beyond the credit, without loss, and a bounded number waits."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.answers.assembly import assemble
from headrace.types import ReasoningDelta, RunEvent, ToolCallDelta, Usage, UsageUpdate
from headrace.wire.flow import characters
from headrace.wire.messages import WINDOW_CHARACTERS
from headrace_workers.runs.outgoing_events import OutgoingEvents

TEXTS = st.text(min_size=1, max_size=6)
EVENTS: st.SearchStrategy[RunEvent] = st.one_of(
    TEXTS,
    st.builds(ReasoningDelta, TEXTS),
    st.builds(ToolCallDelta, st.integers(0, 1), st.none(), st.none(), TEXTS),
    st.builds(UsageUpdate, st.builds(Usage, st.integers(0, 9))),
)


def waiting(outflow: OutgoingEvents, *events: RunEvent) -> OutgoingEvents:
    outflow.pending.extend(events)
    return outflow


def test_events_within_the_credit_leave_unchanged() -> None:
    outflow = waiting(OutgoingEvents(3, 10), "ab", "cd")

    assert outflow.take() == (0, ["ab", "cd"])
    assert outflow.take() == (2, [])
    assert (outflow.sequence, outflow.text_length) == (2, 4)
    assert waiting(outflow, "e").take() == (2, ["e"])
    assert not outflow.has_credit


def test_credit_for_events_bounds_their_number() -> None:
    outflow = waiting(OutgoingEvents(1, 100), "a", "b", "c")
    assert outflow.take() == (0, ["a"])
    assert outflow.take() == (1, [])

    outflow.allow_more(3, 100)
    assert outflow.take() == (1, ["b", "c"])


def test_credit_for_characters_may_split_an_event() -> None:
    outflow = waiting(OutgoingEvents(10, 4), "abc", "def")
    assert outflow.take() == (0, ["abc", "d"])
    assert outflow.pending == ["ef"]

    outflow.allow_more(10, 6)
    assert outflow.take() == (2, ["ef"])
    assert outflow.text_length == 6


def test_a_late_credit_does_not_lower_the_limit() -> None:
    outflow = OutgoingEvents(5, 5)
    outflow.allow_more(1, 9)
    outflow.allow_more(9, 1)

    assert waiting(outflow, *"abcdefghi").take() == (0, list("abcdefghi"))


def test_only_text_counts_as_text() -> None:
    outflow = waiting(OutgoingEvents(10, 100), "ab", ReasoningDelta("cde"))
    outflow.take()

    assert outflow.text_length == 2


def test_waiting_is_full_at_a_window_without_credit() -> None:
    outflow = waiting(OutgoingEvents(0, 0), "x" * (WINDOW_CHARACTERS - 1))
    assert not outflow.waiting_is_full()

    assert waiting(outflow, "x").waiting_is_full()
    assert len(outflow.pending) == 1, "what waits is merged"
    outflow.allow_more(1, 2 * WINDOW_CHARACTERS)
    assert not outflow.waiting_is_full()


def test_waiting_is_low_again_below_half_a_window_with_credit() -> None:
    outflow = waiting(OutgoingEvents(0, 0), "x" * (WINDOW_CHARACTERS // 2 - 1))
    assert not outflow.waiting_is_low()

    outflow.allow_more(1, 1)
    assert outflow.waiting_is_low()
    assert not waiting(outflow, "x").waiting_is_low()


@settings(deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.lists(EVENTS, max_size=4), st.tuples(st.integers(0, 3), st.integers(0, 8))), max_size=20
    )
)
def test_all_events_leave_in_sequence_with_any_credit(
    steps: list[list[RunEvent] | tuple[int, int]],
) -> None:
    outflow = OutgoingEvents(0, 0)
    limits = [0, 0]
    put: list[RunEvent] = []
    left: list[RunEvent] = []

    def take() -> None:
        first, taken = outflow.take()
        assert first == len(left)
        left.extend(taken)
        assert len(left) == outflow.sequence <= limits[0]
        assert characters(left) <= limits[1]

    for step in steps:
        if isinstance(step, tuple):
            limits = [limits[0] + step[0], limits[1] + step[1]]
            outflow.allow_more(*limits)
        else:
            put += step
            outflow.pending.extend(step)
            outflow.waiting_is_full()
        take()
    limits = [10**6, 10**6]
    outflow.allow_more(*limits)
    take()

    assert outflow.pending == []
    assert assemble(left) == assemble(put)
    assert outflow.text_length == len(assemble(put).text)


def test_events_that_cannot_be_merged_and_have_no_characters_stop_the_reading_too() -> None:
    outflow = OutgoingEvents(0, 0)
    for index in range(1000):
        outflow.pending.append(ToolCallDelta(index, f"c{index}", "f"))
        if outflow.waiting_is_full():
            break
    else:
        raise AssertionError("reads on for ever")

    assert outflow.pending[0] == ToolCallDelta(0, "c0", "f")
    assert not outflow.waiting_is_low()
    outflow.allow_more(10_000, 10_000)
    outflow.take()
    assert outflow.waiting_is_low()


def test_more_than_a_window_is_not_read_before_something_leaves() -> None:
    outflow = OutgoingEvents(100, 10 * WINDOW_CHARACTERS)
    outflow.read += WINDOW_CHARACTERS - 1
    assert not outflow.is_flooded
    outflow.read += 1
    assert outflow.is_flooded

    waiting(outflow, "a").take()
    assert not outflow.is_flooded


def test_reading_resumes_when_half_of_the_events_that_may_wait_have_left() -> None:
    """Some events cannot be merged and have no characters. Only their number counts: four windows of them may wait."""
    outflow = OutgoingEvents(1, 1)
    outflow.pending = [ToolCallDelta(index, f"c{index}", "f") for index in range(4 * 64 // 2)]
    assert not outflow.waiting_is_low()

    outflow.pending.pop()
    assert outflow.waiting_is_low()


def test_reading_does_not_resume_without_credit_for_an_event_and_a_character() -> None:
    for limits in ((1, 10), (10, 1)):
        outflow = waiting(OutgoingEvents(*limits), "a")
        outflow.take()
        assert not outflow.waiting_is_low()
        assert not outflow.has_credit

        outflow.allow_more(11, 11)
        assert outflow.waiting_is_low()


def test_reading_stops_at_four_windows_of_events_and_at_one_of_characters() -> None:
    outflow = OutgoingEvents(0, 0)
    outflow.pending = [ToolCallDelta(index, f"c{index}", "f") for index in range(4 * 64 - 1)]
    assert not outflow.waiting_is_full()
    outflow.pending.append(ToolCallDelta(999, "c", "f"))
    assert outflow.waiting_is_full()

    assert not waiting(OutgoingEvents(0, 0), "x" * 65_535).waiting_is_full()
    assert waiting(OutgoingEvents(0, 0), "x" * 65_536).waiting_is_full()


def test_reading_resumes_below_half_a_window_of_characters() -> None:
    assert waiting(OutgoingEvents(1, 1), "x" * 32_767).waiting_is_low()
    assert not waiting(OutgoingEvents(1, 1), "x" * 32_768).waiting_is_low()


def test_a_flood_is_a_window_of_bytes_since_something_last_left() -> None:
    outflow = OutgoingEvents(1, 1)
    outflow.read += 40_000
    outflow.read += 25_535
    assert not outflow.is_flooded
    outflow.read += 1
    assert outflow.is_flooded


def test_a_clients_credit_counts_at_most_a_window_beyond_what_it_was_sent() -> None:
    outflow = waiting(OutgoingEvents(64, 65_536), *["abc"] * 10)
    outflow.take()
    for claimed in (2**62, 10**9, 75):
        assert outflow.within_window(claimed, 2**64 - 1) == (10 + 64, 30 + WINDOW_CHARACTERS)
    assert outflow.within_window(-(2**63), -1) == (-(2**63), -1)
    outflow.allow_more(*outflow.within_window(-(2**63), -1))
    assert outflow.has_credit, "limits never shrink"
    # The most that an honest client can allow after it has taken ten events of thirty characters.
    assert outflow.within_window(74, 65_566) == (74, 65_566)
