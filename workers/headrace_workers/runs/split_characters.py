"""Joins characters that a provider cut in two: one half of a surrogate pair in one event, the other in the next. Pure.

Only the half waits, for the next piece of its own lane: text, reasoning, refusal, or one tool call's arguments. A half without
its other half becomes U+FFFD.
"""

from __future__ import annotations

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta, UsageUpdate

_FIRST_HALVES = ("\ud800", "\udbff")

_Lane = type | int
"""The type of the events; of tool calls the call's index."""


class SplitCharacters:
    """The halves that wait."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[_Lane, str] = {}

    def join(self, events: list[RunEvent], start: int) -> None:
        """Change ``events`` from ``start`` on such that they hold whole characters only."""
        joined = [whole for event in events[start:] if (whole := self._whole(event)) is not None]
        events[start:] = joined

    def end(self, events: list[RunEvent]) -> None:
        """Nothing more comes: add what waits, as U+FFFD."""
        for lane, half in self._waiting.items():
            events.append(_event(lane, well_formed_text(half)))
        self._waiting.clear()

    def _whole(self, event: RunEvent) -> RunEvent | None:
        """Return an event with whole characters; None where nothing is left of it."""
        match event:
            case str():
                return self._piece(str, event) or None
            case ReasoningDelta() | RefusalDelta():
                text = self._piece(type(event), event.text)
                return type(event)(text) if text else None
            case ToolCallDelta():
                call_id = None if event.id is None else well_formed_text(event.id)
                name = None if event.name is None else well_formed_text(event.name)
                arguments = self._piece(event.index, event.arguments)
                is_empty = call_id is None and name is None and not arguments
                return None if is_empty else ToolCallDelta(event.index, call_id, name, arguments)
            case UsageUpdate():
                return event

    def _piece(self, lane: _Lane, text: str) -> str:
        """Return a piece without the half at its end, behind the half that waited."""
        text = self._waiting.pop(lane, "") + text
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[lane], text = text[-1], text[:-1]
        return well_formed_text(text)


def _event(lane: _Lane, text: str) -> RunEvent:
    if isinstance(lane, int):
        return ToolCallDelta(lane, arguments=text)
    return text if lane is str else ReasoningDelta(text) if lane is ReasoningDelta else RefusalDelta(text)
