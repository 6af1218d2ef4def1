"""What the credit of a reader promises.

At most one window waits, and a reader that goes on never stops its worker for good.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from headrace.runs.reader_credit import ReaderCredit
from headrace.types import ReasoningDelta, RunEvent, ToolCallDelta, Usage, UsageUpdate
from headrace.wire.flow import characters, event_characters
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS

MAKERS: dict[str, Callable[[int], RunEvent]] = {
    "text": "x".__mul__,
    "reasoning": lambda size: ReasoningDelta("r" * size),
    "arguments": lambda size: ToolCallDelta(0, "c", "look", "a" * size),
    "usage": lambda _: UsageUpdate(Usage()),
}
# A worker cuts an event that is larger than its credit. A quarter of a window always fits once everything was taken.
SIZES = st.one_of(st.integers(0, 40), st.integers(1, WINDOW_CHARACTERS // 4))
Kinds = list[tuple[str, int]]
KINDS = st.lists(st.tuples(st.sampled_from(sorted(MAKERS)), SIZES), max_size=150)


class StreamModel:
    """A worker that sends what it may, a reader, and the I/O thread between them. Messages take no time."""

    def __init__(self, kinds: Kinds, *, reads_all: bool = False) -> None:
        self.credit = ReaderCredit(reads_all=reads_all)
        self.whole: list[RunEvent] = [MAKERS[kind](size) for kind, size in kinds]
        self.to_send = list(self.whole)
        self.events: list[RunEvent] = []
        self.sent_characters = 0
        # What the worker was told, last.
        self.limits = (WINDOW_EVENTS, WINDOW_CHARACTERS)

    def worker_sends(self, count: int) -> None:
        """Send up to ``count`` events, each alone: the I/O thread looks after each."""
        for event in self.to_send[:count]:
            size = self.sent_characters + event_characters(event)
            if len(self.events) >= self.limits[0] or size > self.limits[1]:
                return
            self.sent_characters = size
            self.events.append(self.to_send.pop(0))
            self.io_thread_looks()

    def reader_takes(self, count: int) -> None:
        """Take up to ``count`` of the events that wait, as one batch."""
        batch = self.events[self.credit.taken : self.credit.taken + count]
        if batch and self.credit.take(batch):
            self.io_thread_looks()

    def io_thread_looks(self) -> None:
        if self.credit.is_due(self.events):
            self.credit.give()
            limits = self.credit.sequence_limit, self.credit.character_limit
            assert limits[0] >= self.limits[0]
            assert limits[1] >= self.limits[1]
            self.limits = limits

    def check(self) -> None:
        """At most one window is on its way to the reader, or may come."""
        taken = len(self.events) if self.credit.reads_all else self.credit.taken
        assert self.limits[0] <= taken + WINDOW_EVENTS
        assert self.limits[1] <= characters(self.events[:taken]) + WINDOW_CHARACTERS


STEPS = st.lists(st.tuples(st.sampled_from(["send", "take"]), st.integers(1, WINDOW_EVENTS)), max_size=60)


@given(KINDS, STEPS)
def test_no_more_than_one_window_ever_waits_for_the_reader(kinds: Kinds, steps: list[tuple[str, int]]) -> None:
    stream = StreamModel(kinds)
    for name, count in steps:
        (stream.worker_sends if name == "send" else stream.reader_takes)(count)
        stream.check()


@given(KINDS, st.integers(1, WINDOW_EVENTS), STEPS)
def test_a_reader_that_goes_on_gets_everything(kinds: Kinds, batch: int, steps: list[tuple[str, int]]) -> None:
    """Whatever came before: once the reader takes what waits, the worker can send again."""
    stream = StreamModel(kinds)
    for name, count in steps:
        (stream.worker_sends if name == "send" else stream.reader_takes)(count)
    for _ in range(2 * len(kinds) + 1):
        stream.worker_sends(WINDOW_EVENTS)
        stream.reader_takes(batch)

    assert stream.events == stream.whole
    assert stream.credit.taken == len(kinds)
    assert stream.credit.taken_characters == characters(stream.whole)


@given(KINDS)
def test_a_result_that_is_asked_for_needs_no_reader(kinds: Kinds) -> None:
    stream = StreamModel(kinds, reads_all=True)
    stream.worker_sends(len(kinds))

    assert stream.events == stream.whole
    assert stream.credit.taken == 0
    stream.check()


@given(KINDS, STEPS)
def test_a_result_that_is_asked_for_late_frees_a_worker_that_waits_for_a_stalled_reader(
    kinds: Kinds, steps: list[tuple[str, int]]
) -> None:
    stream = StreamModel(kinds)
    for name, count in steps:
        (stream.worker_sends if name == "send" else stream.reader_takes)(count)

    stream.credit.reads_all = True
    stream.io_thread_looks()
    stream.worker_sends(len(kinds))
    assert stream.events == stream.whole


def test_a_reader_asks_once_for_three_quarters_of_a_window_and_not_before() -> None:
    credit = ReaderCredit()
    asks = [credit.take(["x"]) for _ in range(WINDOW_EVENTS * 3 // 2)]

    assert [number + 1 for number, is_asked in enumerate(asks) if is_asked] == [
        WINDOW_EVENTS * 3 // 4,
        WINDOW_EVENTS * 3 // 2,
    ]


def test_a_reader_asks_for_characters_too() -> None:
    credit = ReaderCredit()

    assert not credit.take(["x" * (WINDOW_CHARACTERS * 3 // 4 - 1)])
    assert credit.take([ReasoningDelta("x")])


def test_a_reader_asks_again_after_another_three_quarters_of_a_window_of_characters() -> None:
    credit = ReaderCredit()
    quarter = "x" * (WINDOW_CHARACTERS // 4)
    asks = [credit.take([quarter]) for _ in range(6)]

    assert asks == [False, False, True, False, False, True]


def test_once_the_result_is_asked_for_credit_counts_from_the_events_that_have_arrived() -> None:
    credit = ReaderCredit(reads_all=True)
    events: list[RunEvent] = ["x" * (WINDOW_CHARACTERS // 2 - 1)]
    assert not credit.is_due(events)
    events.append("x")
    assert credit.is_due(events)
    credit.give()
    assert (credit.sequence_limit, credit.character_limit) == (2 + WINDOW_EVENTS, WINDOW_CHARACTERS * 3 // 2)

    events += ["x"] * (WINDOW_EVENTS // 2 - 1)
    assert not credit.is_due(events)
    events.append("x")
    assert credit.is_due(events)


def test_credit_is_due_at_half_a_window_and_not_before() -> None:
    credit = ReaderCredit()
    credit.take(["x"] * (WINDOW_EVENTS // 2 - 1))
    assert not credit.is_due([])
    credit.take(["x"])
    assert credit.is_due([])
    credit.give()
    assert not credit.is_due([])

    credit.take(["x" * (WINDOW_CHARACTERS // 2 - 1)])
    assert not credit.is_due([])
    credit.take(["x"])
    assert credit.is_due([])


def test_a_run_that_begins_again_has_one_window() -> None:
    credit = ReaderCredit()
    credit.take(["x"] * WINDOW_EVENTS)
    credit.give()
    credit.restart()

    assert (credit.sequence_limit, credit.character_limit) == (WINDOW_EVENTS, WINDOW_CHARACTERS)
