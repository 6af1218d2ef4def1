"""The loop of ``run_tools``: asks the model, calls the functions in threads, and asks again. It waits in its thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import inspect
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future
from typing import Any

from headrace.arguments.run_arguments import RunArguments
from headrace.errors import RunTimeoutError
from headrace.process.clock import monotonic
from headrace.tool_loop.tool_conversation import PlannedCall, ToolConversation
from headrace.tool_loop.tool_events import ToolCallReturned, ToolCallStarted, ToolRunEvent, TurnEnded
from headrace.tool_loop.tool_threads import awaited, call_in_loop, call_in_thread, is_async
from headrace.tool_loop.tools_result import RunToolsResult
from headrace.tool_loop.turn_calls import TurnCalls
from headrace.types import RunLocalResult

AskModel = Callable[..., RunLocalResult[Any]]
"""Runs the model with the arguments of a run. ``client.run_local`` is one."""


def _ignore(_event: ToolRunEvent) -> None:
    """Take an event that nobody wants."""


class ToolLoop:
    """Runs one conversation to its end, in the thread that calls ``run``. Another thread may abort it."""

    def __init__(
        self, conversation: ToolConversation, ask_model: AskModel, emit: Callable[[ToolRunEvent], None] = _ignore
    ) -> None:
        self._conversation = conversation
        self._ask_model = ask_model
        self._emit = emit
        self._aborted: Future[Any] = Future()

    def run(self) -> RunToolsResult[Any]:
        """Run the conversation, and return its result. Raises what the model's runs raise."""
        conversation = self._conversation
        while not conversation.is_done:
            turn = conversation.turn
            result = self._asked(conversation.next_arguments(monotonic()))
            calls = conversation.model_answered(result)
            conversation.tools_answered(self._call_functions(calls))
            self._emit(TurnEnded(turn, result))
            if self._aborted.done():
                conversation.abort()
        return conversation.result(monotonic())

    def abort(self) -> None:
        """Stop waiting for functions, and end after this turn. May be called from any thread, and more than once."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):  # somebody has aborted already
            self._aborted.set_result(None)

    def _asked(self, arguments: RunArguments) -> RunLocalResult[Any]:
        try:
            return self._ask_model(**arguments)
        except RunTimeoutError as error:
            raise self._conversation.whole_timeout(error) from None

    def _call_functions(self, calls: Sequence[PlannedCall]) -> list[ToolCallReturned]:
        """Call the functions at the same time. Return the answers in the order of the calls."""
        turn = TurnCalls(calls, self._conversation.deadline)
        running: dict[int, Future[Any]] = {}
        try:
            while not self._aborted.done():
                if begun := turn.begin(len(running), monotonic()):
                    self._start(turn, running, begun)
                elif running:
                    self._wait(turn, running)
                else:
                    break
        finally:
            for future in running.values():
                future.cancel()
        return turn.answers()

    def _start(self, turn: TurnCalls, running: dict[int, Future[Any]], places: Sequence[int]) -> None:
        for place in places:
            call = turn.calls[place]
            self._emit(ToolCallStarted(call.turn, call.call))
            if call.problem is not None:
                self._emit(turn.refused(place))
            else:
                running[place] = _started(call)

    def _wait(self, turn: TurnCalls, running: dict[int, Future[Any]]) -> None:
        """Wait until a function has returned, a limit is over, or the program aborts."""
        waited_for = [*running.values(), self._aborted]
        done, _ = concurrent.futures.wait(waited_for, turn.wait_time(monotonic()), return_when=FIRST_COMPLETED)
        for place, future in [*running.items()]:
            if future not in done:
                continue
            if not future.cancelled() and future.exception() is None and inspect.isawaitable(future.result()):
                running[place] = call_in_loop(awaited(future.result))  # a plain function that returned a coroutine
                continue
            del running[place]
            self._emit(answer_of(turn, place, future))
        now = monotonic()
        if running and turn.is_out_of_time(now):
            raise self._conversation.timed_out(turn.waited_for())
        for place in turn.overdue(now):
            running.pop(place).cancel()
            self._emit(turn.took_too_long(place))


def answer_of(turn: TurnCalls, place: int, future: Future[Any]) -> ToolCallReturned:
    """Return the answer of a call that has ended. Raises an error that must end everything."""
    if future.cancelled():
        return turn.was_cancelled(place)
    error = future.exception()
    return turn.returned(place, future.result()) if error is None else turn.raised(place, error)


def function_of(call: PlannedCall) -> Callable[[], Any]:
    """Return a call as a function without arguments."""
    assert call.tool is not None  # noqa: S101 - a call without a function has a problem
    return functools.partial(call.tool.function, *call.positional, **call.named)


def _started(call: PlannedCall) -> Future[Any]:
    function = function_of(call)
    return call_in_loop(awaited(function)) if is_async(function) else call_in_thread(function)
