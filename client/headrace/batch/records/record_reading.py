"""Reads records back: their id and their figures, or the whole result. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.batch.records.embedding_list import unpacked
from headrace.batch.records.record_facts import FailureFacts, RunFacts, error_of
from headrace.batch.records.record_lines import AnswerRecord, VectorRecord
from headrace.errors import BatchInputError, HeadraceError
from headrace.types import (
    IncompleteToolCall,
    Message,
    Part,
    ReasoningPart,
    RunEmbeddingResult,
    RunLocalResult,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallPart,
    Usage,
)

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError, TypeError, KeyError, AttributeError)


class RecordHead(msgspec.Struct, frozen=True):
    """What a journal needs of a record.

    ``number``: the row's, 0 if the record was not written by Headrace. ``error_code``: empty for an answer. ``cost`` in US
    dollars, None if not known.
    """

    id: str
    number: int
    error_code: str
    cost: float | None
    input_tokens: int
    output_tokens: int

    @property
    def is_failure(self) -> bool:
        """Whether the row failed."""
        return bool(self.error_code)


class _Figures(msgspec.Struct, frozen=True):
    line: int = 0
    cost: float | None = None
    usage: Usage | None = None


class _Error(msgspec.Struct, frozen=True):
    code: str | None = None
    cost: float | None = None
    usage: Usage | None = None


class _Answer(msgspec.Struct, frozen=True):
    status_code: int = 0


class _Head(msgspec.Struct, frozen=True):
    id: str
    custom_id: str | None = None
    response: _Answer | None = None
    error: _Error | None = None
    headrace: _Figures | None = None
    line: int = 0
    cost: float | None = None
    usage: Usage | None = None


_read_head = msgspec.json.Decoder(_Head).decode
_NOTHING = Usage()
_FIRST_FAILURE = 400


def read_head(line: bytes) -> RecordHead | None:
    """Return the head of a record. None: the line is no record, or is torn."""
    try:
        head = _read_head(line)
    except _UNREADABLE:
        return None
    code = ""
    if head.error is not None:
        code = head.error.code or "failed"
    elif head.response is not None and head.response.status_code >= _FIRST_FAILURE:
        code = "failed"  # as OpenAI has it, where the provider's answer is the error
    figures = head.headrace or head.error or head
    usage = figures.usage or _NOTHING
    number = head.headrace.line if head.headrace is not None else head.line
    name = head.id if head.custom_id is None else head.custom_id
    return RecordHead(name, number, code, figures.cost, usage.input_tokens, usage.output_tokens)


class _Batch(msgspec.Struct, frozen=True):
    custom_id: str
    headrace: dict[str, Any]
    response: dict[str, Any] | None = None
    error: dict[str, Any] | None = None


_read_any = msgspec.json.Decoder(dict[str, Any]).decode


def read_result(line: bytes) -> RunLocalResult | RunEmbeddingResult | HeadraceError:
    """Return the result or the error of a record that Headrace wrote, as far as the record has its fields.

    In OpenAI's form, ``message`` has text, tool calls and reasoning only: images, sound and what a provider needs back
    (signatures) are not in these records. ``parsed`` is what the record has, in plain types.
    Raises BatchInputError if the line is no such record.
    """
    try:
        record = _read_any(line)
        if "custom_id" in record:
            return _from_batch(msgspec.convert(record, _Batch))
        if "error" in record:
            return error_of(msgspec.convert(record["error"], FailureFacts))
        if "embeddings" in record:
            return _vectors(msgspec.convert(record, VectorRecord))
        return _answer(msgspec.convert(record, AnswerRecord))
    except _UNREADABLE as error:
        raise BatchInputError("the record", f"is none that Headrace wrote: {error}") from None


def _from_batch(record: _Batch) -> RunLocalResult | RunEmbeddingResult | HeadraceError:
    if record.error is not None:
        failure = msgspec.convert(record.headrace, FailureFacts)
        return error_of(msgspec.structs.replace(failure, message=record.error["message"]))
    facts = msgspec.convert(record.headrace, RunFacts)
    body = (record.response or {})["body"]
    match body["object"]:
        case "list":
            vectors = [unpacked(item["embedding"]) for item in body["data"]]
            return _vectors(_vector_record(record.custom_id, facts, vectors))
        case "chat.completion":
            return _answer(_completion(record.custom_id, facts, body))
        case _:
            return _answer(_response(record.custom_id, facts, body))


def _vector_record(name: str, facts: RunFacts, vectors: list[list[float]]) -> VectorRecord:
    return VectorRecord(**_fields_of(facts, VectorRecord), id=name, embeddings=vectors)


def _answer_record(name: str, facts: RunFacts, **said: Any) -> AnswerRecord:
    given = {key: value for key, value in said.items() if value}
    return AnswerRecord(**({"finish_reason": None, "text": ""} | _fields_of(facts, AnswerRecord) | given), id=name)


def _fields_of(facts: RunFacts, record: type[AnswerRecord | VectorRecord]) -> dict[str, Any]:
    """Return the fields of a short record that are among the facts."""
    fields: dict[str, Any] = msgspec.structs.asdict(facts)
    return {
        key: fields[key]
        for key in record.__struct_fields__
        if key in fields and (fields[key] is not None or key == "cost")
    }


def _completion(name: str, facts: RunFacts, body: dict[str, Any]) -> AnswerRecord:
    choice = body["choices"][0]
    message = choice["message"]
    calls = [
        (call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    logprobs = choice.get("logprobs") or {}
    return _answer_record(
        name,
        facts,
        text=message["content"],
        refusal=message.get("refusal"),
        reasoning=message.get("reasoning_content"),
        logprobs=_logprobs(logprobs.get("content") or logprobs.get("refusal")),
        **_sorted_calls(calls),
    )


def _response(name: str, facts: RunFacts, body: dict[str, Any]) -> AnswerRecord:
    texts: list[str] = []
    refusals: list[str] = []
    reasoning: list[str] = []
    calls: list[tuple[str, str, str]] = []
    tokens: list[Any] = []
    for item in body["output"]:
        match item.get("type"):
            case "message":
                for part in item["content"]:
                    (texts if part["type"] == "output_text" else refusals).append(
                        part.get("text", part.get("refusal", ""))
                    )
                    tokens += part.get("logprobs") or ()
            case "function_call":
                calls.append((item["call_id"], item["name"], item["arguments"]))
            case "custom_tool_call":
                text = msgspec.json.encode({"input": item["input"]}).decode()
                calls.append((item["call_id"], item["name"], text))
            case "reasoning":
                reasoning += [part["text"] for part in item.get("summary") or item.get("content") or ()]
            case _:
                pass
    return _answer_record(
        name,
        facts,
        text="".join(texts),
        refusal="".join(refusals),
        reasoning="".join(reasoning),
        logprobs=_logprobs(tokens),
        **_sorted_calls(calls),
    )


def _logprobs(tokens: Any) -> list[TokenLogprob] | None:
    return msgspec.convert(tokens, list[TokenLogprob]) if tokens else None


def _sorted_calls(calls: list[tuple[str, str, str]]) -> dict[str, Any]:
    """Return the whole calls, and those that were cut off: their arguments are no JSON object."""
    whole: list[ToolCall] = []
    cut: list[IncompleteToolCall] = []
    for call_id, name, text in calls:
        try:
            whole.append(ToolCall(call_id, name, _read_any(text)))
        except _UNREADABLE:
            cut.append(IncompleteToolCall(call_id, name, text))
    return {"tool_calls": whole, "incomplete_tool_calls": cut}


def _answer(record: AnswerRecord) -> RunLocalResult:
    fields = {
        key: value
        for key in AnswerRecord.__struct_fields__
        if (value := getattr(record, key)) is not msgspec.UNSET and key not in {"id", "line"}
    }
    defaults: dict[str, Any] = {
        "tool_calls": [],
        "incomplete_tool_calls": [],
        "refusal": None,
        "reasoning": "",
        "provider_finish_reason": None,
    }
    fields = defaults | fields
    fields.setdefault("message", _message(fields))
    return RunLocalResult(**fields)


def _message(fields: dict[str, Any]) -> Message:
    """Return the assistant's message that says what the fields say."""
    text, reasoning = fields["text"], fields["reasoning"]
    calls = [ToolCallPart(call.id, call.name, call.arguments) for call in fields["tool_calls"]]
    if not calls and not reasoning:
        return Message("assistant", text)
    parts: list[Part] = [ReasoningPart(reasoning)] if reasoning else []
    if text:
        parts.append(TextPart(text))
    return Message("assistant", [*parts, *calls])


def _vectors(record: VectorRecord) -> RunEmbeddingResult:
    fields = {
        key: value
        for key in VectorRecord.__struct_fields__
        if (value := getattr(record, key)) is not msgspec.UNSET and key not in {"id", "line"}
    }
    return RunEmbeddingResult(**fields)
