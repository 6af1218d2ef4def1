"""OpenAI Chat Completions, and the many servers that speak it with an accent: maps its responses to run events.

Never does I/O. Strict about what a stream must bring (an end), lenient about everything that vendors vary.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.tool_arguments import read_arguments
from headrace.types import (
    FinishReason,
    Message,
    Part,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEvent,
    TextPart,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import ToolCallText
from headrace.wire.request import RunRequest
from headrace_workers.providers import failures, openai_request
from headrace_workers.providers.failures import is_error
from headrace_workers.providers.lenient import UNREADABLE, as_text, may_hold_halves, read_object
from headrace_workers.providers.openai_calls import ToolCalls
from headrace_workers.providers.openai_chunks import (
    Choice,
    Chunk,
    Delta,
    decode,
    decode_leniently,
    joined,
    read_usage,
)
from headrace_workers.providers.protocol import (
    Completion,
    HttpRequest,
    ProviderFailedError,
    ProviderFailure,
    ProviderSettings,
)

_FINISH_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "max_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "model_length": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "refusal": "content_filter",
    "error": "error",
    "network_error": "error",
    "insufficient_system_resource": "error",
    "abort": "error",
}


_TEXT_OF_DETAIL = {"reasoning.text": "text", "reasoning.summary": "summary"}


class OpenAIChat:
    """The wire format ``openai-chat``."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the request to send; raise ProviderFailedError (``invalid_request``) for what the API cannot do."""
        return openai_request.build_request(request, settings, api_key)

    def open_stream(self, request: RunRequest) -> ChatMapper:
        """Return a mapper for one streamed response."""
        return ChatMapper(request.model)

    def continue_request(self, sent: HttpRequest, token: str) -> HttpRequest:  # noqa: ARG002 - the protocol's form
        """Return ``sent``: this API never stops in the middle to be asked again."""
        return sent

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Map a whole JSON response with status 200; raise ProviderFailedError where it is an error or none of ours."""
        try:
            chunk = decode_leniently(body)
        except ValueError:
            reason = f"the response is not a chat completion but {failures.describe(body)}"
            raise failures.protocol_failure(reason) from None
        return ChatMapper(request.model).read_whole(chunk, body)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Return the failure that a response with another status says. ``headers`` has lower-case names."""
        return failures.read_error(status, headers, body)


