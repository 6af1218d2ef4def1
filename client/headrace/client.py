"""Client: the entry point. Checks arguments, makes runs, and hands them to this process's I/O thread."""

from __future__ import annotations

import concurrent.futures
import itertools
import os
import random
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypeVar, Unpack, cast, overload

from headrace.arguments.checks import waiting_time
from headrace.arguments.moved_places import MovedPlaces
from headrace.arguments.provider_access import ProviderAccess, access_from
from headrace.arguments.request import (
    RequestContext,
    RunOptions,
    build_embedding_request,
    build_options,
    build_request,
    check_names,
)
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.trace_context import current_traceparent
from headrace.connections import program_end  # noqa: F401 - its import registers the exit handler
from headrace.errors import ConfigurationError, EngineUnavailableError, HeadraceError, InvalidRequestError
from headrace.pricing.prices import PriceTable
from headrace.process.callbacks import is_io_thread
from headrace.process.clock import monotonic
from headrace.process.logs import log_in_program
from headrace.runs.delivery import Delivery, Interest
from headrace.runs.session import RunPlan, Session
from headrace.settings.settings import (
    EMBEDDED,
    SpansConfig,
    checked_figure,
    directory_of,
    load_files,
    told_with_file,
    with_built_in,
    with_otel_sink,
)
from headrace.settings.toml_file import remember_places
from headrace.streams import LocalStream, ResultFuture
from headrace.types import FlushCounts, RunEmbeddingResult, RunLocalResult
from headrace.wire.codec import encode_request
from headrace.wire.messages import MAX_REQUEST_BYTES, FlushResult
from headrace.wire.run_request import RunRequest

if TYPE_CHECKING:
    from headrace.async_streams import AsyncLocalStream
    from headrace.connections.client_process import Process

R = TypeVar("R")

_numbers = itertools.count(1)
_FLUSH_MARGIN = 2.0
"""Seconds beyond which a flush is not waited for, should the I/O thread end meanwhile."""


