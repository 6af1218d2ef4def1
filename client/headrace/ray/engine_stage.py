"""EngineStage: the stage for Ray Data's ``map_batches`` that runs the rows of each batch on an engine of the actor's own."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

from headrace.batch.driver.job import BatchJob
from headrace.batch.driver.options import DEFAULT_CONCURRENCY, BatchOptions
from headrace.batch.driver.recorder import EndedRow
from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_reader import RowReader
from headrace.client import Client
from headrace.errors import InvalidRequestError
from headrace.ray.piece_order import PieceOrder
from headrace.ray.stage_columns import Columns, ColumnWriter, columns_of, table_of
from headrace.ray.stage_journal import StageJournal, row_key

if TYPE_CHECKING:
    import pyarrow

_PIECE = 64
"""Rows that a batch yields together."""


class EngineStage:
    """Runs each row of a batch, and adds its answer as columns. A callable class for ``Dataset.map_batches``.

    .. code-block:: python

        ds = ds.map_batches(
            EngineStage,
            fn_constructor_kwargs={"model": "gpt-4o", "prompt": "Summarise: {text}"},
            batch_format="pyarrow", batch_size=1024, compute=ray.data.ActorPoolStrategy(size=2),
        )

    Give one of ``prompt``, ``embed`` and ``messages``:

    * ``prompt`` (str): the template of the prompts, such as ``Summarise: {text}``, filled with the columns of the row.
    * ``embed`` (str): the column of texts to embed.
    * ``messages`` (str): the column with the messages of a run.

    Further arguments, all optional:

    * ``model``, ``provider``, ``system`` (str): as in ``run_local``. ``model`` must be given.
    * ``arguments`` (dict): further arguments of ``run_local`` or ``run_embedding``, such as ``{"temperature": 0}``, or
      ``{"response_type": {…JSON schema…}}``.
    * ``id_column`` (str): the column with an id that is unique among all rows: str or int.
    * ``journal`` (path): a directory that all nodes share. It has the answers: rows that are finished are not run again
      if an actor dies, or if the job is started again. Needs ``id_column``.
    * ``prefix`` (str): the beginning of the names of the new columns. Default: none.
    * ``concurrency`` (int): rows at once in one actor at most. Default 1024; the stage finds out how many are useful.
    * ``max_retries`` (int): tries after a failure of the provider. Default 5. ``timeout_ms`` (int): of one row.

    New columns: ``answer``, ``parsed`` (JSON), ``tool_calls`` (JSON), ``refusal``, ``finish_reason`` (or ``embedding``);
    ``provider``, ``model``, ``input_tokens``, ``output_tokens``, ``cost`` in US dollars; ``error``, a word such as
    ``rate_limit``, and ``error_message``. A row that fails has an ``error``, and ends no other row.

    Rows come in the order of the input, in pieces of 64, as soon as they are finished. Several threads may call one
    stage. Each actor has an engine of its own, or that of ``HEADRACE_ENGINE`` in its environment.

    Raises InvalidRequestError for wrong arguments, ConfigurationError if the journal cannot be written. A call raises
    EngineUnavailableError or BudgetExceededError if no row can run any more.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        provider: str | None = None,
        prompt: str | None = None,
        embed: str | None = None,
        messages: str | None = None,
        system: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        id_column: str | None = None,
        journal: str | os.PathLike[str] | None = None,
        prefix: str = "",
        concurrency: int = DEFAULT_CONCURRENCY,
        max_retries: int = 5,
        timeout_ms: int | None = None,
    ) -> None:
        if sum(given is not None for given in (prompt, embed, messages)) != 1:
            raise InvalidRequestError("give one of prompt, embed and messages", "prompt")
        if journal is not None and id_column is None:
            raise InvalidRequestError("a journal needs the column with the ids of the rows", "id_column")
        self._reader = RowReader(
            RowOptions(
                model=model, provider=provider, prompt=prompt, embed=embed, system=system, arguments=arguments or {}
            )
        )
        self._messages = messages
        self._id_column = id_column
        self._writer = ColumnWriter(prefix, has_vectors=embed is not None)
        run = _run_name()
        self._journal = None if journal is None else StageJournal(journal, run)
        self._options = BatchOptions(
            concurrency=concurrency, max_retries=max_retries, timeout_ms=timeout_ms, session_id=run
        )
        self._client = Client()

    def __call__(self, batch: Any) -> Iterator[pyarrow.Table]:
        """Yield the rows of a batch with their answers, in pieces. ``batch``: a pyarrow table, a data frame, or a dict."""
        table = table_of(batch)
        self._writer.check_names(table.column_names)
        rows = self._rows(table)
        keys = self._keys(table, rows)
        order: PieceOrder[Columns] = PieceOrder(len(rows), _PIECE)
        known = self._journal.find(list(keys.values())) if self._journal is not None else {}
        to_run: list[Row | BadRow] = []
        for row in rows:
            columns = known.get(keys.get(row.number, b""))
            if columns is None:
                to_run.append(row)
            else:
                order.put(row.number - 1, columns)
        yield from self._pieces(table, order)
        with closing(cast("Generator[EndedRow]", self._job(to_run).run())) as ended_rows:
            for ended in ended_rows:
                number = ended.number
                columns = columns_of(ended.finished)
                if self._journal is not None and number in keys:
                    self._journal.add(keys[number], columns, is_failure="error" in columns)
                order.put(number - 1, columns)
                yield from self._pieces(table, order)

    def close(self) -> None:
        """End the engine, and close the journal. An actor need not call it: its engine ends with it."""
        self._client.close()
        if self._journal is not None:
            self._journal.close()

    def _rows(self, table: pyarrow.Table) -> list[Row | BadRow]:
        if self._messages is None:
            self._reader.check_columns(dict.fromkeys(table.column_names))
            records = table.select(list(self._reader.columns())).to_pylist()
            return [self._reader.read_record(number, record) for number, record in enumerate(records, 1)]
        if self._messages not in table.column_names:
            raise InvalidRequestError(f"there is no column {self._messages!r}, but {table.column_names}", "messages")
        given = table.column(self._messages).to_pylist()
        return [
            self._reader.read_mapping(number, {"messages": _without_nulls(messages)})
            for number, messages in enumerate(given, 1)
        ]

    def _keys(self, table: pyarrow.Table, rows: list[Row | BadRow]) -> dict[int, bytes]:
        """Return the keys of the rows in the journal, by their number. A bad row has none: it costs nothing."""
        if self._journal is None or self._id_column is None:
            return {}
        if self._id_column not in table.column_names:
            raise InvalidRequestError(f"there is no column {self._id_column!r}, but {table.column_names}", "id_column")
        ids = table.column(self._id_column).to_pylist()
        return {
            row.number: row_key(row_id, row.hash) for row_id, row in zip(ids, rows, strict=True) if isinstance(row, Row)
        }

    def _job(self, rows: list[Row | BadRow]) -> BatchJob:
        runs = self._client._row_runs(self._options.of_all_rows())  # noqa: SLF001
        return BatchJob(runs, rows, None, self._options)

    def _pieces(self, table: pyarrow.Table, order: PieceOrder[Columns]) -> Iterator[pyarrow.Table]:
        while (piece := order.take()) is not None:
            begin, rows = piece
            if self._journal is not None:
                self._journal.sync()  # what Ray has read must not be run again
            yield self._writer.added(table.slice(begin, len(rows)), rows)


def _without_nulls(value: Any) -> Any:
    """Return a value without the nulls that a table puts where a struct has no such key."""
    if isinstance(value, dict):
        return {key: _without_nulls(part) for key, part in value.items() if part is not None}
    return [_without_nulls(part) for part in value] if isinstance(value, list) else value


def _run_name() -> str:
    """Return a name for this run of the job: the same one in all its actors. Outside of Ray each stage has its own."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return f"ray-{os.urandom(8).hex()}"
    context = ray.get_runtime_context()
    return f"{context.get_session_name()}-{context.get_job_id()}"
