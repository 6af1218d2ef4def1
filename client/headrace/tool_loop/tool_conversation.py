"""The conversation of ``run_tools``: decides what comes next. Pure: the shells ask the model and call the functions.

The rules:

1. The model is asked. While it calls tools, the functions are called, each call gets one answer, and the model is asked
   again. An answer without calls ends the conversation.
2. Whatever is wrong with a call is an answer, so that the model can mend it: an unknown name, arguments that do not
   fit, an error that the function raised, too much time.
3. The history is complete at each end: each call has an answer. Only calls of tools without a function are left open.
4. All turns have one trace. The first turn is the parent of the others.
5. ``timeout_ms`` is the time for everything: all turns and all calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from headrace.arguments.run_arguments import RunArguments
from headrace.errors import RunTimeoutError
from headrace.tool_loop.open_items import has_open_items
from headrace.tool_loop.tool_events import ToolCallReturned
from headrace.tool_loop.tools_result import (
    RunToolsResult,
    StopReason,
    has_content,
    is_paused,
    plain_result,
    tools_result,
)
from headrace.tools.function_tool import FunctionTool, UnfitArgumentsError
from headrace.tools.tool_results import failure_content
from headrace.types import Message, RunLocalResult, StreamResult, ToolCall

_ABORTED = "the program aborted before this call had a result"


class PlannedCall(msgspec.Struct, frozen=True):
    """One call that the model made: a function to call, or what the model is told instead."""

    turn: int
    call: ToolCall
    tool: FunctionTool | None = None
    positional: list[Any] = []
    named: dict[str, Any] = {}
    problem: str | None = None
    """What is wrong with the call. ``None``: the function can be called."""

    def returned(self, content: Any) -> ToolCallReturned:
        """Return the event of a result."""
        return ToolCallReturned(self.turn, self.call, content)

    def failed(self, words: str) -> ToolCallReturned:
        """Return the event of a failure, with what the model is told of it."""
        content = failure_content(words)
        return ToolCallReturned(self.turn, self.call, content, error=content)

    def aborted(self) -> ToolCallReturned:
        """Return the event of a call that has no result, because the program aborted."""
        return self.failed(_ABORTED)


class ToolConversation:
    """One conversation: its messages, its turns, and what comes next."""

    def __init__(
        self,
        arguments: RunArguments,
        messages: Sequence[Message],
        functions: Mapping[str, FunctionTool],
        others: frozenset[str],
        max_turns: int,
        timeout: float | None,
        now: float,
    ) -> None:
        """Begin. ``functions``: by name. ``others``: names of the tools that have no function. ``timeout``: for all."""
        self.messages = list(messages)
        self.turns: list[RunLocalResult] = []
        self.stopped: StopReason | None = None
        self.is_done = False
        self._arguments = arguments
        self._functions = functions
        self._others = others
        self._max_turns = max_turns
        self._started_at = now
        self._timeout = timeout

    @property
    def turn(self) -> int:
        """The number of the turn that is going on, or is next."""
        return len(self.turns) + 1

    @property
    def deadline(self) -> float | None:
        """When everything must have ended, on the monotonic clock."""
        return None if self._timeout is None else self._started_at + self._timeout

    def next_arguments(self, now: float) -> RunArguments:
        """Return the arguments of the model's next run. Raises RunTimeoutError if there is no time left."""
        if not self.turns:
            return self._arguments
        first = self.turns[0]
        arguments: dict[str, Any] = dict(self._arguments)
        for name in ("variables", "span_id"):  # the variables are filled; the id is the first run's
            arguments.pop(name, None)
        if arguments.get("tool_choice") not in (None, "auto", "none"):
            arguments["tool_choice"] = "auto"  # a choice that forces a call would force calls for ever
        arguments |= {"messages": list(self.messages), "trace_id": first.trace_id, "parent_span_id": first.span_id}
        if self.deadline is not None:
            left = self.deadline - now
            if left <= 0:
                raise self.timed_out()
            arguments["timeout_ms"] = max(1, int(left * 1000))
        return cast("RunArguments", arguments)

    def model_answered(self, result: RunLocalResult) -> list[PlannedCall]:
        """Take the model's answer. Return the calls that need an answer now."""
        turn = self.turn
        self.turns.append(plain_result(result))
        if has_content(result.message):
            self.messages.append(result.message)
        is_last = len(self.turns) >= self._max_turns
        if isinstance(result, StreamResult) and result.aborted:
            self.abort()
            self.tools_answered([PlannedCall(turn, call).aborted() for call in result.tool_calls])
            return []
        calls = [self._planned(turn, call) for call in result.tool_calls if call.name not in self._others]
        if len(calls) < len(result.tool_calls) or has_open_items(result.message):
            self.is_done, self.stopped = True, "unanswered_calls"
        elif not calls and not is_paused(result):
            self.is_done = True
        elif is_last:
            self.is_done, self.stopped = True, "max_turns"
        return calls

    def tools_answered(self, answers: Sequence[ToolCallReturned]) -> None:
        """Add the answers of the calls to the conversation, in the order of the calls."""
        self.messages += [
            Message("tool", answer.content, tool_call_id=answer.call.id, tool_name=answer.call.name)
            for answer in answers
        ]

    def abort(self) -> None:
        """End the conversation, because the program aborted."""
        self.is_done, self.stopped = True, "aborted"

    def whole_timeout(self, error: RunTimeoutError) -> RunTimeoutError:
        """Return the error of a run that ran out of time, with the limit of everything if that was the limit."""
        if self._timeout is None or error.clock != "total" or not self.turns:
            return error
        reason = f"not finished within {self._timeout:g} s (total timeout); this is turn {self.turn}"
        return RunTimeoutError(error.span_id, reason, error.partial_text, "total", self._timeout)

    def timed_out(self, waited_for: Sequence[str] = ()) -> RunTimeoutError:
        """Return the error of a conversation that is out of time. ``waited_for``: the tools that have not returned."""
        limit = self._timeout or 0.0
        last = self.turns[-1]
        reason = f"not finished within {limit:g} s (total timeout)"
        if waited_for:
            reason += f"; these tools had not returned: {', '.join(waited_for)}"
        return RunTimeoutError(last.span_id, reason, last.text, "total", limit)

    def result(self, now: float) -> RunToolsResult[Any]:
        """Return the result of the whole conversation."""
        return tools_result(self.turns, self.messages, self.stopped, (now - self._started_at) * 1000)

    def _planned(self, turn: int, call: ToolCall) -> PlannedCall:
        tool = self._functions.get(call.name)
        if tool is None:
            there_are = ", ".join(self._functions) or "none"
            return PlannedCall(turn, call, problem=f"there is no tool {call.name!r}; the tools are: {there_are}")
        try:
            positional, named = tool.read_arguments(call.arguments)
        except UnfitArgumentsError as error:
            return PlannedCall(turn, call, tool, problem=str(error))
        return PlannedCall(turn, call, tool, positional, named)
