"""Reads OpenAI's ``tools``, ``tool_choice`` and ``parallel_tool_calls`` as run arguments. Pure."""

from __future__ import annotations

from typing import Any

_WORDS = ("auto", "none", "required")
_NAMED_KINDS = ("function", "custom")


def read_tool_fields(body: dict[str, Any], arguments: dict[str, Any], custom: dict[str, Any]) -> None:
    """Add the fields to ``arguments``; to ``custom`` (options) a choice that Headrace has no form for.

    Without tools there is nothing to choose, so the other fields are left out, as the API ignores them.
    """
    tools = body.get("tools")
    if not tools:
        return
    arguments["tools"] = tools
    parallel, choice = body.get("parallel_tool_calls"), body.get("tool_choice")
    if parallel is not None:
        arguments["parallel_tool_calls"] = parallel
    if choice is None:
        return
    read = _choice(choice, tools)
    if read is None:
        custom["tool_choice"] = choice
    else:
        arguments["tool_choice"] = read


def _choice(choice: Any, tools: Any) -> str | dict[str, str] | None:
    """Return Headrace's form of a choice. None: it has none, such as OpenAI's list of allowed tools."""
    if isinstance(choice, str):
        return choice if choice in _WORDS else None
    if not isinstance(choice, dict) or not isinstance(kind := choice.get("type"), str):
        return None
    if kind in _NAMED_KINDS:
        inner = choice.get(kind, choice)
        name = inner.get("name") if isinstance(inner, dict) else None
        return {"tool": name} if isinstance(name, str) else None
    is_offered = isinstance(tools, list) and any(isinstance(tool, dict) and tool.get("type") == kind for tool in tools)
    return {"tool": kind} if is_offered and choice.keys() == {"type"} else None