class ChatMapper:
    """Maps one response. ``usage`` is the best known so far, ``is_complete`` says that ``[DONE]`` was seen.

    A finish reason does not complete a stream: usage may still follow it.
    """

    __slots__ = (
        "_calls",
        "_finish_word",
        "_model",
        "_reasoning",
        "_reasoning_details",
        "_reasoning_field",
        "_refusal",
        "_requested_model",
        "_text",
        "has_halves",
        "is_complete",
        "response_id",
        "usage",
    )

    continuation: str | None = None

    def __init__(self, requested_model: str) -> None:
        self.usage = Usage()
        self.is_complete = False
        self.has_halves = False
        self.response_id: str | None = None
        self._requested_model = requested_model
        self._model = ""
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._reasoning_field = ""
        self._reasoning_details: list[dict[str, Any]] = []
        self._refusal: list[str] = []
        self._calls = ToolCalls()
        self._finish_word = ""

    @property
    def has_end(self) -> bool:
        """Whether the response told why it ends."""
        return bool(self._finish_word)

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Append to ``events`` what one server-sent event says; raise ProviderFailedError when it says failure."""
        try:
            chunk = decode(data)
        except UNREADABLE:
            odd = self._read_odd(data)
            if odd is None:
                return
            chunk = odd
        for choice in chunk.choices or ():
            # Of several choices the first is the run's.
            if choice is not None and not choice.index:
                self._take_choice(choice, chunk, events)
        if not self._model:
            self._take_names(chunk)
        if chunk.usage or chunk.x_groq or chunk.error or name or chunk.choices is None:
            self._take_envelope(name, chunk, data, events)

    def finish(self, events: list[RunEvent] | None = None) -> Completion:  # noqa: ARG002 - the protocol's form
        """Return the whole; raise ProviderFailedError (``provider_protocol``) when the stream was cut."""
        if not (self.is_complete or self._finish_word):
            raise failures.protocol_failure("the stream ended without finish reason")
        return self._completion(self._message() if self._opaque() else None)

    def read_whole(self, chunk: Chunk, body: bytes) -> Completion:
        """Map a response that came in one piece; ``body`` is where ``chunk`` was decoded from."""
        events: list[RunEvent] = []
        choice = next((choice for choice in chunk.choices or [] if choice is not None), None)
        self._take_names(chunk)
        if choice is not None:
            self._finish_word = as_text(choice.finish_reason)
            chunk.error = chunk.error or choice.error
        self._take_envelope("", chunk, body, events)
        if choice is None or choice.message is None:
            raise failures.protocol_failure("the response holds no message")
        self._take_reasoning(choice.message, events)
        self._take_content(choice.message.content, events)
        self._take_rest(choice.message, events, is_whole=True)
        return self._completion(self._message())

    def _take_names(self, chunk: Chunk) -> None:
        self._model = as_text(chunk.model)
        self.response_id = as_text(chunk.id) or self.response_id

    def _take_choice(self, choice: Choice, chunk: Chunk, events: list[RunEvent]) -> None:
        # The hot path of the product: a delta with text and nothing else.
        delta = choice.delta
        if delta is not None:
            if delta.reasoning_content or delta.reasoning or delta.reasoning_details:
                self._take_reasoning(delta, events)
            if delta.refusal or delta.tool_calls:
                self._take_rest(delta, events)
            content = delta.content
            if content and type(content) is str:
                self._text.append(content)
                events.append(content)
            elif content:
                self._take_content(content, events)
        if choice.finish_reason or choice.error:
            self._finish_word = as_text(choice.finish_reason) or self._finish_word
            chunk.error = chunk.error or choice.error

    def _read_odd(self, data: bytes) -> Chunk | None:
        """Read what the fast decoder did not take. None: there is nothing in it."""
        data = data.strip()
        self.has_halves = self.has_halves or may_hold_halves(data)
        if data == b"[DONE]":
            self.is_complete = True
        if not data or self.is_complete:
            return None
        try:
            return decode_leniently(data)
        except ValueError:
            if self._finish_word:
                return None  # nothing that is still missing could take back the answer
            raise failures.protocol_failure(f"an event of {len(data)} bytes is not a chunk in JSON") from None

    def _take_content(self, content: Any, events: list[RunEvent]) -> None:
        """Take content that need not be a str: Mistral sends parts, and thinking among them."""
        for part in content if isinstance(content, list) else [content]:
            is_thinking = isinstance(part, dict) and part.get("type") == "thinking"
            text = joined(part.get("thinking")) if is_thinking else joined([part])
            if text and is_thinking:
                self._reasoning.append(text)
                events.append(ReasoningDelta(text))
            elif text:
                self._text.append(text)
                events.append(text)

    def _take_reasoning(self, delta: Delta, events: list[RunEvent]) -> None:
        for field in openai_request.REASONING_FIELDS:
            if reasoning := joined(getattr(delta, field)):
                self._reasoning_field = self._reasoning_field or field
                self._reasoning.append(reasoning)
                events.append(ReasoningDelta(reasoning))
                break  # a vendor that sends both means the same words
        if isinstance(delta.reasoning_details, list):
            for detail in delta.reasoning_details:
                if isinstance(detail, dict):
                    _join_detail(self._reasoning_details, detail)

    def _take_rest(self, delta: Delta, events: list[RunEvent], *, is_whole: bool = False) -> None:
        if refusal := joined(delta.refusal):
            self._refusal.append(refusal)
            events.append(RefusalDelta(refusal))
        if isinstance(delta.tool_calls, list):
            for place, fragment in enumerate(delta.tool_calls):
                self._calls.take(fragment, events, place if is_whole else None)

    def _take_envelope(self, name: str, chunk: Chunk, data: bytes, events: list[RunEvent]) -> None:
        """Take what a chunk says beside its choices: usage, or an error in one of its many forms."""
        groq = chunk.x_groq if isinstance(chunk.x_groq, dict) else {}
        self._take_usage(chunk.usage or groq.get("usage"), events)
        error = chunk.error or groq.get("error")
        if not error and (name == "error" or not chunk.choices):
            whole = read_object(data)
            if name == "error" or is_error(whole):
                error = whole
        if error:
            raise ProviderFailedError(failures.failure_in_stream(error))

    def _take_usage(self, said: Any, events: list[RunEvent]) -> None:
        if not isinstance(said, dict) or not said:
            return
        usage = read_usage(said, is_final=bool(self._finish_word))
        if usage != self.usage:
            self.usage = usage
            events.append(UsageUpdate(usage))

    def _completion(self, message: Message | None) -> Completion:
        if self.usage.source == "partial":
            self.usage = msgspec.structs.replace(self.usage, source="provider")
        reason = _finish_reason(self._finish_word, has_calls=bool(self._calls), is_refused=bool(self._refusal))
        return Completion(
            finish_reason=reason,
            provider_finish_reason=self._finish_word or None,
            usage=self.usage,
            tool_calls=self._calls.complete(is_cut=reason == "max_tokens"),
            model=self._model or self._requested_model,
            message=message,
            refusal="".join(self._refusal) or None,
            response_id=self.response_id,
        )

    def _opaque(self) -> dict[str, Any] | None:
        """Return what tells the request how to send reasoning back: under which field, and what came with it."""
        opaque: dict[str, Any] = {}
        if self._reasoning_field:
            opaque["field"] = self._reasoning_field
        if self._reasoning_details:
            opaque["reasoning_details"] = self._reasoning_details
        return opaque or None

    def _message(self) -> Message:
        parts: list[Part] = []
        opaque = self._opaque()
        if self._reasoning or opaque:
            parts.append(ReasoningPart("".join(self._reasoning), opaque))
        text = "".join(self._text)
        if text:
            parts.append(TextPart(text))
        for call in self._calls.complete(is_cut=False):
            arguments = _arguments(call)
            if arguments is not None:
                parts.append(ToolCallPart(call.id, call.name, arguments))
        is_plain = not parts or (len(parts) == 1 and bool(text))
        return Message("assistant", text if is_plain else parts)


def _join_detail(details: list[dict[str, Any]], detail: dict[str, Any]) -> None:
    """Add a piece of OpenRouter's ``reasoning_details``; text that came in pieces must go back in one."""
    last = details[-1] if details else {}
    field = _TEXT_OF_DETAIL.get(as_text(detail.get("type")))
    same = all(last.get(key) == detail.get(key) for key in ("type", "index"))
    if not (last and field and same) or (last.get("id") and detail.get("id") not in {None, last["id"]}):
        details.append(detail)
        return
    text = as_text(last.get(field)) + as_text(detail.get(field))
    details[-1] = last | {key: value for key, value in detail.items() if value is not None} | {field: text}


def _finish_reason(word: str, *, has_calls: bool, is_refused: bool) -> FinishReason:
    reason = _FINISH_REASONS.get(word.lower(), "stop")
    if reason != "stop":
        return reason
    if is_refused:
        return "content_filter"
    # Some vendors finish with stop after tool calls.
    return "tool_calls" if has_calls else "stop"


def _arguments(call: ToolCallText) -> dict[str, Any] | None:
    return read_arguments(call.arguments)


API = OpenAIChat()
