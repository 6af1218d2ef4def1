"""ToolClient: the methods of a client that run a model together with functions. The base of Client."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from headrace.arguments.run_arguments import RunArguments
from headrace.process.clock import monotonic

if TYPE_CHECKING:
    from headrace.tool_loop.async_tool_stream import AsyncToolStream
    from headrace.tool_loop.tool_stream import ToolStream
    from headrace.tool_loop.tools_result import RunToolsResult

A = TypeVar("A")
"""The type of an answer."""


class ToolClient:
    """Runs a model together with functions. Client has the methods that run the model alone."""

    run_local: Any
    arun_local: Any

    @overload
    def run_tools(
        self, *, stream: Literal[True], response_type: type[A], max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> ToolStream[A]: ...
    @overload
    def run_tools(
        self,
        *,
        stream: Literal[True],
        response_type: None = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> ToolStream[None]: ...
    @overload
    def run_tools(
        self, *, stream: Literal[True], response_type: object, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> ToolStream[Any]: ...
    @overload
    def run_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: type[A],
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[A]: ...
    @overload
    def run_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: None = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[None]: ...
    @overload
    def run_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: object,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[Any]: ...
    @overload
    def run_tools(
        self, *, stream: bool, response_type: type[A], max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> ToolStream[A] | RunToolsResult[A]: ...
    @overload
    def run_tools(
        self, *, stream: bool, response_type: None = None, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> ToolStream[None] | RunToolsResult[None]: ...
    @overload
    def run_tools(
        self, *, stream: bool, response_type: object, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> ToolStream[Any] | RunToolsResult[Any]: ...
    def run_tools(
        self,
        *,
        stream: bool = False,
        response_type: object = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> ToolStream[Any] | RunToolsResult[Any]:
        """Run a model, call the functions that it calls, and run it again, until it answers without a call.

        * ``tools``: functions. Their signatures and docstrings are read: see :func:`headrace.tool`. Tools that the
          provider runs itself may stand beside them, as dicts.
        * ``stream`` (bool): ``True`` returns a ToolStream at once. ``False``, the default, waits for the end.
        * ``response_type``: the type of the last answer: see :meth:`Client.run_local`.
        * ``max_turns`` (int): runs of the model at most (default: 10). The result then has ``stopped="max_turns"``.
        * all other arguments: :class:`RunArguments` (``help(headrace.RunArguments)`` lists them). ``timeout_ms`` is the
          time for everything. A ``tool_choice`` that forces a call counts for the first turn.

        The calls of one turn run at the same time: plain functions in threads, async ones in an event loop. An error
        that a function raises is told to the model.

        Raises InvalidRequestError before anything is sent if an argument is wrong. Later it may raise any
        HeadraceError, and the errors that a tool declares with ``raises``.
        """
        from headrace.tool_loop.tool_loop import ToolLoop
        from headrace.tool_loop.tool_run import conversation_of
        from headrace.tool_loop.tool_stream import ToolStream

        conversation = conversation_of(arguments, max_turns, monotonic())
        if stream:
            return ToolStream(conversation, partial(self.run_local, stream=True, response_type=response_type))
        return ToolLoop(conversation, partial(self.run_local, response_type=response_type)).run()

    @overload
    async def arun_tools(
        self, *, stream: Literal[True], response_type: type[A], max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> AsyncToolStream[A]: ...
    @overload
    async def arun_tools(
        self,
        *,
        stream: Literal[True],
        response_type: None = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> AsyncToolStream[None]: ...
    @overload
    async def arun_tools(
        self, *, stream: Literal[True], response_type: object, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> AsyncToolStream[Any]: ...
    @overload
    async def arun_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: type[A],
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[A]: ...
    @overload
    async def arun_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: None = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[None]: ...
    @overload
    async def arun_tools(
        self,
        *,
        stream: Literal[False] = False,
        response_type: object,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> RunToolsResult[Any]: ...
    @overload
    async def arun_tools(
        self, *, stream: bool, response_type: type[A], max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> AsyncToolStream[A] | RunToolsResult[A]: ...
    @overload
    async def arun_tools(
        self, *, stream: bool, response_type: None = None, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> AsyncToolStream[None] | RunToolsResult[None]: ...
    @overload
    async def arun_tools(
        self, *, stream: bool, response_type: object, max_turns: int = 10, **arguments: Unpack[RunArguments]
    ) -> AsyncToolStream[Any] | RunToolsResult[Any]: ...
    async def arun_tools(
        self,
        *,
        stream: bool = False,
        response_type: object = None,
        max_turns: int = 10,
        **arguments: Unpack[RunArguments],
    ) -> AsyncToolStream[Any] | RunToolsResult[Any]:
        """Run a model with its functions, from asyncio. As :meth:`run_tools`, with an AsyncToolStream.

        Async functions run as tasks of this event loop, plain functions in threads. Cancelling the task that waits for
        the result ends everything: the model's run, and the functions that are running.
        """
        from headrace.tool_loop.async_tool_loop import AsyncToolLoop
        from headrace.tool_loop.async_tool_stream import stream_tools
        from headrace.tool_loop.tool_run import conversation_of

        conversation = conversation_of(arguments, max_turns, monotonic())
        if stream:
            return await stream_tools(conversation, partial(self.arun_local, stream=True, response_type=response_type))
        return await AsyncToolLoop(conversation, partial(self.arun_local, response_type=response_type)).run()
