"""Writes the record of a row that has ended: one line of JSON, in the form in which the row was written. Pure.

A row in OpenAI's form gets a line as the output and error files of OpenAI's Batch API have them, from whatever provider the
answer came; ``headrace`` beside OpenAI's keys has the facts that OpenAI has no keys for. All other rows get a short line:
``{"id", "text", …}``, or ``{"id", "error", …}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from headrace.batch.plain_objects import plain_object
from headrace.batch.records.chat_completion import completion_of
from headrace.batch.records.embedding_list import embedding_list_of
from headrace.batch.records.record_facts import FailureFacts, RunFacts, error_code, failure_facts, run_facts
from headrace.batch.records.response_body import response_of
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.errors import HeadraceError, ProviderError
from headrace.types import (
    IncompleteToolCall,
    Message,
    RunEmbeddingResult,
    RunLocalResult,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallPart,
    Usage,
)

__all__ = ["error_code", "failure_line", "success_line"]

_OK = 200


class HttpAnswer(msgspec.Struct, frozen=True):
    """OpenAI's ``response`` of a record."""

    status_code: int
    request_id: str
    body: Any


class ErrorWords(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's ``error`` of a record."""

    code: str
    message: str


class BatchOutputLine(msgspec.Struct, frozen=True):
    """A line of the output file or the error file of OpenAI's Batch API."""

    id: str
    custom_id: str
    response: HttpAnswer | None
    error: ErrorWords | None
    headrace: RunFacts | FailureFacts


class AnswerRecord(msgspec.Struct, frozen=True):
    """A short record of an answer."""

    id: str
    text: str
    finish_reason: str | None
    provider: str
    model: str
    usage: Usage
    cost: float | None
    latency_ms: float
    attempts: int
    line: int
    span_id: str
    trace_id: str
    parsed: Any = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET
    incomplete_tool_calls: list[IncompleteToolCall] | UnsetType = UNSET
    refusal: str | UnsetType = UNSET
    reasoning: str | UnsetType = UNSET
    logprobs: list[TokenLogprob] | UnsetType = UNSET
    message: Message | UnsetType = UNSET
    provider_finish_reason: str | UnsetType = UNSET
    wire_format: str | UnsetType = UNSET
    queue_ms: float | UnsetType = UNSET
    queue_reason: str | UnsetType = UNSET


class VectorRecord(msgspec.Struct, frozen=True):
    """A short record of vectors."""

    id: str
    embeddings: list[list[float]]
    provider: str
    model: str
    usage: Usage
    cost: float | None
    latency_ms: float
    attempts: int
    line: int
    span_id: str
    trace_id: str
    queue_ms: float | UnsetType = UNSET
    queue_reason: str | UnsetType = UNSET


class FailureRecord(msgspec.Struct, frozen=True):
    """A short record of a failure."""

    id: str
    line: int
    error: FailureFacts


_encode: Callable[[object], bytes] = msgspec.json.Encoder(enc_hook=plain_object).encode


def success_line(finished: FinishedRow, now: float) -> bytes:
    """Return the record of a row with a result, with its newline. ``now``: seconds since the epoch.

    Raises TypeError if the row has an error instead of a result.
    """
    row, result = finished.row, finished.result
    if isinstance(result, HeadraceError):
        raise TypeError("the row has an error, and no result: failure_line writes it")
    if row.form == "openai":
        name = result.span_id
        answer = HttpAnswer(_OK, name, _body(row, result, now))
        return _line(BatchOutputLine(_batch_id(name, row.number), row.id, answer, None, run_facts(row.number, result)))
    if isinstance(result, RunEmbeddingResult):
        return _line(_vectors(row, result))
    try:
        return _line(_answer(row, result, result.parsed))
    except (TypeError, ValueError, OverflowError, RecursionError):
        if result.parsed is None:
            raise
        return _line(_answer(row, result, None))  # an object without a form in JSON: the text says the same


def failure_line(row: Row | BadRow, error: HeadraceError | None = None) -> bytes:
    """Return the record of a row that failed, with its newline. A BadRow needs no error: it says its problem itself.

    ``error``: why a Row has no result. Raises TypeError if it is missing for a Row.
    """
    failure = row if isinstance(row, BadRow) else error
    if failure is None:
        raise TypeError("a row needs the error with which it ended")
    facts = failure_facts(failure)
    if row.form != "openai":
        return _line(FailureRecord(row.id, row.number, facts))
    words = ErrorWords(facts.code, facts.message)
    name = _batch_id(facts.span_id or "", row.number)
    facts = msgspec.structs.replace(facts, code="", message="", line=row.number)
    return _line(BatchOutputLine(name, row.id, _http_answer(failure, words), words, facts))


def _line(record: msgspec.Struct) -> bytes:
    try:
        return _encode(record) + b"\n"
    except UnicodeError:
        return _encode(_readable(msgspec.to_builtins(record, enc_hook=plain_object))) + b"\n"


def _readable(value: Any) -> Any:
    """Return a value in which ``?`` stands for what is not UTF-8, such as half of a surrogate pair in a column's name."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {_readable(key): _readable(item) for key, item in value.items()}
    return [_readable(item) for item in value] if isinstance(value, list) else value


def _batch_id(span_id: str, number: int) -> str:
    """Return the id of a record. Several rows may share one run, so the run's id is not enough."""
    return f"batch_req_{span_id[3:]}_{number}" if span_id else f"batch_req_{number}"


def _body(row: Row, result: RunLocalResult | RunEmbeddingResult, now: float) -> Any:
    if isinstance(result, RunEmbeddingResult):
        return embedding_list_of(result, row.arguments)
    if row.kind == "responses":
        return response_of(result, row.arguments, now)
    return completion_of(result, now)


def _http_answer(failure: HeadraceError | BadRow, words: ErrorWords) -> HttpAnswer | None:
    """Return the provider's refusal as an HTTP answer. None: there was none."""
    status = getattr(failure, "status_code", None)
    if not isinstance(status, int):
        return None
    kind = "invalid_request_error" if not isinstance(failure, ProviderError) else words.code
    said = {"message": words.message, "type": kind, "param": None, "code": getattr(failure, "code", None)}
    return HttpAnswer(status, getattr(failure, "request_id", None) or "", {"error": said})


def _answer(row: Row, result: RunLocalResult, parsed: Any) -> AnswerRecord:
    return AnswerRecord(
        row.id,
        result.text,
        result.finish_reason,
        result.provider,
        result.model,
        result.usage,
        result.cost,
        result.latency_ms,
        result.attempts,
        row.number,
        result.span_id,
        result.trace_id,
        UNSET if parsed is None else parsed,
        result.tool_calls or UNSET,
        result.incomplete_tool_calls or UNSET,
        _given(result.refusal),
        result.reasoning or UNSET,
        _given(result.logprobs),
        UNSET if is_plain(result.message) else result.message,
        _given(result.provider_finish_reason),
        _given(result.wire_format),
        result.queue_ms or UNSET,
        _given(result.queue_reason),
    )


def _vectors(row: Row, result: RunEmbeddingResult) -> VectorRecord:
    return VectorRecord(
        row.id,
        result.embeddings,
        result.provider,
        result.model,
        result.usage,
        result.cost,
        result.latency_ms,
        result.attempts,
        row.number,
        result.span_id,
        result.trace_id,
        result.queue_ms or UNSET,
        _given(result.queue_reason),
    )


def _given(value: Any) -> Any:
    return UNSET if value is None else value


def is_plain(message: Message) -> bool:
    """Whether the other keys of a record say all that a message has: texts and calls, and nothing of the provider's own."""
    content = message.content
    return isinstance(content, str) or all(
        isinstance(part, TextPart | ToolCallPart) and part.provider_data is None for part in content
    )
