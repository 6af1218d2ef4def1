"""Maps Chat Completions responses, of OpenAI and of compatible servers, to run events. Pure.

A stream must have an end. In everything else that vendors vary, the mapper is lenient.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.assembly import joined_text
from headrace.types import FinishReason, RunEvent, Usage, UsageUpdate
from headrace_workers.providers.openai_chat.answer import ChatAnswer
from headrace_workers.providers.openai_chat.chunks import (
    ChatChoice,
    ChatChunk,
    ChatDelta,
    decode,
    decode_leniently,
    groq_part,
    is_silent,
    plain_text,
)
from headrace_workers.providers.openai_chat.errors import check_for_error
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import KeptMemory, too_large
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_name, may_hold_halves, read_object
from headrace_workers.providers.shared.text_span import TextSpan, span_of_text, strings_of
from headrace_workers.providers.shared.unread_content import fail, is_other, refuse_content
from headrace_workers.providers.shared.usage_counts import read_usage
from headrace_workers.providers.shared.wire_format import (
    CUT_REASONS,
    Completion,
    ProviderFailedError,
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
    "malformed_function_call": "error",
}


_CONTENTS = strings_of("content")

_ANSWER_BYTES = 2048
_MAX_CHOICES = 128
"""Choices with whole messages in one body, or in one event of a stream."""

_NO_END = ("", "null", "none")
"""Values of ``finish_reason`` that mean: not finished. Any other unknown word is a stop."""


class ChatMapper:
    """Maps one response. ``is_complete`` is True after ``[DONE]``.

    A finish reason does not complete a stream, because usage may follow it. Of several choices, the first is the run's
    answer. The others are kept until the end, because some gateways put the text into one choice and the calls into
    another.
    """

    __slots__ = (
        "_answer",
        "_are_alternatives",
        "_audio_type",
        "_finish_word",
        "_keeps_more",
        "_keeps_text",
        "_kept",
        "_model",
        "_others",
        "_requested_model",
        "_text",
        "has_split_characters",
        "is_complete",
        "response_id",
        "usage",
    )

    continuation: str | None = None

    def __init__(self, requested_model: str, *, are_alternatives: bool = False, audio_type: str = "audio/wav") -> None:
        self.usage = Usage()
        self.is_complete = False
        self.has_split_characters = False
        self.response_id: str | None = None
        self._requested_model = requested_model
        # Whether the caller asked for several answers, so that further choices are not parts of the first.
        self._are_alternatives = are_alternatives
        self._audio_type = audio_type  # the type of audio that the caller asked for
        self._model = ""
        self._answer = ChatAnswer()
        self._text = self._answer.text
        self._others: dict[str, ChatAnswer] = {}
        self._finish_word = FinishWord()
        self._kept = KeptMemory()
        # Whether the event has something that is kept beside text; and whether it has text of another choice.
        self._keeps_more = self._keeps_text = False

    @property
    def has_end(self) -> bool:
        """Whether the response has a finish reason."""
        return bool(self._finish_word.word)

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Read one server-sent event; see :meth:`StreamMapper.feed`."""
        try:
            chunk = decode(data)
        except UNREADABLE:
            odd = self._read_odd(data, events)
            if odd is None:
                return
            chunk = odd
        before = len(events)
        for choice in chunk.choices or ():
            if choice is not None:
                self._take_choice(choice, chunk, events)
        if self._keeps_more or self._keeps_text:
            self._keep(data)
        if not self._model:
            self._take_names(chunk)
        if chunk.usage or chunk.x_groq or chunk.error or name or not chunk.choices:
            self._take_envelope(name, chunk, data, events)
        if len(events) == before and not self._others and chunk.choices and not is_silent(data):
            # Whole messages were read already, and may have nothing new.
            choices = read_object(data).get("choices")
            unread = [choice | {"message": None} for choice in choices if isinstance(choice, dict)] if choices else None
            refuse_content(unread, "an event")

    def text_span(self, name: str, data: bytes) -> TextSpan | None:
        """Return where the text of a plain delta stands; see :meth:`RepeatingMapper.text_span`."""
        if name or not self._model or self.is_complete:
            return None
        return span_of_text(data, _CONTENTS, plain_text, self._text)

    def finish(self, events: list[RunEvent] | None = None) -> Completion:
        """Return the complete answer; see :meth:`StreamMapper.finish`."""
        if not (self.is_complete or self.has_end):
            raise failures.protocol_failure("the stream ended without finish reason")
        self._close([] if events is None else events)
        return self._completion(with_message=self._answer.is_opaque)

    def read_whole(self, chunk: ChatChunk, body: bytes) -> Completion:
        """Read a response that came in one piece; ``chunk`` was decoded from ``body``."""
        events: list[RunEvent] = []
        try:
            self._read_choices(chunk, body, events)
        except ProviderFailedError as error:
            error.partial_text = error.partial_text or joined_text(events)
            raise
        self._close(events)
        return self._completion(with_message=True)

    def _read_choices(self, chunk: ChatChunk, body: bytes, events: list[RunEvent]) -> None:
        choices = [choice for choice in chunk.choices or [] if choice is not None]
        if len(choices) > _MAX_CHOICES:
            raise too_large(f"{_MAX_CHOICES} choices")
        if len(choices) > 1:
            choices.sort(key=lambda choice: choice.index if isinstance(choice.index, int) else 0)
        self._take_names(chunk)
        for choice in choices:
            self._take_end(choice, chunk)
        self._take_envelope("", chunk, body, events)
        for place, choice in enumerate(choices):
            answer = self._answer if not place else self._others.setdefault(str(place), ChatAnswer())
            answer.has_end = True
            message = choice.message or choice.delta
            if message is not None:
                answer.take(message, events if not place else [], is_whole=True)
            elif choice.text:
                answer.take_content(choice.text, events if not place else [])
            elif not place and self._finish_word.reason != "content_filter":
                raise failures.protocol_failure("the response holds no message")
        if not choices:
            raise failures.protocol_failure("the response holds no message")

    def _take_names(self, chunk: ChatChunk) -> None:
        self._model = as_name(chunk.model)
        self.response_id = as_name(chunk.id) or self.response_id

    def _keep(self, data: bytes) -> None:
        """Count the memory of an event's data that is kept: other choices, and what is no text."""
        if self._keeps_more:
            self._kept.add(data)
        else:
            self._kept.add_bytes(2 * len(data))  # the text of other choices is joined at the end, beside its pieces
        self._keeps_more = self._keeps_text = False

    def _take_choice(self, choice: ChatChoice, chunk: ChatChunk, events: list[RunEvent]) -> None:
        if choice.index and is_other(choice.index):
            self._take_other(choice, chunk)
            return
        # The hot path: a delta with text and nothing else.
        delta = choice.delta
        if delta is not None:
            if delta.reasoning_content or delta.reasoning or delta.reasoning_details or delta.thinking:
                self._keeps_more = self._keeps_more or bool(delta.reasoning_details)
                self._answer.take_reasoning(delta, events)
            if (
                delta.refusal
                or delta.tool_calls
                or delta.function_call
                or delta.audio
                or delta.annotations
                or delta.images
            ):
                self._keeps_more = self._keeps_more or bool(delta.annotations or delta.audio or delta.images)
                self._answer.take_rest(delta, events)
            content = delta.content
            if content and type(content) is str:
                self._text.append(content)
                events.append(content)
            elif content:
                self._answer.take_content(content, events)
        elif choice.text:
            self._answer.take_content(choice.text, events)
        if choice.message is not None:
            self._take_message(choice.message, chunk, events, beside=delta)
        if choice.finish_reason or choice.error:
            self._take_end(choice, chunk)

    def _take_message(
        self, message: ChatDelta, chunk: ChatChunk, events: list[RunEvent], *, beside: ChatDelta | None
    ) -> None:
        """Take a whole message after its pieces, and compare it with them."""
        if len(chunk.choices or ()) > _MAX_CHOICES:
            raise too_large(f"{_MAX_CHOICES} choices")
        self._keeps_more = True
        self._answer.rest_of(message, events, beside=beside)

    def _take_other(self, choice: ChatChoice, chunk: ChatChunk) -> None:
        """Take a piece of another choice than the first. It is kept until the end shows what the first choice lacks."""
        key = as_name(choice.index)
        answer = self._others.get(key)
        if answer is None:
            self._kept.add_bytes(_ANSWER_BYTES)
            answer = self._others[key] = ChatAnswer()
        delta = choice.delta
        if delta is not None:
            has_lists = isinstance(delta.content, list) or isinstance(delta.refusal, list)
            has_media = delta.audio or delta.images
            is_text = not (has_lists or delta.reasoning_details or delta.annotations or delta.tool_calls or has_media)
            self._keeps_text, self._keeps_more = True, self._keeps_more or not is_text
            answer.take(delta, [])
        if choice.message is not None:
            self._keeps_more = True
            answer.rest_of(choice.message, [], beside=choice.delta)
        if choice.finish_reason or choice.error:
            self._take_end(choice, chunk)
            answer.has_end = bool(_word(choice.finish_reason))

    def _take_end(self, choice: ChatChoice, chunk: ChatChunk) -> None:
        is_first = not is_other(choice.index)
        self._finish_word.take(choice, is_first=is_first)
        if is_first and _word(choice.finish_reason):
            self._answer.has_end = True
        chunk.error = chunk.error or choice.error

    def _close(self, events: list[RunEvent]) -> None:
        """End the answer: add what other choices have and the first one lacks."""
        for answer in self._others.values():
            if self._are_alternatives:
                continue
            if not (self._text and answer.text):
                self._answer.add(answer, events)
            elif not (answer.has_end and self._answer.has_end):
                fail("two choices hold text, but not both have a finish reason: they may be parts of one answer")
        self._others.clear()
        if self._answer.calls:
            self._answer.calls.end(events, is_cut=self._finish_word.is_cut)

    def _read_odd(self, data: bytes, events: list[RunEvent]) -> ChatChunk | None:
        """Read an event that the fast decoder refused. Return None if it has no chunk."""
        data = data.strip()
        self.has_split_characters = self.has_split_characters or may_hold_halves(data)
        self._kept.add_halves(data)
        if data == b"[DONE]":
            self.is_complete = True
            self._close(events)
        if not data or self.is_complete:
            return None
        try:
            return decode_leniently(data)
        except ValueError:
            if self.has_end:
                # The answer has ended. An unreadable event does no harm, unless it has more content.
                refuse_content(read_object(data), "an event")
                return None
            raise failures.protocol_failure(f"an event of {len(data)} bytes is not a chunk in JSON") from None

    def _take_envelope(self, name: str, chunk: ChatChunk, data: bytes, events: list[RunEvent]) -> None:
        """Take what a chunk has beside its choices: usage, or an error."""
        self._take_usage(chunk.usage or groq_part(chunk).get("usage"), events)
        check_for_error(name, chunk, data)

    def _take_usage(self, said: Any, events: list[RunEvent]) -> None:
        if not isinstance(said, dict) or not said:
            return
        usage = read_usage(said, is_final=self.has_end)
        if usage != self.usage:
            self.usage = usage
            events.append(UsageUpdate(usage))

    def _completion(self, *, with_message: bool) -> Completion:
        if self.usage.source == "partial":
            self.usage = msgspec.structs.replace(self.usage, source="provider")
        answer, end = self._answer, self._finish_word
        reason = end.reason
        is_cut = reason in CUT_REASONS
        if reason == "stop" and answer.refusal:
            reason = "content_filter"
        elif reason == "stop" and answer.calls:
            reason = "tool_calls"  # some vendors finish with stop after tool calls
        return Completion(
            finish_reason=reason,
            provider_finish_reason=end.word or None,
            usage=self.usage,
            tool_calls=answer.calls.complete(is_cut=is_cut),
            model=self._model or self._requested_model,
            message=answer.message(is_cut=is_cut, audio_type=self._audio_type) if with_message else None,
            refusal="".join(answer.refusal) or None,
            response_id=self.response_id,
        )


