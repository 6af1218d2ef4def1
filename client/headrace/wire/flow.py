"""Flow control of one stream: what counts against its credit. Pure; client and worker count alike.

Credit is given as totals since the run's start: so many events, so many characters. A character is at most four bytes of UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable

from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta


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


def characters(events: Iterable[RunEvent]) -> int:
    """Return how many characters of credit ``events`` take."""
    return sum(len(event) if type(event) is str else event_characters(event) for event in events)
