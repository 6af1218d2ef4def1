"""Joins characters that a provider cut in two: half of a surrogate pair in one event, the other half in the next. Pure.

Only the first half waits, and only for the next event of the same kind: text, reasoning, refusal, or the arguments of
one tool call. A half that stays alone becomes U+FFFD.
"""

from __future__ import annotations

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta, UsageUpdate

_FIRST_HALVES = ("\ud800", "\udbff")

_Kind = type | int
"""The type of an event; for a tool call, its index."""


class SplitCharacters:
    """The first halves that wait for their second halves."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: dict[_Kind, str] = {}

    def join(self, events: list[RunEvent], start: int) -> None:
        """Change ``events[start:]`` so that they hold whole characters only."""
        joined = [whole for event in events[start:] if (whole := self._whole(event)) is not None]
        events[start:] = joined

    def end(self, events: list[RunEvent]) -> None:
        """No more events come: append each waiting half as U+FFFD."""
        for kind, half in self._waiting.items():
            events.append(_event(kind, well_formed_text(half)))
        self._waiting.clear()

    def _whole(self, event: RunEvent) -> RunEvent | None:
        """Return an event with whole characters, or None if nothing is left of it."""
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

    def _piece(self, kind: _Kind, text: str) -> str:
        """Return the waiting half and ``text``, without a half at the end, which now waits."""
        text = self._waiting.pop(kind, "") + text
        if text and _FIRST_HALVES[0] <= text[-1] <= _FIRST_HALVES[1]:
            self._waiting[kind], text = text[-1], text[:-1]
        return well_formed_text(text)


def _event(kind: _Kind, text: str) -> RunEvent:
    if isinstance(kind, int):
        return ToolCallDelta(kind, arguments=text)
    return text if kind is str else ReasoningDelta(text) if kind is ReasoningDelta else RefusalDelta(text)
