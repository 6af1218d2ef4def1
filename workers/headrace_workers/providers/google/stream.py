"""Maps responses of Gemini's ``streamGenerateContent`` to run events. Pure.

A stream has no terminal event. It is whole if the body has ended after a finish reason, or after a blocked prompt. A
response may stop with the reason CONTINUATION; then another request continues it, and the same mapper reads both
responses.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.types import FinishReason, ReasoningDelta, RunEvent, Usage, UsageUpdate
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.google import errors as google_errors
from headrace_workers.providers.google.answer import GeminiAnswer
from headrace_workers.providers.google.chunks import (
    READ_KEYS,
    Candidate,
    GeminiChunk,
    GeminiPart,
    UsageMetadata,
    added,
    decode,
    decode_leniently,
    has_no_content,
    kept_part,
    read_usage,
)
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import KeptMemory
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_name, as_text, loads, may_hold_halves
from headrace_workers.providers.shared.provider_errors import is_error
from headrace_workers.providers.shared.request_parts import wants_several
from headrace_workers.providers.shared.unread_content import fail, is_other, refuse_content, text_in
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ProviderFailedError,
)

_CONTINUATION = "CONTINUATION"
_UNSPECIFIED = ("FINISH_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED")

_FINISH_REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "max_tokens",
    _CONTINUATION: "max_tokens",  # if the response is not continued
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "ESCALATION": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
    "OTHER": "error",
    "IMAGE_OTHER": "error",
    "NO_IMAGE": "error",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
    "PUP_LIMITED_DISABLED": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "UNEXPECTED_TOOL_CALL": "error",
}

# Finish reasons are numbers if the query has `$alt=json;enum-encoding=int`, as in requests of Vertex's own client.
# Higher numbers have different meanings in Google's two APIs.
_FINISH_NUMBERS = ("", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER")
_BLOCK_NUMBERS = ("", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT")


class GoogleMapper:
    """Maps one response, and the responses that continue it.

    ``is_complete`` stays False: only the end of the body completes it. ``continuation`` is valid only after the end of
    the body, because tokens also arrive as checkpoints within a response.
    """

    __slots__ = (
        "_answer",
        "_are_alternatives",
        "_block_word",
        "_earlier",
        "_finish_word",
        "_kept",
        "_model",
        "_needs_message",
        "_other_word",
        "_others",
        "_requested_model",
        "_response_id",
        "_resumed_by",
        "continuation",
        "has_split_characters",
        "is_weighed",
        "response_id",
        "usage",
    )

    is_complete = False

    def __init__(self, request: RunRequest, *, needs_message: bool = False) -> None:
        self.usage = Usage()
        self.has_split_characters = False
        self.is_weighed = False  # whether all of it came in one body, which was weighed already
        self.continuation: str | None = None
        self.response_id: str | None = None
        self._are_alternatives = wants_several(request)
        self._others: dict[str, list[GeminiPart]] = {}
        self._other_word = ""
        self._needs_message = needs_message or not request.stream
        self._requested_model = request.model
        self._model = ""
        self._answer = GeminiAnswer()
        self._finish_word = ""
        self._block_word = ""
        self._earlier: Usage | None = None  # usage of the earlier requests that this one continues
        self._kept = KeptMemory()
        self._response_id: Any = None  # the id of the response that the token came in
        self._resumed_by: str | None = None

    @property
    def has_end(self) -> bool:
        """Whether the response has a finish reason, or the prompt was blocked."""
        return bool(self._finish_word or self._block_word)

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Read one server-sent event; see :meth:`StreamMapper.feed`."""
        try:
            chunk = decode(data)
        except UNREADABLE:
            for odd in self._read_odd(data):
                self.take(odd, data, events)
            return
        if name == "error":
            chunk.error = chunk.error or _loaded(data)
        self.take(chunk, data, events)

    def take(self, chunk: GeminiChunk, data: bytes, events: list[RunEvent]) -> None:
        """Map one decoded response; ``chunk`` was decoded from ``data``."""
        if self.continuation is not None:
            self._look_for_next_response(chunk)
        if chunk.candidates:
            self._take_candidates(chunk.candidates, chunk, data, events)
        if not self._model:
            self._model = as_name(chunk.model_version)
            self.response_id = as_name(chunk.response_id) or self.response_id
        if chunk.usage_metadata is not None:
            self._take_usage(chunk.usage_metadata, events)
        if chunk.error or not chunk.candidates:
            self._take_envelope(chunk, data)

    def _take_candidates(
        self, candidates: list[Candidate | None], chunk: GeminiChunk, data: bytes, events: list[RunEvent]
    ) -> None:
        is_doubtful = False
        for candidate in candidates:
            if candidate is None:
                continue
            if candidate.index and is_other(candidate.index):
                self._take_other(candidate)
            elif self._take_candidate(candidate, chunk, events):
                is_doubtful = True
        if self._answer.keeps_more:
            self._answer.keeps_more = False
            self._kept.add(data)
        if is_doubtful:
            refuse_content(_without_read_parts(_loaded(data)), "an event")

    def finish(self, events: list[RunEvent] | None = None) -> Completion:
        """Return the complete answer; see :meth:`StreamMapper.finish`."""
        self._add_others([] if events is None else events)
        word = self._finish_word or self._block_word
        if not word:
            raise failures.protocol_failure("the stream ended without finish reason")
        if self.usage.source == "partial":
            self.usage = msgspec.structs.replace(self.usage, source="provider")
        has_message = self._needs_message or self._answer.is_opaque
        return Completion(
            finish_reason=self._finish_reason(),
            provider_finish_reason=word,
            usage=self.usage,
            tool_calls=self._answer.tool_calls(),
            model=self._model or self._requested_model,
            message=self._answer.message(is_weighed=self.is_weighed) if has_message else None,
            response_id=self.response_id,
        )

    def _read_odd(self, data: bytes) -> list[GeminiChunk]:
        """Read an event that the fast decoder refused: JSON with mistakes, or an array of responses."""
        data = data.strip()
        self.has_split_characters = self.has_split_characters or may_hold_halves(data)
        self._kept.add_halves(data)
        if not data or data == b"[DONE]":
            return []
        try:
            return decode_leniently(data)
        except ValueError:
            if self._finish_word and self._finish_word != _CONTINUATION:
                # The answer has ended. An unreadable event does no harm, unless it has more content.
                refuse_content(_loaded(data), "an event")
                return []
            reason = f"an event of {len(data)} bytes is not a Gemini response in JSON"
            raise failures.protocol_failure(reason) from None

    def _take_candidate(self, candidate: Candidate, chunk: GeminiChunk, events: list[RunEvent]) -> bool:
        """Take a piece of the answer. Return whether it has a part of an unknown kind."""
        is_doubtful = False
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                if part is not None:
                    self._take_part(part, events)
                    if not part.text:
                        is_doubtful = is_doubtful or (part.function_call is None and not has_no_content(part))
        if candidate.grounding_metadata or candidate.url_context_metadata or candidate.citation_metadata:
            self._answer.cite(candidate)
        if candidate.finish_reason or candidate.continuation_token:
            self._take_end(candidate, chunk, events)
        return is_doubtful

    def _take_other(self, candidate: Candidate) -> None:
        """Take a piece of another candidate than the first. It is kept until the end shows what the first one lacks."""
        self._answer.keeps_more = True
        parts = self._others.setdefault(as_name(candidate.index), [])
        if candidate.content is not None:
            parts += [part for part in candidate.content.parts or () if part is not None]
        self._other_word = _word(candidate.finish_reason) or self._other_word

    def _add_others(self, events: list[RunEvent]) -> None:
        """End the answer: add what other candidates have and the first one lacks."""
        has_text = self._answer.has_text
        for parts in self._others.values():
            says_text = any(part.text and not part.thought for part in parts)
            if self._are_alternatives:
                continue
            if has_text and says_text:
                if not (self._other_word and self._finish_word):
                    fail("two candidates hold text, but not both have a finish reason: they may be parts of one answer")
                continue
            for part in parts:
                self._take_part(part, events)
            has_text = has_text or says_text
            self._finish_word = self._finish_word or self._other_word
        self._others.clear()

    def _take_part(self, part: GeminiPart, events: list[RunEvent]) -> None:
        # The hot path: a part that has text and nothing else.
        text = part.text
        if type(text) is not str:
            if (own := kept_part(part)) is not None:
                self._answer.keep(own)
                return
            text = text_in(text, "the text of a part")
        if part.thought_signature or part.function_call is not None:
            self._take_signed(part, text, events)
        elif text and part.thought:
            self._answer.think(text)
        elif text:
            self._answer.say(text)
        if text:
            events.append(ReasoningDelta(text) if part.thought else text)

    def _take_signed(self, part: GeminiPart, text: str, events: list[RunEvent]) -> None:
        signature = as_text(part.thought_signature)
        if part.function_call is None:
            self._answer.sign(text, signature, is_thought=bool(part.thought))
            return
        if text:
            (self._answer.think if part.thought else self._answer.say)(text)
        self._answer.call(part.function_call, signature, events)

    def _take_end(self, candidate: Candidate, chunk: GeminiChunk, events: list[RunEvent]) -> None:
        word, token = _word(candidate.finish_reason), as_text(candidate.continuation_token)
        if word:
            self._finish_word = word
            if word != _CONTINUATION:
                self.continuation = None
                self._answer.close_call(events, is_cut=word == "MAX_TOKENS")
                return
        # The same token again would only bring the same response again.
        if token and token != self._resumed_by:
            self.continuation = token
            self._response_id = chunk.response_id

    def _look_for_next_response(self, chunk: GeminiChunk) -> None:
        """Find out whether the continued response has begun, or the response with the token goes on."""
        speaks = any(candidate is not None and not candidate.index for candidate in chunk.candidates or ())
        is_next = chunk.response_id != self._response_id if chunk.response_id else False
        if is_next or (speaks and self._finish_word == _CONTINUATION):
            self._resumed_by = self.continuation
            self._earlier = self.usage
            self._finish_word = ""
            self.continuation = None
        elif speaks:
            self.continuation = None  # the token was a checkpoint, and the response has gone on

    def _take_usage(self, said: UsageMetadata, events: list[RunEvent]) -> None:
        usage = read_usage(said, is_final=bool(self._finish_word) and self._finish_word != _CONTINUATION)
        if usage is None:
            return
        if self._earlier is not None:
            usage = added(self._earlier, usage)
        if usage != self.usage:
            self.usage = usage
            events.append(UsageUpdate(usage))

    def _take_envelope(self, chunk: GeminiChunk, data: bytes) -> None:
        """Take a response without candidates: a blocked prompt, or an error."""
        if chunk.prompt_feedback is not None:
            self._block_word = _word(chunk.prompt_feedback.block_reason, _BLOCK_NUMBERS)
        error = chunk.error
        if not error and chunk.candidates is None and chunk.usage_metadata is None:
            whole = _loaded(data)
            error = whole if is_error(whole) else None
            if error is None and chunk.prompt_feedback is None:
                refuse_content(whole, "an event")
        if error:
            raise ProviderFailedError(google_errors.failure_in_stream(error))

    def _finish_reason(self) -> FinishReason:
        if not self._finish_word:
            return "content_filter"
        reason = _FINISH_REASONS.get(self._finish_word.upper(), "stop")
        # Google has no finish reason of its own for an answer with function calls.
        return "tool_calls" if reason == "stop" and self._answer.has_calls else reason


def _word(value: Any, numbers: tuple[str, ...] = _FINISH_NUMBERS) -> str:
    """Return a finish reason; an empty text if it means: not finished.

    ``numbers`` are the words for numbers, from 0 on.
    """
    if type(value) is int:
        return numbers[value] if 0 <= value < len(numbers) else ""
    word = as_name(value).strip() if isinstance(value, str) else ""
    return "" if word in _UNSPECIFIED or word.lower() in {"null", "none"} else word


def _without_read_parts(whole: Any) -> Any:
    """Return a response without the parts that were read: text, and parts of KEPT_KINDS."""
    if isinstance(whole, list):
        return [_without_read_parts(item) for item in whole]
    if not isinstance(whole, dict):
        return whole
    if isinstance(whole.get("parts"), list):
        unread = [part for part in whole["parts"] if not isinstance(part, dict) or READ_KEYS.isdisjoint(part)]
        return whole | {"parts": unread}
    return {key: _without_read_parts(value) for key, value in whole.items()}


def _loaded(data: bytes) -> Any:
    try:
        return loads(data)
    except ValueError:
        return None