class FinishWord:
    """The finish reason of a response: of its first choice, else of another choice.

    A gateway may also send the finish reason of the provider behind it (``native_finish_reason``).
    """

    __slots__ = ("_native", "word")

    def __init__(self) -> None:
        self.word = ""
        self._native = ""

    def take(self, choice: ChatChoice, *, is_first: bool) -> None:
        """Take the finish reason of a choice."""
        word, native = _word(choice.finish_reason), _word(choice.native_finish_reason)
        if word and (is_first or not self.word):
            self.word = word
        self._native = native or self._native

    @property
    def reason(self) -> FinishReason:
        """Headrace's finish reason. A gateway may say ``stop`` for an answer that the provider behind it cut."""
        reason = _FINISH_REASONS.get(self.word.lower(), "stop")
        native = _FINISH_REASONS.get(self._native.lower(), "stop")
        return native if reason in {"stop", "tool_calls"} and native in CUT_REASONS else reason

    @property
    def is_cut(self) -> bool:
        """Whether the last tool call may be incomplete."""
        return self.reason in CUT_REASONS


def _word(value: Any) -> str:
    """Return a finish reason; an empty text if it means: not finished."""
    word = as_name(value).strip() if isinstance(value, str) else ""
    return "" if word.lower() in _NO_END else word
