"""The rule that a success is whole, at the one place where an answer becomes a result. Pure.

An answer that says of itself what it does not hold is no success: its reader would take it for all that the model said.
"""

from __future__ import annotations

from headrace_workers.providers.protocol import Completion

CUT = ("max_tokens", "content_filter", "error")
"""Finish reasons of an answer that stopped before its end: a tool call in it may be incomplete."""


def lack_of(completion: Completion) -> str | None:
    """Return what an answer lacks; None where it is whole."""
    if completion.finish_reason == "tool_calls" and not completion.tool_calls:
        return "the provider says that the model called a tool, and sent no call"
    if completion.finish_reason not in CUT:
        for call in completion.tool_calls:
            if not call.name:
                return f"tool call {call.id!r} has no name; its arguments are {call.arguments[:200]!r}"
    return None
