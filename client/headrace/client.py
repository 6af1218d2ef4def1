"""Client: the entry point of a program. It starts runs, waits for results, and asks the engine for its status."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, Never, Self, TypeVar, Unpack, cast, overload

from headrace.arguments.checks import waiting_time
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.unknown_arguments import advice_for_client
from headrace.batch_client import BatchClient
from headrace.connections import program_end  # noqa: F401 - its import registers the exit handler
from headrace.connections.run_starter import RunStarter
from headrace.errors import ConfigurationError, EngineUnavailableError, HeadraceError, InvalidRequestError
from headrace.process.callbacks import is_io_thread
from headrace.process.clock import monotonic
from headrace.process.logs import log_in_program
from headrace.runs.call_result import await_result, wait_for_result
from headrace.runs.delivery import Delivery
from headrace.settings.settings import (
    EMBEDDED,
    SpansConfig,
    checked_figure,
    directory_of,
    load_files,
    with_built_in,
    with_file_name,
    with_otel_sink,
)
from headrace.settings.toml_file import remember_places
from headrace.streams import LocalStream
from headrace.text.foreign_attributes import knows_foreign_attributes
from headrace.tool_loop.tool_client import ToolClient
from headrace.types import FlushCounts, RunEmbeddingResult, RunLocalResult
from headrace.wire.messages import FlushResult

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from headrace.async_streams import AsyncLocalStream
    from headrace.batch.driver.options import BatchOptions
    from headrace.batch.engine_rows import EngineRows
    from headrace.batch.journal.journal import Journal
    from headrace.batch.row_runs import RowRuns
    from headrace.connections.client_process import ClientProcess
    from headrace.runs.typed_answer import TypedAnswer
    from headrace.status import EngineStatus

R = TypeVar("R")
A = TypeVar("A")
"""The type of an answer."""

_numbers = itertools.count(1)
_FLUSH_MARGIN = 2.0
"""Seconds that a flush waits beyond its timeout, in case the I/O thread has ended."""


@knows_foreign_attributes
class Client(ToolClient, BatchClient):
    """Runs models on an engine.

    * ``address`` (str or None): the engine's address, such as ``ipc:///run/headrace/engine``. Default:
      ``HEADRACE_ENGINE`` of the environment; if it is not set, an engine of this program's own, which starts with the
      first run and ends with the program.
    * ``connect_timeout`` (float): seconds that a run waits for an engine at an address. Default: 10.

    Making a client opens no socket and starts no process. All threads, event loops and forked children can share one
    client.

    Raises ConfigurationError if the address, an environment variable or a ``headrace.toml`` cannot be used. Raises
    InvalidRequestError for any other argument (``unknown``), such as ``api_key``, and says what to do instead.
    """

    def __init__(self, address: str | None = None, *, connect_timeout: float = 10.0, **unknown: Never) -> None:
        for name in unknown:
            raise InvalidRequestError(advice_for_client(name), name)
        self._address = address or os.environ.get("HEADRACE_ENGINE") or None
        if self._address is not None:
            directory_of(self._address)
        self._connect_timeout = checked_figure("connect_timeout", connect_timeout, "connect_timeout")
        log_in_program()
        files = load_files(os.environ)
        remember_places(os.environ)
        settings = with_otel_sink(with_built_in(files, os.environ), os.environ)
        if self._address is None:
            _check_hook(settings.spans)
        self._settings = settings
        self._starter = RunStarter(self._address, self._connect_timeout, files.providers, settings)
        self._number = next(_numbers)
        self._is_closed = False

    @overload
    def run_local(
        self, *, stream: Literal[True], response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> LocalStream[A]: ...
    @overload
    def run_local(
        self, *, stream: Literal[True], response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> LocalStream[None]: ...
    @overload
    def run_local(
        self, *, stream: Literal[True], response_type: object, **arguments: Unpack[RunArguments]
    ) -> LocalStream[Any]: ...
    @overload
    def run_local(
        self, *, stream: Literal[False] = False, response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[A]: ...
    @overload
    def run_local(
        self, *, stream: Literal[False] = False, response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[None]: ...
    @overload
    def run_local(
        self, *, stream: Literal[False] = False, response_type: object, **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[Any]: ...
    @overload
    def run_local(
        self, *, stream: bool, response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> LocalStream[A] | RunLocalResult[A]: ...
    @overload
    def run_local(
        self, *, stream: bool, response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> LocalStream[None] | RunLocalResult[None]: ...
    @overload
    def run_local(
        self, *, stream: bool, response_type: object, **arguments: Unpack[RunArguments]
    ) -> LocalStream[Any] | RunLocalResult[Any]: ...
    def run_local(
        self, *, stream: bool = False, response_type: object = None, **arguments: Unpack[RunArguments]
    ) -> LocalStream[Any] | RunLocalResult[Any]:
        """Run a model.

        * ``stream`` (bool): ``True`` returns a LocalStream at once; it raises the run's errors later. ``False``, the
          default, waits for the end, and returns the result or raises.
        * ``response_type``: the type of the answer: a pydantic model, msgspec Struct, dataclass, TypedDict, NamedTuple,
          enum, a type such as ``list[Invoice] | None``, or a JSON schema as a dict. The model then answers in JSON, and
          ``result.parsed`` is an object of the type. Default: ``None``, text. Not together with ``response_format``.
        * all other arguments: :class:`RunArguments` (``help(headrace.RunArguments)`` lists them). ``model`` and ``messages`` must be given.

        Raises InvalidRequestError before anything is sent if an argument is wrong, or if ``response_type`` has no JSON
        schema. Raises OutputValidationError if the answer does not fit ``response_type``. Later it may raise any
        HeadraceError.
        """
        reader = _typed_answer(response_type)
        delivery = self._start(arguments, reader, stream=stream)
        return LocalStream(delivery, reader) if stream else cast("RunLocalResult", wait_for_result(delivery, reader))

    @overload
    async def arun_local(
        self, *, stream: Literal[True], response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[A]: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[True], response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[None]: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[True], response_type: object, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[Any]: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[False] = False, response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[A]: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[False] = False, response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[None]: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[False] = False, response_type: object, **arguments: Unpack[RunArguments]
    ) -> RunLocalResult[Any]: ...
    @overload
    async def arun_local(
        self, *, stream: bool, response_type: type[A], **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[A] | RunLocalResult[A]: ...
    @overload
    async def arun_local(
        self, *, stream: bool, response_type: None = None, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[None] | RunLocalResult[None]: ...
    @overload
    async def arun_local(
        self, *, stream: bool, response_type: object, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[Any] | RunLocalResult[Any]: ...
    async def arun_local(
        self, *, stream: bool = False, response_type: object = None, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream[Any] | RunLocalResult[Any]:
        """Run a model, from asyncio. As :meth:`run_local`, but ``stream=True`` returns an AsyncLocalStream.

        Cancelling the task that waits for the result aborts the run.
        """
        import asyncio

        reader = _typed_answer(response_type)
        if stream:
            asynchronous = _async_streams()
            delivery = self._start(arguments, reader, stream=stream)
            return cast("AsyncLocalStream[Any]", asynchronous.AsyncLocalStream(delivery, reader))
        loop = asyncio.get_running_loop()
        return cast("RunLocalResult", await await_result(self._start(arguments, reader, stream=stream), loop, reader))

    def run_embedding(self, **arguments: Unpack[EmbeddingArguments]) -> RunEmbeddingResult:
        """Turn texts into vectors, one for each text.

        Arguments: :class:`EmbeddingArguments` (``help(headrace.EmbeddingArguments)`` lists them). ``model`` and ``input`` must be given.

        Raises InvalidRequestError before anything is sent if an argument is wrong, or if the provider has no
        embeddings. Later it may raise any HeadraceError.
        """
        delivery = self._starter.start_embedding(self._number, self._begin(), arguments)
        return cast("RunEmbeddingResult", wait_for_result(delivery))

    async def arun_embedding(self, **arguments: Unpack[EmbeddingArguments]) -> RunEmbeddingResult:
        """Turn texts into vectors, from asyncio. As :meth:`run_embedding`."""
        import asyncio

        loop = asyncio.get_running_loop()
        delivery = self._starter.start_embedding(self._number, self._begin(), arguments)
        return cast("RunEmbeddingResult", await await_result(delivery, loop))

    def flush(self, timeout: float = 5.0) -> FlushCounts:
        """Wait until the spans of all ended runs are stored and every sink has taken them.

        ``timeout``: seconds to wait at most (default: 5).

        Returns how many spans are delivered, pending and failed. Spans are stored without a flush too. Call it if your
        program reads the spans at once.

        Raises InvalidRequestError if ``timeout`` is not a number of seconds, EngineUnavailableError if the engine does
        not answer.
        """
        self._begin()
        timeout = waiting_time("timeout", timeout)
        self._check_may_wait("a flush")
        process = _process()
        if self._address is None and not process.is_connected(self._address):
            return FlushCounts(0, 0, 0)
        connection = process.connection(self._address, self._connect_timeout, self._number)
        answer: concurrent.futures.Future[FlushCounts] = concurrent.futures.Future()
        connection.post_flush(timeout, partial(_answer_flush, answer))
        try:
            return answer.result(timeout + _FLUSH_MARGIN)
        except TimeoutError:
            raise EngineUnavailableError(self._address or EMBEDDED, "the client was closed") from None

    async def aflush(self, timeout: float = 5.0) -> FlushCounts:  # noqa: ASYNC109 - it is the engine's to keep
        """Wait as :meth:`flush` does, without blocking the event loop."""
        return await _in_thread(partial(self.flush, timeout))

    def status(self, timeout: float = 5.0) -> EngineStatus:
        """Return the state of the engine: its workers, processes, runs, spans and sinks.

        ``timeout``: seconds to wait for the answer at most (default: 5).

        It starts no engine. If this program's own engine has not started yet, or has ended, the status has
        ``is_running=False`` and the reason.

        Raises InvalidRequestError if ``timeout`` is not a number of seconds; EngineUnavailableError if an engine at an
        address does not answer, if an engine does not answer in time, or if this client is closed.
        """
        self._begin()
        timeout = waiting_time("timeout", timeout)
        self._check_may_wait("the engine's status")
        from headrace.connections.engine_question import status_of

        return status_of(self._address, self._connect_timeout, self._number, timeout)

    async def astatus(self, timeout: float = 5.0) -> EngineStatus:  # noqa: ASYNC109 - it is the connection's to keep
        """Return the state of the engine as :meth:`status` does, without blocking the event loop."""
        return await _in_thread(partial(self.status, timeout))

    @property
    def engine_log(self) -> Path | None:
        """The log of this program's own engine: a file that stays for a week after the engine's end.

        None if no engine has started yet, if its log is gone, or for an engine at an address, which logs where its
        owner says. If several engines were started, one after another, it is the log of the last one. ``headrace logs``
        shows all logs.
        """
        log = _process().embedded.log if self._address is None else None
        return log if log is not None and log.exists() else None

    def close(self) -> None:
        """Abort this client's runs, and close its connections. This program's own engine ends with its last client.

        May be called more than once.
        """
        self._is_closed = True
        _process().release(self._address, self._number)

    async def aclose(self) -> None:
        """Close as :meth:`close` does, without blocking the event loop."""
        await _in_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __setstate__(self, state: dict[str, object]) -> None:
        """Give a copy a number of its own, so that closing the copy ends only its own runs."""
        self.__dict__.update(state)
        self._number = next(_numbers)

    def __repr__(self) -> str:
        return f"<Client {self._address or EMBEDDED}>"

    def _start(self, arguments: RunArguments, reader: TypedAnswer | None, *, stream: bool) -> Delivery:
        response_type = None if reader is None else reader.response_type
        return self._starter.start_run(
            self._number, self._begin(), arguments, stream=stream, response_type=response_type
        )

    def _begin(self) -> float:
        if self._is_closed:
            raise EngineUnavailableError(self._address or EMBEDDED, "this client is closed; make a new one")
        return monotonic()

    def _row_runs(self, shared: Mapping[str, Any]) -> EngineRows:
        """Return what runs the rows of a batch job. ``shared``: arguments for each row without its own of that name."""
        from headrace.batch.engine_rows import EngineRows

        self._begin()
        return EngineRows(self._starter, self._number, shared)

    def _job_runs(self, options: BatchOptions, journal: Journal | None) -> AbstractContextManager[RowRuns]:
        """Return a context with what runs the rows of a job, as its options say: see :func:`job_runs`."""
        from headrace.batch.provider_batches.job_runs import job_runs

        self._begin()
        return job_runs(self._starter, self._number, options, journal)

    def _check_may_wait(self, wanted: str) -> None:
        """Raise EngineUnavailableError on the I/O thread, which would wait for itself."""
        if is_io_thread():
            reason = f"a finalizer asked for {wanted} on Headrace's own I/O thread; ask in a thread of your program"
            raise EngineUnavailableError(self._address or EMBEDDED, reason)


def _check_hook(config: SpansConfig) -> None:
    """Raise ConfigurationError if the redaction hook does not exist, before the program's own engine starts."""
    if config.redact:
        from headrace.spans.redaction import check_hook_exists

        try:
            check_hook_exists(config)
        except ConfigurationError as error:
            raise with_file_name(error, "spans", "redact", os.environ) from None


@cache
def _async_streams() -> ModuleType:
    """Import what asyncio needs with the first run that uses it. A statement for each run would cost 2 µs."""
    from headrace import async_streams

    return async_streams


def _process() -> ClientProcess:
    """Return the connections of this process. Imports sockets and subprocesses only now, not with the package."""
    from headrace.connections.client_process import current_process

    return current_process()


async def _in_thread(action: Callable[[], R]) -> R:
    """Do ``action`` in a thread, so that the event loop goes on.

    At the end of the program no thread can start: then do it here.
    """
    import asyncio

    try:
        waiting = asyncio.get_running_loop().run_in_executor(None, action)
    except RuntimeError:
        return action()
    return await waiting


def _answer_flush(answer: concurrent.futures.Future[FlushCounts], result: FlushResult | HeadraceError) -> None:
    if isinstance(result, HeadraceError):
        answer.set_exception(result)
    else:
        answer.set_result(FlushCounts(result.delivered, result.pending, result.failed))


def _typed_answer(response_type: object) -> TypedAnswer | None:
    """Return what reads the answer into ``response_type``. Imports what that needs only if it is given."""
    if response_type is None:
        return None
    from headrace.runs.typed_answer import typed_answer_of

    return typed_answer_of(response_type)
