"""The loop of ``arun_tools``: asks the model, calls the functions as tasks or in threads, and asks again."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from headrace.arguments.run_arguments import RunArguments
from headrace.errors import RunTimeoutError
from headrace.process.clock import monotonic
from headrace.tool_loop.tool_conversation import PlannedCall, ToolConversation
from headrace.tool_loop.tool_events import ToolCallReturned, ToolCallStarted, ToolRunEvent, TurnEnded
from headrace.tool_loop.tool_loop import function_of
from headrace.tool_loop.tool_threads import awaited, call_in_thread, is_async
from headrace.tool_loop.tools_result import RunToolsResult
from headrace.tool_loop.turn_calls import TurnCalls
from headrace.types import RunLocalResult

AskModel = Callable[..., Awaitable[RunLocalResult[Any]]]
"""Runs the model with the arguments of a run. ``client.arun_local`` is one."""


async def _ignore(_event: ToolRunEvent) -> None:
    """Take an event that nobody wants."""


class AsyncToolLoop:
    """Runs one conversation to its end, in one event loop. ``abort`` ends it; cancelling its task ends it too."""

    def __init__(
        self,
        conversation: ToolConversation,
        ask_model: AskModel,
        emit: Callable[[ToolRunEvent], Awaitable[None]] = _ignore,
    ) -> None:
        self._conversation = conversation
        self._ask_model = ask_model
        self._emit = emit
        self._aborted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> RunToolsResult[Any]:
        """Run the conversation, and return its result. Raises what the model's runs raise."""
        conversation = self._conversation
        while not conversation.is_done:
            turn = conversation.turn
            result = await self._asked(conversation.next_arguments(monotonic()))
            calls = conversation.model_answered(result)
            conversation.tools_answered(await self._call_functions(calls))
            await self._emit(TurnEnded(turn, result))
            if self._aborted.done():
                conversation.abort()
        return conversation.result(monotonic())

    def abort(self) -> None:
        """Stop waiting for functions, and end after this turn. May be called more than once, in the event loop."""
        if not self._aborted.done():
            self._aborted.set_result(None)

    async def _asked(self, arguments: RunArguments) -> RunLocalResult[Any]:
        try:
            return await self._ask_model(**arguments)
        except RunTimeoutError as error:
            raise self._conversation.whole_timeout(error) from None

    async def _call_functions(self, calls: Sequence[PlannedCall]) -> list[ToolCallReturned]:
        """Call the functions at the same time. Return the answers in the order of the calls."""
        turn = TurnCalls(calls, self._conversation.deadline)
        running: dict[int, asyncio.Task[Any]] = {}
        try:
            while not self._aborted.done():
                if begun := turn.begin(len(running), monotonic()):
                    await self._start(turn, running, begun)
                elif running:
                    await self._wait(turn, running)
                else:
                    break
        except BaseException:
            # As asyncio does it: whoever cancels a task waits for the end of what the task has started.
            await _cancelled([*running.values()])
            raise
        for task in running.values():
            _drop(task)
        return turn.answers()

    async def _start(self, turn: TurnCalls, running: dict[int, asyncio.Task[Any]], places: Sequence[int]) -> None:
        for place in places:
            call = turn.calls[place]
            await self._emit(ToolCallStarted(call.turn, call.call))
            if call.problem is not None:
                await self._emit(turn.refused(place))
            else:
                running[place] = asyncio.create_task(_called(call), name=f"headrace-tool {call.call.name}")

    async def _wait(self, turn: TurnCalls, running: dict[int, asyncio.Task[Any]]) -> None:
        """Wait until a function has returned, a limit is over, or the program aborts."""
        waited_for: list[asyncio.Future[Any]] = [*running.values(), self._aborted]
        done, _ = await asyncio.wait(
            waited_for, timeout=turn.wait_time(monotonic()), return_when=asyncio.FIRST_COMPLETED
        )
        for place, task in [*running.items()]:
            if task in done:
                del running[place]
                await self._emit(_answer_of(turn, place, task))
        now = monotonic()
        if running and turn.is_out_of_time(now):
            raise self._conversation.timed_out(turn.waited_for())
        for place in turn.overdue(now):
            _drop(running.pop(place))
            await self._emit(turn.took_too_long(place))


async def _called(call: PlannedCall) -> Any:
    """Call the function: a coroutine here, a plain function in a thread."""
    function = function_of(call)
    if is_async(function):
        return await awaited(function)
    value = await asyncio.wrap_future(call_in_thread(function))
    return await value if inspect.isawaitable(value) else value


def _answer_of(turn: TurnCalls, place: int, task: asyncio.Task[Any]) -> ToolCallReturned:
    if task.cancelled():
        return turn.was_cancelled(place)
    error = task.exception()
    return turn.returned(place, task.result()) if error is None else turn.raised(place, error)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _drop(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait no longer. What it still raises is nobody's."""
    task.add_done_callback(_look)
    task.cancel()


def _look(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()  # marks it as seen: else asyncio logs it
