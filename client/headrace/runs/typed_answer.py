"""Reads the answer of a run into its ``response_type``, in the thread that asks for the result, and only once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.arguments.checks import json_mapping
from headrace.errors import OutputValidationError
from headrace.schemas.response_type import ResponseType, response_type_of
from headrace.schemas.value_mismatch import ValueMismatchError
from headrace.types import RunLocalResult, StreamResult

_ENDED_EARLY = {
    "max_tokens": "max_output_tokens cut the answer off after {count} tokens; give more, or ask for less",
    "content_filter": "the provider's content filter stopped the answer",
    "error": "the provider ended the answer with an error",
}
"""Finish reason → why the answer is not whole."""


class TypedAnswer:
    """Reads the answer of one run. Validators are code of the user, so no thread of Headrace calls them."""

    def __init__(self, response_type: ResponseType) -> None:
        self.response_type = response_type
        self._read: RunLocalResult | OutputValidationError | None = None
        # Reentrant: a validator may ask for the result of its own run. That is an endless loop, but no deadlock.
        self._lock = threading.RLock()

    def read(self, result: Any) -> Any:
        """Return the result with ``parsed``, or OutputValidationError. A run that failed keeps its error."""
        if not isinstance(result, RunLocalResult):
            return result
        with self._lock:
            if self._read is None:
                self._read = with_parsed(result, self.response_type)
            return self._read


def typed_answer_of(response_type: object) -> TypedAnswer:
    """Return what reads the answer into ``response_type``: a type, a JSON schema as a mapping, or a ResponseType.

    Raises InvalidRequestError if it has no schema, or if the schema is wrong.
    """
    if isinstance(response_type, ResponseType):
        return TypedAnswer(response_type)
    if isinstance(response_type, Mapping):
        response_type = json_mapping("response_type", response_type)
    return TypedAnswer(response_type_of(response_type))


def with_parsed(result: RunLocalResult, response_type: ResponseType) -> RunLocalResult | OutputValidationError:
    """Return the result with its answer as an object, or the error of an answer that does not fit."""
    if isinstance(result, StreamResult) and result.aborted:
        return result
    if result.tool_calls or result.finish_reason == "tool_calls":
        return result  # the answer comes after the tools' results
    try:
        if (problem := _early_end(result)) is not None:
            raise ValueMismatchError("$", problem)  # noqa: TRY301 - one place makes the error
        parsed = response_type.read(result.text)
    except ValueMismatchError as mismatch:
        error = OutputValidationError(
            result.span_id, mismatch.reason, result.text, mismatch.path, result.usage, result.cost
        )
        error.__cause__ = mismatch.__cause__
        return error
    return msgspec.structs.replace(result, parsed=parsed)


def _early_end(result: RunLocalResult) -> str | None:
    """Return why an answer is not whole, or None."""
    if result.refusal:
        return f"the model refused: {result.refusal}"
    words = _ENDED_EARLY.get(result.finish_reason or "")
    if words is None:
        return None
    said = f": {result.text}" if result.finish_reason == "content_filter" and result.text else ""
    return words.format(count=result.usage.output_tokens) + said
