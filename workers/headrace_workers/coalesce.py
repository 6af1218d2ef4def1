"""When a client's frame leaves, and how pending deltas are merged. Pure.

What became ready in one turn of the loop leaves in one frame. If the last frame to the same client left less than a
millisecond ago, the next waits for the rest of it: under load that makes few large frames of many small ones. First chunks
and terminals never wait, and neither does a client that heard nothing for a millisecond.
"""

from __future__ import annotations

from headrace.types import ReasoningDelta, RefusalDelta, RunEvent, ToolCallDelta, UsageUpdate

FRAME_INTERVAL = 0.001
"""Seconds between frames to one client under load."""


def send_at(now: float, last_sent: float, *, is_urgent: bool) -> float:
    """Return when a frame that became ready ``now`` is to leave."""
    return now if is_urgent else max(now, last_sent + FRAME_INTERVAL)


def merge(events: list[RunEvent]) -> list[RunEvent]:
    """Return the same content in fewer events: neighbours of one kind become one."""
    merged: list[RunEvent] = []
    texts: list[str] = []
    for event in events:
        if type(event) is str:
            texts.append(event)
            continue
        if texts:
            merged.append("".join(texts))
            texts = []
        joined = _join(merged[-1], event) if merged else None
        if joined is None:
            merged.append(event)
        else:
            merged[-1] = joined
    if texts:
        merged.append("".join(texts))
    return merged


def _join(before: RunEvent, after: RunEvent) -> RunEvent | None:
    match before, after:
        case ReasoningDelta(), ReasoningDelta():
            return ReasoningDelta(before.text + after.text)
        case RefusalDelta(), RefusalDelta():
            return RefusalDelta(before.text + after.text)
        case UsageUpdate(), UsageUpdate():
            return after
        case ToolCallDelta(), ToolCallDelta() if before.index == after.index:
            return ToolCallDelta(
                before.index, after.id or before.id, after.name or before.name, before.arguments + after.arguments
            )
        case _:
            return None


def split_within(event: RunEvent, limit: int) -> tuple[RunEvent, RunEvent] | None:
    """Return ``event`` in two, the first of ``limit`` characters; None where it cannot be split."""
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
