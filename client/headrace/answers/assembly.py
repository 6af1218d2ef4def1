"""Puts the events of a run together: its text, tool calls and usage, and the result of the caller. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.answers.tool_arguments import read_arguments, sendable
from headrace.types import (
    IncompleteToolCall,
    Message,
    Part,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEmbeddingResult,
    RunEvent,
    RunLocalResult,
    StreamResult,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import Aborted, Finished, ToolCallText

_CUT = ("max_tokens", "content_filter", "error")
"""Finish reasons of an answer that stopped early. It may have stopped in the middle of a tool call."""


class InvalidArgumentsError(ValueError):
    """The arguments of a complete tool call are not a JSON object. ``raw`` is the text that the provider sent."""

    def __init__(self, name: str, raw: str) -> None:
        super().__init__(name, raw)
        self.name = name
        self.raw = raw

    def __str__(self) -> str:
        # Without the arguments: they may quote a secret, and an error may be shown where secrets are not masked.
        return f"the arguments of tool call {self.name!r} are not a JSON object ({len(self.raw)} characters)"


class Assembled(msgspec.Struct, frozen=True, gc=False):
    """The content of a run's events, put together."""

    text: str
    reasoning: str
    refusal: str
    tool_calls: list[ToolCallText]
    usage: Usage


class ResultFacts(msgspec.Struct, frozen=True):
    """What a result says about its run besides the events. The client knows it. ``latency_ms`` and ``queue_ms`` are in milliseconds."""

    span_id: str
    trace_id: str
    provider: str
    model: str
    latency_ms: float
    attempts: int
    queue_ms: float = 0.0
    queue_reason: str | None = None


def joined_text(events: Sequence[RunEvent]) -> str:
    """Return the text of ``events``, joined."""
    return _text_and_others(events)[0]


def _text_and_others(events: Sequence[RunEvent]) -> tuple[str, Sequence[RunEvent]]:
    """Return the text of ``events``, joined, and the events that are no text."""
    end = len(events)
    while end and type(events[end - 1]) is not str:
        end -= 1
    try:
        # Most runs have text, and then their usage. Looking at the type of each event takes ten times as long.
        return "".join(events[:end]), events[end:]  # type: ignore[arg-type]
    except TypeError:
        texts = [event for event in events if type(event) is str]
        return "".join(texts), [event for event in events if type(event) is not str]


def assemble(events: Sequence[RunEvent]) -> Assembled:
    """Put a run's events together."""
    reasoning: list[str] = []
    refusal: list[str] = []
    calls: dict[int, _CallBuilder] = {}
    usage = Usage()
    text, others = _text_and_others(events)
    for event in others:
        match event:
            case ReasoningDelta():
                reasoning.append(event.text)
            case RefusalDelta():
                refusal.append(event.text)
            case ToolCallDelta():
                calls.setdefault(event.index, _CallBuilder()).add(event)
            case UsageUpdate():
                usage = event.usage
    return Assembled(
        text=text,
        reasoning="".join(reasoning),
        refusal="".join(refusal),
        tool_calls=[calls[index].build() for index in sorted(calls)],
        usage=usage,
    )


def finished_result(
    facts: ResultFacts,
    events: Sequence[RunEvent],
    finished: Finished,
    *,
    aborted: bool | None,
    cost: float | None = None,
) -> RunLocalResult:
    """Return the result of a run that the provider finished. Returns a StreamResult unless ``aborted`` is None.

    ``cost``: in US dollars, None if it is not known. Raises InvalidArgumentsError where the arguments of a complete tool
    call are not a JSON object.
    """
    calls: list[ToolCall] = []
    incomplete: list[IncompleteToolCall] = []
    if finished.tool_calls:
        cut = finished.finish_reason in _CUT
        calls, incomplete = parse_tool_calls(finished.tool_calls, may_be_cut=cut or bool(aborted))
    message = finished.message
    if not events and message is not None:
        text, reasoning, refusal = message.text, _message_reasoning(message), finished.refusal or None
    else:
        assembled = assemble(events)
        text = assembled.text if message is None or events else message.text
        reasoning = assembled.reasoning or _message_reasoning(message)
        refusal = finished.refusal or assembled.refusal or None
        message = message or assembled_message(text, reasoning, calls)
    shared: dict[str, Any] = {} if aborted is None else {"aborted": aborted}
    kind: type[RunLocalResult] = RunLocalResult if aborted is None else StreamResult
    return kind(
        text=text,
        span_id=facts.span_id,
        trace_id=facts.trace_id,
        latency_ms=facts.latency_ms,
        usage=finished.usage,
        cost=cost,
        provider=facts.provider,
        model=finished.model or facts.model,
        tool_calls=calls,
        incomplete_tool_calls=incomplete,
        finish_reason=finished.finish_reason,
        provider_finish_reason=finished.provider_finish_reason,
        message=message,
        reasoning=reasoning,
        refusal=refusal,
        attempts=facts.attempts,
        wire_format=finished.wire_format,
        logprobs=finished.logprobs,
        queue_ms=facts.queue_ms,
        queue_reason=facts.queue_reason,
        **shared,
    )


