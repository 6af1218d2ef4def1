"""BatchClient: the methods of a client that run many rows: ``batch``, ``map`` and their async twins. A base of Client."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, cast, overload

from headrace.arguments.batch_arguments import BatchArguments, MapArguments
from headrace.errors import InvalidRequestError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from headrace.batch.driver.options import BatchOptions
    from headrace.batch.from_python.async_batch_results import AsyncBatchResults
    from headrace.batch.from_python.batch_results import BatchResults
    from headrace.batch.from_python.job_thread import JobThread
    from headrace.batch.journal.journal import Journal
    from headrace.batch.row_runs import RowRuns
    from headrace.settings.settings import Settings

A = TypeVar("A")
"""The type of an answer."""
F = TypeVar("F")
"""The type of a frame."""


class BatchClient:
    """Runs many rows. Client has the methods that run a model once."""

    _address: str | None
    _settings: Settings

    @overload
    def batch(
        self,
        rows: Iterable[object] | str | PathLike[str],
        *,
        response_type: type[A],
        **arguments: Unpack[BatchArguments],
    ) -> BatchResults[A]: ...
    @overload
    def batch(
        self,
        rows: Iterable[object] | str | PathLike[str],
        *,
        response_type: None = None,
        **arguments: Unpack[BatchArguments],
    ) -> BatchResults[None]: ...
    @overload
    def batch(
        self,
        rows: Iterable[object] | str | PathLike[str],
        *,
        response_type: object,
        **arguments: Unpack[BatchArguments],
    ) -> BatchResults[Any]: ...
    def batch(
        self,
        rows: Iterable[object] | str | PathLike[str],
        *,
        response_type: object = None,
        **arguments: Unpack[BatchArguments],
    ) -> BatchResults[Any]:
        """Run many rows, as fast as the limits allow, and yield their results as they finish.

        * ``rows``: a list or an iterator of dicts, of texts or of lists of messages; or the path of a file, as
          ``headrace batch`` takes it. A dict has ``messages``, ``prompt`` or ``input``, an ``id`` if you like, and any
          argument of a run; or it is a line of OpenAI's Batch API (``custom_id``, ``url``, ``body``). An iterator is read
          in another thread, only as far as rows are run; with ``path`` it is copied to a file first.
        * ``response_type``: the type of all answers, as for ``run_local``. A row whose answer does not fit is run again.
        * all other arguments: :class:`BatchArguments` (``help(headrace.BatchArguments)`` lists them). ``path`` keeps the
          results, so that the job can be started again.

        A row that fails does not end the others: its BatchResult has an ``error``.

        Raises InvalidRequestError if an argument is wrong. With ``path``, raises JobLockedError if another process runs
        this job, DuplicateRowsError if two rows have the same id, and ChangedInputError if the rows are not those of the
        earlier start. Nothing has been sent then. Iteration raises RecordWriteError if a result cannot be written, and
        EngineUnavailableError or BudgetExceededError if no further row can run: then start the job again.
        """
        from headrace.batch.from_python.batch_results import BatchResults

        job = self._begin_job(rows, response_type, arguments)
        job.wait_until_begun()
        return BatchResults(job)

    @overload
    def abatch(
        self,
        rows: Iterable[object] | AsyncIterable[object] | str | PathLike[str],
        *,
        response_type: type[A],
        **arguments: Unpack[BatchArguments],
    ) -> AsyncBatchResults[A]: ...
    @overload
    def abatch(
        self,
        rows: Iterable[object] | AsyncIterable[object] | str | PathLike[str],
        *,
        response_type: None = None,
        **arguments: Unpack[BatchArguments],
    ) -> AsyncBatchResults[None]: ...
    @overload
    def abatch(
        self,
        rows: Iterable[object] | AsyncIterable[object] | str | PathLike[str],
        *,
        response_type: object,
        **arguments: Unpack[BatchArguments],
    ) -> AsyncBatchResults[Any]: ...
    def abatch(
        self,
        rows: Iterable[object] | AsyncIterable[object] | str | PathLike[str],
        *,
        response_type: object = None,
        **arguments: Unpack[BatchArguments],
    ) -> AsyncBatchResults[Any]:
        """Run many rows, from asyncio: ``async for result in client.abatch(…)``. As :meth:`batch`.

        ``rows`` may also be an async iterable. What :meth:`batch` raises at once is raised by the iteration.
        """
        return self._async_results(rows, response_type, arguments)

    @overload
    def map(
        self, prompts: Iterable[object], *, response_type: type[A], **arguments: Unpack[MapArguments]
    ) -> BatchResults[A]: ...
    @overload
    def map(
        self, prompts: Iterable[object], *, response_type: None = None, **arguments: Unpack[MapArguments]
    ) -> BatchResults[None]: ...
    @overload
    def map(
        self, prompts: Iterable[object], *, response_type: object, **arguments: Unpack[MapArguments]
    ) -> BatchResults[Any]: ...
    def map(
        self, prompts: Iterable[object], *, response_type: object = None, **arguments: Unpack[MapArguments]
    ) -> BatchResults[Any]:
        """Run a model with many prompts, and yield the results in the order of the prompts.

        ``[result.text for result in client.map(prompts, model="gpt-4o-mini")]`` are the answers. The ``text`` of a row
        that failed raises its error. It is :meth:`batch` with ``ordered=True``: see there for all else.
        """
        from headrace.batch.from_python.batch_results import BatchResults

        job = self._begin_job(_prompts(prompts), response_type, {**arguments, "ordered": True})
        job.wait_until_begun()
        return BatchResults(job)

    @overload
    def amap(
        self,
        prompts: Iterable[object] | AsyncIterable[object],
        *,
        response_type: type[A],
        **arguments: Unpack[MapArguments],
    ) -> AsyncBatchResults[A]: ...
    @overload
    def amap(
        self,
        prompts: Iterable[object] | AsyncIterable[object],
        *,
        response_type: None = None,
        **arguments: Unpack[MapArguments],
    ) -> AsyncBatchResults[None]: ...
    @overload
    def amap(
        self,
        prompts: Iterable[object] | AsyncIterable[object],
        *,
        response_type: object,
        **arguments: Unpack[MapArguments],
    ) -> AsyncBatchResults[Any]: ...
    def amap(
        self,
        prompts: Iterable[object] | AsyncIterable[object],
        *,
        response_type: object = None,
        **arguments: Unpack[MapArguments],
    ) -> AsyncBatchResults[Any]:
        """Run a model with many prompts, from asyncio: ``async for result in client.amap(…)``. As :meth:`map`."""
        return self._async_results(_prompts(prompts), response_type, {**arguments, "ordered": True})

    def batch_frame(
        self, frame: F, *, into: str = "result", response_type: object = None, **arguments: Unpack[MapArguments]
    ) -> F:
        """Run a row for each record of a frame, and return the frame with a column of results.

        * ``frame``: a DataFrame of pandas or polars, with ``prompt`` as the template over its columns, such as
          ``"Summarise: {review}"``, or ``embed`` as the column to embed; without them, its columns are arguments of a run
          (``prompt``, ``temperature``, …). A Series of prompts gives the Series of results. A LazyFrame of polars gives a
          LazyFrame, and the rows run when it is collected.
        * ``into``: the name of the new column; one that the frame does not have.
        * ``response_type`` and all other arguments: as for :meth:`batch`. With ``path``, a frame that is run again takes the
          recorded results from there.

        A result is a struct (in pandas a dict) with the fields ``text``, ``finish_reason``, ``model``, ``input_tokens``,
        ``output_tokens``, ``cost``, and ``error`` and ``error_type`` for a row that failed. With ``response_type`` it has
        ``parsed`` too: the object in pandas, its JSON in polars. With ``embed`` it has ``embedding`` instead of ``text``.

        Raises what :meth:`batch` and its iteration raise.
        """
        from headrace.batch.frames.frame_job import run_frame

        def start(items: Any) -> BatchResults[Any]:
            return self.batch(items, response_type=response_type, **arguments)

        return cast("F", run_frame(frame, into, response_type, arguments, start))

    async def abatch_frame(
        self, frame: F, *, into: str = "result", response_type: object = None, **arguments: Unpack[MapArguments]
    ) -> F:
        """Return the frame with a column of results, as :meth:`batch_frame`, without blocking the event loop."""
        import asyncio

        def work() -> F:
            return self.batch_frame(frame, into=into, response_type=response_type, **arguments)

        return await asyncio.get_running_loop().run_in_executor(None, work)

    def _async_results(self, rows: Any, response_type: object, arguments: Mapping[str, Any]) -> AsyncBatchResults[Any]:
        import asyncio

        from headrace.batch.from_python.async_batch_results import AsyncBatchResults, AsyncItems

        items = None
        if isinstance(rows, AsyncIterable):
            rows = items = AsyncItems(rows, asyncio.get_running_loop())
        return AsyncBatchResults(self._begin_job(rows, response_type, arguments), items)

    def _begin_job(self, rows: Any, response_type: object, arguments: Mapping[str, Any]) -> JobThread:
        """Check the arguments, and start the job in a thread of its own. Raises InvalidRequestError."""
        from headrace.batch.from_python.job_request import job_request
        from headrace.batch.from_python.job_thread import JobThread
        from headrace.batch.rows.row_options import RowProvider

        self._begin()
        # An engine at an address has providers of its own.
        known = self._settings.providers if self._address is None else {}
        providers = {name: RowProvider(provider.base_url, provider.api) for name, provider in known.items()}
        if not isinstance(rows, Iterable | PathLike):
            raise InvalidRequestError(f"takes a list, an iterator or a path, not {type(rows).__name__}", "rows")
        request = job_request(arguments, response_type, providers)
        return JobThread(rows, request, self._job_runs, self._begin)

    def _begin(self) -> float:
        """Return the time. Raises EngineUnavailableError if the client is closed."""
        raise NotImplementedError

    def _job_runs(self, options: BatchOptions, journal: Journal | None) -> AbstractContextManager[RowRuns]:
        """Return a context with what runs the rows of a job."""
        raise NotImplementedError


def _prompts(prompts: object) -> Any:
    if isinstance(prompts, str | bytes | PathLike | Mapping):
        raise InvalidRequestError(
            f"takes a list or an iterator of prompts, not one {type(prompts).__name__}", "prompts"
        )
    return cast("Any", prompts)
