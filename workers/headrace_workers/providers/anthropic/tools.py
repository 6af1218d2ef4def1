"""Builds the tools of a Messages request: functions, and Anthropic's server tools with the beta words that they need.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.types import Message, Tool
from headrace_workers.providers.anthropic.blocks import API_NAME
from headrace_workers.providers.anthropic.conversation_blocks import KEYS
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.server_tools import as_given_by_caller, check_owner, is_function

_MCP_BETA = "mcp-client-2025-11-20"
_BETA_OF_TOOL = {
    "advisor_20260301": "advisor-tool-2026-03-01",
    "bash_20241022": "computer-use-2024-10-22",
    "computer_20241022": "computer-use-2024-10-22",
    "computer_20250124": "computer-use-2025-01-24",
    "computer_20251124": "computer-use-2025-11-24",
    "text_editor_20241022": "computer-use-2024-10-22",
    "mcp_toolset": _MCP_BETA,
}
"""Tool types that need a beta word. All other types need none."""


def tool_of(where: str, tool: Tool) -> dict[str, Any]:
    """Return a tool in the API's form; ``where`` is its path in the caller's arguments."""
    if not is_function(tool):
        check_owner(where, tool, "Anthropic", KEYS.api)
        return as_given_by_caller(tool)
    sent: dict[str, Any] = {"name": tool.name}
    if tool.description:
        sent["description"] = tool.description
    sent["input_schema"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        sent["strict"] = tool.strict
    return sent | KEYS.of("tool", where, tool.extra)


def betas_of(tools: Sequence[Tool], options: Mapping[str, Any]) -> list[str]:
    """Return the words for the header ``anthropic-beta``: from the caller's ``betas`` option, and for the tools."""
    given = options.get("betas", [])
    if not isinstance(given, list) or not all(isinstance(word, str) and word for word in given):
        raise request_failure("takes a list of str, the words for the header anthropic-beta", "custom_options.betas")
    needed = [_BETA_OF_TOOL[tool.type] for tool in tools if tool.type in _BETA_OF_TOOL]
    if options.get("mcp_servers"):
        needed.append(_MCP_BETA)
    # If the caller names another version of a beta, the caller's version counts.
    families = {_family(word) for word in given}
    return list(dict.fromkeys([*given, *(word for word in needed if _family(word) not in families)]))


def container_of(messages: Sequence[Message], tools: Sequence[Tool]) -> str | None:
    """Return the id of the last container in which code ran; None if the request has no server tools."""
    if all(is_function(tool) for tool in tools):
        return None
    for message in reversed(messages):
        for part in reversed(message.content if isinstance(message.content, list) else []):
            said = getattr(part, "provider_data", None) or {}
            container = said.get("container") if said.get("api") == API_NAME else None
            if isinstance(container, dict) and isinstance(container.get("id"), str):
                return str(container["id"])
    return None


def _family(beta: str) -> str:
    """Return a beta word without its date, as ``mcp-client``."""
    return beta.rstrip("-0123456789")
