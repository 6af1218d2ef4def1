"""Keeps all that a provider sent in one run, for the run's span, whether or not the client received it. Pure.

Each chunk costs one append to a list. Events are merged now and then, so that the transcript takes little more than its
text.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.answers.assembly import Assembled, assemble
from headrace.types import RunEvent, Usage, UsageUpdate
from headrace_workers.runs.event_merging import MergedEvents, merge_by_kind

_TAIL = 64
"""Events that are kept as they came before they are merged."""


class Transcript:
    """The events of one run. Text keeps its order; other kinds are merged by kind.

    ``tail``: the newest events. Others may append to it, and call :meth:`shorten` now and then.
    """

    __slots__ = ("_others", "_texts", "tail")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._others = MergedEvents()
        self.tail: list[RunEvent] = []

    def add(self, events: list[RunEvent]) -> None:
        """Append events."""
        self.tail += events
        self.shorten()

    def shorten(self) -> None:
        """Merge the newest events if they are many."""
        if len(self.tail) >= _TAIL:
            self._merge_tail()

    @property
    def kept(self) -> list[RunEvent]:
        """All events, merged."""
        self._merge_tail()
        return [*self._texts, *self._others.events]

    def assembled(self, unsent: Sequence[RunEvent] = ()) -> Assembled:
        """Return the content of all events, and then of ``unsent``."""
        self._merge_tail()
        if not self._others.events and not unsent:
            return Assembled(text="".join(self._texts), reasoning="", refusal="", tool_calls=[], usage=Usage())
        return assemble([*self._texts, *self._others.events, *unsent])

    def _merge_tail(self) -> None:
        if not self.tail:
            return
        try:
            self._texts.append("".join(self.tail))  # type: ignore[arg-type]
        except TypeError:  # not all of it is text
            self._merge_mixed(self.tail)
        self.tail.clear()

    def _merge_mixed(self, tail: list[RunEvent]) -> None:
        text = "".join([event for event in tail if type(event) is str])
        if text:
            self._texts.append(text)
        others = [event for event in tail if type(event) is not str and type(event) is not UsageUpdate]
        if others:
            self._others.add(merge_by_kind(others))
