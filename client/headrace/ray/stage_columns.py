"""The columns that EngineStage adds to a batch: the answer of each row, or its error.

Needs ``pyarrow``, which is imported when a batch comes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.batch.records.record_lines import error_code
from headrace.batch.records.result_columns import figures_of, vector_of
from headrace.batch.row import BadRow, FinishedRow
from headrace.errors import HeadraceError, InvalidRequestError
from headrace.types import RunEmbeddingResult, RunLocalResult

if TYPE_CHECKING:
    import pyarrow

Columns = dict[str, Any]
"""Name of a column, without the prefix → the value of one row, as JSON has it."""

_SHARED = {
    "provider": "string",
    "model": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "cost": "float64",
    "error": "string",
    "error_message": "string",
}
_OF_ANSWERS = {
    "answer": "string",
    "parsed": "string",
    "tool_calls": "string",
    "refusal": "string",
    "finish_reason": "string",
} | _SHARED
_OF_VECTORS = {"embedding": "vector"} | _SHARED


def columns_of(finished: FinishedRow | BadRow) -> Columns:
    """Return the columns of a row that has ended. Columns that are not in the dict are null."""
    if isinstance(finished, BadRow):
        return {"error": error_code(finished), "error_message": finished.text}
    result = finished.result
    if isinstance(result, HeadraceError):
        return {"error": error_code(result), "error_message": str(result)}
    columns: Columns = {"provider": result.provider} | figures_of(result)
    if isinstance(result, RunEmbeddingResult):
        return columns | {"embedding": vector_of(result)}
    return columns | _answer(result)


def _answer(result: RunLocalResult[Any]) -> Columns:
    columns: Columns = {"answer": result.text, "finish_reason": result.finish_reason}
    if result.refusal is not None:
        columns["refusal"] = result.refusal
    if result.parsed is not None:
        columns["parsed"] = msgspec.json.encode(result.parsed).decode()
    if result.tool_calls:
        columns["tool_calls"] = msgspec.json.encode([call.to_dict() for call in result.tool_calls]).decode()
    return columns


class ColumnWriter:
    """Adds the columns to tables. ``prefix``: the beginning of their names. ``has_vectors``: the rows are embedded."""

    def __init__(self, prefix: str, *, has_vectors: bool) -> None:
        self._prefix = prefix
        self._types = _OF_VECTORS if has_vectors else _OF_ANSWERS

    def check_names(self, names: Sequence[str]) -> None:
        """Raise InvalidRequestError if the input has one of the columns already."""
        taken = [name for name in names if name.startswith(self._prefix) and name[len(self._prefix) :] in self._types]
        if taken:
            raise InvalidRequestError(
                f"the input has the columns {', '.join(map(repr, taken))} already; give a prefix such as 'llm_'",
                "prefix",
            )

    def added(self, table: pyarrow.Table, rows: Sequence[Columns]) -> pyarrow.Table:
        """Return the table with the columns of its rows."""
        for name, kind in self._types.items():
            values = [row.get(name) for row in rows]
            table = table.append_column(self._prefix + name, [_array(values, kind)])
        return table


def table_of(batch: Any) -> pyarrow.Table:
    """Return a batch of Ray Data as a table: from ``batch_format`` pyarrow (best), pandas, or numpy (the default)."""
    import pyarrow as pa

    if isinstance(batch, pa.Table):
        return batch
    if isinstance(batch, Mapping):
        return pa.table({name: pa.array(list(values)) for name, values in batch.items()})
    return pa.Table.from_pandas(batch, preserve_index=False)


def _array(values: list[Any], kind: str) -> Any:
    import pyarrow as pa

    arrow_type = pa.list_(pa.float64()) if kind == "vector" else pa.type_for_alias(kind)
    return pa.array(values, type=arrow_type)
