"""Merges neighbouring deltas of one kind, and splits long ones: fewer or smaller events with the same content. Pure."""

from __future__ import annotations

from itertools import groupby

from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta

_MERGE_AT = 4096
"""Events that a :class:`MergedEvents` keeps before it merges them for the first time."""


class MergedEvents:
    """A list of events that merges itself by kind when it grows long. Its size stays near that of its content.

    The limit grows with what is left after a merge. So each event is merged a few times at most.
    """

    __slots__ = ("_merge_at", "events")

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self._merge_at = _MERGE_AT

    def add(self, events: list[RunEvent]) -> None:
        """Append events."""
        self.events += events
        if len(self.events) > self._merge_at:
            self.events = merge_by_kind(self.events)
            self._merge_at = _MERGE_AT + 2 * len(self.events)


def merge_neighbours(events: list[RunEvent]) -> list[RunEvent]:
    """Return the same content in fewer events: neighbours of one kind become one.

    Takes time in proportion to their length.
    """
    return [_joined(list(neighbours)) for _, neighbours in groupby(events, _kind)]


def merge_by_kind(events: list[RunEvent]) -> list[RunEvent]:
    """Return one event for all text, one for all reasoning, one per tool call, and so on.

    The order of the kinds is lost.
    """
    kinds: dict[type | int, list[RunEvent]] = {}
    for event in events:
        kinds.setdefault(_kind(event), []).append(event)
    return [_joined(alike) for alike in kinds.values()]


def _kind(event: RunEvent) -> type | int:
    """Return what tells kinds of events apart: the type, or the index of a tool call."""
    return event.index if isinstance(event, ToolCallDelta) else type(event)


def _joined(events: list[RunEvent]) -> RunEvent:
    """Return one event for several events of one kind."""
    first = events[0]
    if len(events) == 1:
        return first
    match first:
        case str():
            return "".join(events)  # type: ignore[arg-type]
        case ReasoningDelta() | RefusalDelta():
            return type(first)("".join([event.text for event in events]))  # type: ignore[union-attr]
        case ToolCallDelta():
            calls = [event for event in events if isinstance(event, ToolCallDelta)]
            call_id = next((call.id for call in reversed(calls) if call.id), None)
            name = next((call.name for call in reversed(calls) if call.name), None)
            return ToolCallDelta(first.index, call_id, name, "".join([call.arguments for call in calls]))
        case _:
            return events[-1]


def pieces_of(event: RunEvent, length: int) -> list[RunEvent]:
    """Return an event as several events of at most ``length`` characters each."""
    match event:
        case str():
            return [event[start : start + length] for start in range(0, len(event), length)]
        case ReasoningDelta() | RefusalDelta():
            return [type(event)(event.text[start : start + length]) for start in range(0, len(event.text), length)]
        case ToolCallDelta():
            texts = [event.arguments[start : start + length] for start in range(0, len(event.arguments), length)]
            head = ToolCallDelta(event.index, event.id, event.name, texts[0])
            return [head, *(ToolCallDelta(event.index, arguments=text) for text in texts[1:])]
        case _:
            return [event]


def split_within(event: RunEvent, limit: int) -> tuple[RunEvent, RunEvent] | None:
    """Return ``event`` as two events, the first with ``limit`` characters. Return None if its kind cannot be split."""
    match event:
        case str():
            return event[:limit], event[limit:]
        case ReasoningDelta():
            return ReasoningDelta(event.text[:limit]), ReasoningDelta(event.text[limit:])
        case RefusalDelta():
            return RefusalDelta(event.text[:limit]), RefusalDelta(event.text[limit:])
        case ToolCallDelta():
            head = ToolCallDelta(event.index, event.id, event.name, event.arguments[:limit])
            return head, ToolCallDelta(event.index, None, None, event.arguments[limit:])
        case _:
            return None
