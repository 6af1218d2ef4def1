"""Server tools, which the provider runs itself, such as web searches: sent as the caller gave them. Pure.

A tool of another vendor is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from headrace.types import Tool, ToolCallPart
from headrace.wire.run_request import chosen_by
from headrace_workers.providers.shared.provider_errors import request_failure

_ANTHROPIC = re.compile(r"[a-z0-9_]+_20\d{6}|mcp_toolset")
_OPENAI_NAMES = """
    apply_patch code_interpreter computer computer_use_preview file_search image_generation local_shell mcp namespace
    programmatic_tool_calling shell tool_search web_search web_search_2025_08_26 web_search_preview
    web_search_preview_2025_03_11
"""
_GOOGLE_NAMES = """
    codeExecution computerUse enterpriseWebSearch fileSearch googleMaps googleSearch googleSearchRetrieval mcpServers
    parallelAiSearch retrieval urlContext
"""
_OPENAI = frozenset(_OPENAI_NAMES.split())
_GOOGLE = frozenset(_GOOGLE_NAMES.split())
_CUSTOM_CALLS = {"openai-chat": "custom", "openai-responses": "custom_tool_call"}
"""Wire format → the type of a call to a custom tool in the ``provider_data`` of that format."""
_NEXT_WORD = re.compile(r"_([a-z])")


def is_function(tool: Tool, *, may_be_custom: bool = True) -> bool:
    """Return whether a tool is a function of the caller, and not a server tool.

    Anthropic calls a function ``custom`` too. In OpenAI's formats (``may_be_custom=False``) a ``custom`` tool has no
    schema.
    """
    return tool.type in {"function", ""} or (tool.type == "custom" and (may_be_custom or bool(tool.parameters)))


def chosen_tool(choice: dict[str, str], tools: Sequence[Tool]) -> Tool:
    """Return the tool that ``tool_choice={"tool": name}`` names."""
    if "tool" not in choice:
        raise request_failure('takes auto, none, required or {"tool": name}', "tool_choice")
    name = choice["tool"]
    return next((tool for tool in tools if name == chosen_by(tool)), Tool(name))


def as_given_by_caller(tool: Tool) -> dict[str, Any]:
    """Return a server tool as a dict, in the form in which the caller gave it."""
    known = {
        "name": tool.name or None,
        "description": tool.description or None,
        "parameters": tool.parameters or None,
        "strict": tool.strict,
    }
    sent = {"type": tool.type} | {key: value for key, value in known.items() if value is not None}
    return sent | (tool.extra or {})


def custom_input(part: ToolCallPart) -> str | None:
    """Return the input of a call to a custom tool that came in one of OpenAI's formats; None for all other calls."""
    said = part.provider_data or {}
    item = said.get("item")
    kind = item.get("type") if isinstance(item, dict) else said.get("type")
    is_custom = kind == _CUSTOM_CALLS.get(str(said.get("api"))) and part.arguments.keys() == {"input"}
    text = part.arguments.get("input")
    return text if is_custom and isinstance(text, str) else None


def check_owner(where: str, tool: Tool, vendor: str, api: str) -> None:
    """Raise ProviderFailedError for a tool of another vendor. A tool of no known vendor is sent: the server decides."""
    owners = owners_of(tool.type)
    if owners and vendor not in owners:
        raise request_failure(
            f"{tool.type!r} is a tool of {' and '.join(owners)}; {api} does not have it", f"{where}.type"
        )


def owners_of(kind: str) -> list[str]:
    """Return the vendors that have a tool of this type."""
    owners = {
        "Anthropic": bool(_ANTHROPIC.fullmatch(kind)),
        "OpenAI": kind in _OPENAI,
        "Google": camel_case(kind) in _GOOGLE,
    }
    return [vendor for vendor, has in owners.items() if has]


def camel_case(name: str) -> str:
    """Return ``google_search`` as ``googleSearch``."""
    return _NEXT_WORD.sub(lambda match: match[1].upper(), name)
