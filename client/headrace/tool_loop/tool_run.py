"""Begins a conversation of ``run_tools``: checks its arguments, and reads its messages and functions once."""

from __future__ import annotations

from typing import Any, cast

from headrace.arguments import checks
from headrace.arguments.checked_request import check_names
from headrace.arguments.conversation import fill_variables, read_messages
from headrace.arguments.run_arguments import RunArguments
from headrace.arguments.tool_list import read_tools, with_functions_read
from headrace.errors import InvalidRequestError
from headrace.tool_loop.tool_conversation import ToolConversation
from headrace.tools.function_tool import FunctionTool
from headrace.wire.run_request import chosen_by


def conversation_of(arguments: RunArguments, max_turns: int, now: float) -> ToolConversation:
    """Return the conversation that the arguments begin. Raises InvalidRequestError for a wrong one.

    Arguments that are not about messages and tools are checked by the first run.
    """
    check_names(arguments, RunArguments)
    limit = checks.positive("max_turns", max_turns)
    if limit is None:
        raise InvalidRequestError("takes an int above 0, not None", "max_turns")
    given: dict[str, Any] = dict(arguments)
    tools = given["tools"] = with_functions_read(given.get("tools"))
    read = read_tools(tools, {})
    functions = {tool.tool.name: tool for tool in tools or () if isinstance(tool, FunctionTool)}
    others = frozenset(chosen_by(tool) for tool in read) - functions.keys()
    messages = fill_variables(read_messages(given["messages"], {}), given.get("variables"))
    timeout = checks.seconds("timeout_ms", given.get("timeout_ms"))
    return ToolConversation(cast("RunArguments", given), messages, functions, others, limit, timeout, now)