def embedding_result(facts: ResultFacts, finished: Finished, cost: float | None = None) -> RunEmbeddingResult:
    """Return the result of an embedding run."""
    return RunEmbeddingResult(
        embeddings=finished.vectors or [],
        span_id=facts.span_id,
        trace_id=facts.trace_id,
        latency_ms=facts.latency_ms,
        usage=finished.usage,
        cost=cost,
        provider=facts.provider,
        model=finished.model or facts.model,
        attempts=facts.attempts,
        queue_ms=facts.queue_ms,
        queue_reason=facts.queue_reason,
    )


def aborted_result(facts: ResultFacts, events: Sequence[RunEvent], ended: Aborted | None) -> RunLocalResult:
    """Return the result of an aborted stream, with the events that had arrived.

    ``ended`` is the worker's last message, if any.
    """
    assembled = assemble(events)
    calls, incomplete = parse_tool_calls(assembled.tool_calls, may_be_cut=True)
    usage = ended.usage if ended is not None and ended.usage.source != "none" else assembled.usage
    if usage.source == "provider" and ended is None:
        usage = msgspec.structs.replace(usage, source="partial")
    return StreamResult(
        text=assembled.text,
        span_id=facts.span_id,
        trace_id=facts.trace_id,
        latency_ms=facts.latency_ms,
        usage=usage,
        cost=None,
        provider=facts.provider,
        model=facts.model,
        tool_calls=calls,
        incomplete_tool_calls=incomplete,
        finish_reason=None,
        provider_finish_reason=None,
        message=assembled_message(assembled.text, assembled.reasoning, calls),
        reasoning=assembled.reasoning,
        refusal=assembled.refusal or None,
        attempts=facts.attempts,
        wire_format=None if ended is None else ended.wire_format,
        queue_ms=facts.queue_ms,
        queue_reason=facts.queue_reason,
        aborted=True,
    )


def parse_tool_calls(
    calls: Sequence[ToolCallText], *, may_be_cut: bool
) -> tuple[list[ToolCall], list[IncompleteToolCall]]:
    """Return the complete calls, and the incomplete calls.

    Arguments that are not a JSON object make a call incomplete if ``may_be_cut``; else they raise
    InvalidArgumentsError.
    """
    complete: list[ToolCall] = []
    incomplete: list[IncompleteToolCall] = []
    for call in calls:
        arguments = read_arguments(call.arguments)
        if arguments is not None:
            complete.append(ToolCall(call.id, call.name, arguments))
        elif may_be_cut:
            incomplete.append(IncompleteToolCall(call.id, call.name, call.arguments))
        else:
            raise InvalidArgumentsError(call.name, call.arguments)
    return complete, incomplete


def assembled_message(text: str, reasoning: str, calls: Sequence[ToolCall]) -> Message:
    """Return the assistant's message. Its content is a str where there is text only."""
    if not calls and not reasoning:
        return Message(role="assistant", content=text)
    parts: list[Part] = []
    if reasoning:
        parts.append(ReasoningPart(reasoning))
    if text:
        parts.append(TextPart(text))
    parts.extend(ToolCallPart(call.id, call.name, sendable(call.arguments)) for call in calls)
    return Message(role="assistant", content=parts)


def _message_reasoning(message: Message | None) -> str:
    if message is None or isinstance(message.content, str):
        return ""
    return "".join(part.text for part in message.content if isinstance(part, ReasoningPart))


class _CallBuilder:
    """Joins the pieces of one tool call."""

    __slots__ = ("_arguments", "_id", "_name")

    def __init__(self) -> None:
        self._id = ""
        self._name = ""
        self._arguments: list[str] = []

    def add(self, delta: ToolCallDelta) -> None:
        self._id = delta.id or self._id
        self._name = delta.name or self._name
        self._arguments.append(delta.arguments)

    def build(self) -> ToolCallText:
        return ToolCallText(self._id, self._name, "".join(self._arguments))
