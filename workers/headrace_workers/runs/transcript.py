"""What a provider sent in one run, for its span: all of it, whoever was still there to be sent it. Pure.

Costs a list's growth for each chunk; what has come together is joined now and then, so that its size is that of its text.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.answers.assembly import Assembled, assemble
from headrace.types import RunEvent, Usage, UsageUpdate
from headrace_workers.runs.event_merging import merge_by_kind

_TAIL = 64
_MERGE_AT = 4096
"""Pieces that are not text from which on they are put together again, and then at twice as many: each is joined a few times at most."""


class Transcript:
    """The events of one run, in the order in which they came."""

    __slots__ = ("_merge_at", "_others", "_tail", "_texts")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._others: list[RunEvent] = []
        self._merge_at = _MERGE_AT
        self._tail: list[RunEvent] = []

    def add(self, events: list[RunEvent]) -> None:
        """More came."""
        tail = self._tail
        tail += events
        if len(tail) >= _TAIL:
            self._fold()

    @property
    def kept(self) -> list[RunEvent]:
        """All that came, in as few pieces as it is kept in."""
        self._fold()
        return [*self._texts, *self._others]

    def assembled(self, unsent: Sequence[RunEvent] = ()) -> Assembled:
        """Return all that came, and then ``unsent``."""
        self._fold()
        if not self._others and not unsent:
            return Assembled(text="".join(self._texts), reasoning="", refusal="", tool_calls=[], usage=Usage())
        return assemble([*self._texts, *self._others, *unsent])

    def _fold(self) -> None:
        tail, self._tail = self._tail, []
        if not tail:
            return
        try:
            self._texts.append("".join(tail))  # type: ignore[arg-type]
        except TypeError:  # not all of it is text
            self._fold_mixed(tail)

    def _fold_mixed(self, tail: list[RunEvent]) -> None:
        text = "".join([event for event in tail if type(event) is str])
        if text:
            self._texts.append(text)
        others = [event for event in tail if type(event) is not str and type(event) is not UsageUpdate]
        if others:
            self._others += merge_by_kind(others)
            if len(self._others) > self._merge_at:
                self._others = merge_by_kind(self._others)
                self._merge_at = _MERGE_AT + 2 * len(self._others)
