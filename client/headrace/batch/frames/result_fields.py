"""What a column of results has for each row: a struct of plain values. Pure."""

from __future__ import annotations

from typing import Any

from headrace.batch.from_python.batch_result import BatchResult
from headrace.batch.records.result_columns import figures_of, vector_of
from headrace.types import RunEmbeddingResult

_OF_ANSWERS = ("text", "finish_reason")
_OF_ALL = ("model", "input_tokens", "output_tokens", "cost", "error", "error_type")


def field_names(*, has_type: bool, embeds: bool) -> tuple[str, ...]:
    """Return the names of the fields. ``has_type``: there is a ``response_type``. ``embeds``: the rows are embedded."""
    if embeds:
        return ("embedding", *_OF_ALL)
    return ("text", "parsed", "finish_reason", *_OF_ALL) if has_type else (*_OF_ANSWERS, *_OF_ALL)


def fields_of(result: BatchResult[Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a row. None is what a row does not have: a row that failed has ``error`` and ``error_type``."""
    known = result.result
    found: dict[str, Any] = {}
    if known is not None:
        found = figures_of(known)
        if isinstance(known, RunEmbeddingResult):
            found["embedding"] = vector_of(known)
        else:
            found |= {"text": known.text, "parsed": known.parsed, "finish_reason": known.finish_reason}
    elif result.error is not None:
        found = {"error": str(result.error), "error_type": type(result.error).__name__}
    return {name: found.get(name) for name in names}
