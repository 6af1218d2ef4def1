"""Counts the characters that events take from the credit of a stream. Pure. Client and worker count with it.

Credit is a total since the run's start: a number of events and a number of characters. A character is at most 4 bytes
of UTF-8.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta

FEW = 8
"""So few events are looked at one by one."""


def event_characters(event: RunEvent) -> int:
    """Return how many characters of credit ``event`` takes."""
    if type(event) is str:
        return len(event)
    match event:
        case ReasoningDelta() | RefusalDelta():
            return len(event.text)
        case ToolCallDelta():
            return len(event.arguments)
        case _:
            return 0


def characters(events: Sequence[RunEvent]) -> int:
    """Return how many characters of credit ``events`` take."""
    return character_counts(events)[0]


def character_counts(events: Sequence[RunEvent]) -> tuple[int, int]:
    """Return how many characters of credit ``events`` take, and how many of them are text."""
    text = length_of_text(events)
    if text is not None:
        return text, text
    start = 0
    if len(events) >= FEW:
        end = length_of_start(events)
        start, events = sum(map(len, events[:end])), events[end:]  # type: ignore[arg-type]
    text = sum([len(event) for event in events if type(event) is str])
    return start + sum(map(event_characters, events)), start + text


def length_of_start(events: Sequence[RunEvent]) -> int:
    """Return how many events at the start are text. It takes few steps if only the last few events are something else."""
    end = len(events)
    while end and type(events[end - 1]) is not str:
        end -= 1
    if length_of_text(events[:end]) is not None:
        return end
    return next(place for place, event in enumerate(events) if type(event) is not str)


def length_of_text(events: Sequence[RunEvent]) -> int | None:
    """Return the number of characters if all events are text, as most are; else None. A loop takes twice as long."""
    try:
        return sum(map(len, events))  # type: ignore[arg-type]
    except TypeError:  # no other event has a length
        return None