class Client:
    """Runs models on an engine.

    Without ``address`` (and without ``HEADRACE_ENGINE`` in the environment) the engine is this program's own: it starts on
    first use and ends with the program. An address such as ``ipc:///run/headrace/engine`` names one that runs already.

    Making a client opens nothing. One client serves any number of threads, event loops and forked children.
    ``connect_timeout`` is how long a run waits for an engine to answer, in seconds.

    Raises ConfigurationError for an address or a ``headrace.toml`` that cannot be used.
    """

    def __init__(self, address: str | None = None, *, connect_timeout: float = 10.0) -> None:
        self._address = address or os.environ.get("HEADRACE_ENGINE") or None
        if self._address is not None:
            directory_of(self._address)
        self._connect_timeout = checked_figure("connect_timeout", connect_timeout, "connect_timeout")
        files = load_files(os.environ)
        remember_places(os.environ)
        settings = with_otel_sink(with_built_in(files, os.environ), os.environ)
        log_in_program()
        if self._address is None:
            _check_hook(settings.spans)
        self._configured = files.providers
        self._providers = tuple(settings.providers)
        self._total_timeout = settings.engine.total_timeout
        self._prices = PriceTable(settings.prices)
        self._number = next(_numbers)
        self._is_closed = False

    @overload
    def run_local(self, *, stream: Literal[True], **arguments: Unpack[RunArguments]) -> LocalStream: ...
    @overload
    def run_local(self, *, stream: Literal[False] = False, **arguments: Unpack[RunArguments]) -> RunLocalResult: ...
    @overload
    def run_local(self, *, stream: bool, **arguments: Unpack[RunArguments]) -> LocalStream | RunLocalResult: ...
    def run_local(self, *, stream: bool = False, **arguments: Unpack[RunArguments]) -> LocalStream | RunLocalResult:
        """Run a model.

        With ``stream=True`` return at once with a LocalStream, whose iteration and ``result`` raise the run's errors.
        Otherwise wait for the end, and return the result or raise.

        Arguments (keyword only; ``model`` and ``messages`` must be given):

        * ``model``: ``gpt-4o``; ``provider/model`` for any configured provider; ``provider`` overrides what the name tells
        * ``messages``: dicts or Messages; roles system, developer, user, assistant, tool; content a str or parts
        * ``tools``, ``tool_choice`` (``auto``, ``none``, ``required``, ``{"tool": name}``), ``response_format`` (JSON schema)
        * ``temperature``, ``top_p``, ``max_output_tokens``, ``stop_sequences``, ``reasoning_effort``
        * ``timeout_ms`` (total), ``first_chunk_timeout_ms``, ``idle_timeout_ms``: milliseconds
        * ``variables``: fills ``{{name}}`` in the messages
        * ``provider_api_key``: for this run; else the key in the environment: this program's, as it is now, for an engine of
          its own; for one at an address, the engine's
        * ``custom_options``: merged into the provider's request body as it is
        * ``tags``, ``user_id``, ``session_id``, ``send_trace``, ``span_id``, ``trace_id``, ``parent_span_id``
        * ``priority``: ``interactive`` or ``batch``; ``on_abort``: ``close`` or ``drain``

        Raises InvalidRequestError, naming the argument, before anything is sent; any HeadraceError afterwards.
        """
        delivery = self._start(stream, arguments)
        return LocalStream(delivery) if stream else cast("RunLocalResult", _wait(delivery))

    @overload
    async def arun_local(self, *, stream: Literal[True], **arguments: Unpack[RunArguments]) -> AsyncLocalStream: ...
    @overload
    async def arun_local(
        self, *, stream: Literal[False] = False, **arguments: Unpack[RunArguments]
    ) -> RunLocalResult: ...
    @overload
    async def arun_local(
        self, *, stream: bool, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream | RunLocalResult: ...
    async def arun_local(
        self, *, stream: bool = False, **arguments: Unpack[RunArguments]
    ) -> AsyncLocalStream | RunLocalResult:
        """Run a model from asyncio: as :meth:`run_local`, with an AsyncLocalStream. Cancelling the task aborts the run."""
        import asyncio

        from headrace.async_streams import AsyncLocalStream, AsyncResultFuture

        delivery = self._start(stream, arguments)
        if stream:
            return AsyncLocalStream(delivery)
        future = AsyncResultFuture(delivery, Interest(delivery), asyncio.get_running_loop())
        return cast("RunLocalResult", await future)

    def run_embedding(self, **arguments: Unpack[EmbeddingArguments]) -> RunEmbeddingResult:
        """Embed texts: return a vector for each.

        ``model`` (``text-embedding-3-small``, ``gemini-embedding-001``, ``provider/model``) and ``input`` (a str or a list of
        them) must be given; ``dimensions`` where the model takes it; the others as in :meth:`run_local`.

        Raises InvalidRequestError, naming the argument, before anything is sent (a provider without embeddings counts);
        any HeadraceError afterwards.
        """
        return cast("RunEmbeddingResult", _wait(self._start_embedding(arguments)))

    async def arun_embedding(self, **arguments: Unpack[EmbeddingArguments]) -> RunEmbeddingResult:
        """As :meth:`run_embedding`, from asyncio."""
        import asyncio

        from headrace.async_streams import AsyncResultFuture

        delivery = self._start_embedding(arguments)
        future = AsyncResultFuture(delivery, Interest(delivery), asyncio.get_running_loop())
        return cast("RunEmbeddingResult", await future)

    def flush(self, timeout: float = 5.0) -> FlushCounts:
        """Have the spans of all runs that have ended stored, and delivered to every sink, within ``timeout`` seconds.

        Returns how many are and how many are not. Nothing is lost without a flush; it is for those who want to look at once.
        Raises InvalidRequestError for a timeout that is no number of seconds, EngineUnavailableError when the engine does not
        answer.
        """
        self._begin()
        timeout = waiting_time("timeout", timeout)
        if is_io_thread():
            reason = "a finalizer asked for a flush on Headrace's own I/O thread; ask in a thread of your program"
            raise EngineUnavailableError(self._address or EMBEDDED, reason)
        process = _process()
        if self._address is None and not process.is_connected(self._address):
            return FlushCounts(0, 0, 0)
        connection = process.connection(self._address, self._connect_timeout, self._number)
        answer: concurrent.futures.Future[FlushCounts] = concurrent.futures.Future()
        connection.post_flush(timeout, partial(_settle_flush, answer))
        try:
            return answer.result(timeout + _FLUSH_MARGIN)
        except TimeoutError:
            raise EngineUnavailableError(self._address or EMBEDDED, "the client was closed") from None

    async def aflush(self, timeout: float = 5.0) -> FlushCounts:  # noqa: ASYNC109 - it is the engine's to keep
        """As :meth:`flush`, without blocking the event loop."""
        return await _in_thread(partial(self.flush, timeout))

    def close(self) -> None:
        """Abort this client's runs, and close what only it used; an embedded engine ends with its last client.

        May be called twice.
        """
        self._is_closed = True
        _process().release(self._address, self._number)

    async def aclose(self) -> None:
        """As :meth:`close`, without blocking the event loop."""
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
        """Be a client of one's own: a copy, pickled or not, ends with its own runs only."""
        self.__dict__.update(state)
        self._number = next(_numbers)

    def __repr__(self) -> str:
        return f"<Client {self._address or EMBEDDED}>"

    def _start(self, stream: bool, arguments: RunArguments) -> Delivery:
        """Check everything, then hand the run to the I/O thread."""
        started_at = self._begin()
        check_names(arguments, RunArguments)
        options = build_options(arguments)
        moved: MovedPlaces = {}
        request = build_request(arguments, stream=stream, moved=moved, **self._context())
        return self._submit(options, request, started_at, moved)

    def _start_embedding(self, arguments: EmbeddingArguments) -> Delivery:
        started_at = self._begin()
        check_names(arguments, EmbeddingArguments)
        options = build_options(arguments)
        request = build_embedding_request(arguments, **self._context())
        return self._submit(options, request, started_at)

    def _begin(self) -> float:
        if self._is_closed:
            raise EngineUnavailableError(self._address or EMBEDDED, "this client is closed; make a new one")
        return monotonic()

    def _context(self) -> RequestContext:
        return {
            "trace_id": _new_id("tr_"),
            "providers": self._providers,
            "takes_any_provider": self._address is not None,
            "traceparent": current_traceparent(),
        }

    def _access(self, provider: str, api_key: str | None) -> ProviderAccess:
        """Return what the run is sent with: an engine of the program's own uses the program's environment, as it is now."""
        if self._address is not None:
            return ProviderAccess(api_key)
        return access_from(os.environ, provider, self._configured, api_key)

    def _submit(
        self, options: RunOptions, request: RunRequest, started_at: float, moved: MovedPlaces | None = None
    ) -> Delivery:
        access = self._access(request.provider, options.provider_api_key)
        argument = "input" if request.inputs else "messages"
        try:
            encoded = encode_request(request)
        except RecursionError:
            raise InvalidRequestError("the stack of this thread is too full to encode them", argument) from None
        if len(encoded) > MAX_REQUEST_BYTES:
            raise InvalidRequestError(f"{len(encoded)} bytes in all; the limit is {MAX_REQUEST_BYTES}", argument)
        plan = RunPlan(
            span_id=options.span_id or _new_id("sp_"),
            provider=request.provider,
            model=request.model,
            request=encoded,
            streams=request.stream,
            api_key=access.api_key,
            base_url=access.base_url,
            moved=moved or {},
            priority=options.priority,
            on_abort=options.on_abort,
            total_timeout=request.total_timeout,
            is_traced=request.send_trace,
        )
        process = _process()
        connection = process.connection(self._address, self._connect_timeout, self._number, self._total_timeout)
        delivery = Delivery(Session(plan), request.trace_id, started_at, connection, self._number, self._prices)
        process.submit(connection, delivery)
        self._prices.load()  # while the run is on its way: reading them takes a while, the first time
        return delivery


def _check_hook(config: SpansConfig) -> None:
    """Say before an engine of this program's own is started that it would have no hook. The engine itself looks closer."""
    if config.redact:
        from headrace.spans.redaction import check_hook_exists

        try:
            check_hook_exists(config)
        except ConfigurationError as error:
            raise told_with_file(error, "spans", "redact", os.environ) from None


def _process() -> Process:
    """Return what this process holds. Sockets and subprocesses are imported with the first run, not with the package."""
    from headrace.connections.client_process import current_process

    return current_process()


async def _in_thread(action: Callable[[], R]) -> R:
    """Do what waits, without blocking the event loop; at the end of the program, when no thread can be had, here."""
    import asyncio

    try:
        waiting = asyncio.get_running_loop().run_in_executor(None, action)
    except RuntimeError:
        return action()
    return await waiting


def _settle_flush(answer: concurrent.futures.Future[FlushCounts], said: FlushResult | HeadraceError) -> None:
    if isinstance(said, HeadraceError):
        answer.set_exception(said)
    else:
        answer.set_result(FlushCounts(said.delivered, said.pending, said.failed))


def _wait(delivery: Delivery) -> object:
    result: ResultFuture[object] = ResultFuture(delivery, Interest(delivery))
    try:
        return result.result()
    finally:
        delivery.abandon()  # of no effect, unless an interrupt ended the wait


def _new_id(prefix: str) -> str:
    # Unique, not secret. Seeded by the system at start, and by Python again in each forked child.
    return f"{prefix}{random.getrandbits(64):016x}"
