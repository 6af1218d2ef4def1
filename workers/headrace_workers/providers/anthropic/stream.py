"""Maps responses of the Messages API to run events. Pure.

A stream must have an end. In everything else that compatible servers vary, the mapper is lenient.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.assembly import joined_text
from headrace.types import FinishReason, ReasoningDelta, RunEvent, ToolCallDelta, Usage, UsageUpdate
from headrace_workers.providers.anthropic import errors as anthropic_errors
from headrace_workers.providers.anthropic.blocks import (
    ContentBlock,
    call_id,
    calls_of,
    message_of,
    refuse_unknown,
)
from headrace_workers.providers.anthropic.events import (
    MessageDelta,
    MessageEvent,
    decode,
    decode_leniently,
    plain_text,
)
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import KeptMemory, check_calls, check_parts
from headrace_workers.providers.shared.lenient_json import (
    MAX_COUNT,
    UNREADABLE,
    as_count,
    as_name,
    as_text,
    json_text,
    loads,
    may_hold_halves,
    read_object,
)
from headrace_workers.providers.shared.text_span import TextSpan, span_of_text, strings_of
from headrace_workers.providers.shared.unread_content import elements_of, object_in, refuse_content, text_in
from headrace_workers.providers.shared.usage_counts import server_tool_requests
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ProviderFailedError,
)

_FINISH_REASONS: dict[str, FinishReason] = {
    "tool_use": "tool_calls",
    "max_tokens": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
    "refusal": "content_filter",
}
"""All other words are a stop: end_turn, stop_sequence, and pause_turn. After pause_turn the caller sends the message
back."""

_EVENTS = (
    "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "message_stop", "ping",
    "error",
)  # fmt: skip

_TEXTS = strings_of("text")

_INPUT_COUNTS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_COUNTS = frozenset({*_INPUT_COUNTS, "output_tokens", "thinking_tokens"})


class MessageMapper:
    """Maps one response. ``is_complete`` is True after ``message_stop``.

    ``answer_tool`` is the name of a tool whose input is the text of the answer.
    """

    __slots__ = (
        "_answer",
        "_answer_input",
        "_answer_tool",
        "_at",
        "_blocks",
        "_calls",
        "_closed",
        "_container",
        "_counts",
        "_kept",
        "_model",
        "_refusal",
        "_requested_model",
        "_stop_word",
        "_tool_requests",
        "has_split_characters",
        "is_complete",
        "response_id",
        "usage",
    )

    continuation: str | None = None

    def __init__(self, requested_model: str, answer_tool: str | None = None) -> None:
        self.usage = Usage()
        self.is_complete = False
        self.has_split_characters = False
        self.response_id: str | None = None
        self._requested_model = requested_model
        self._answer_tool = answer_tool
        self._answer: ContentBlock | None = None  # the call whose input is the answer, as a block of text
        self._answer_input: Any = None
        self._model = ""
        self._blocks: list[ContentBlock] = []
        self._at: dict[int | None, ContentBlock] = {}
        self._calls = 0
        self._closed = 0  # the number of blocks at the start that are closed
        self._tool_requests: dict[str, int] = {}
        self._container: dict[str, Any] | None = None
        self._counts: dict[str, int] = {}
        self._stop_word = ""
        self._refusal: str | None = None
        self._kept = KeptMemory()

    @property
    def has_end(self) -> bool:
        """Whether the response has a stop reason."""
        return bool(self._stop_word)

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Read one server-sent event; see :meth:`StreamMapper.feed`."""
        try:
            event = decode(data)
        except UNREADABLE:
            odd = self._read_odd(data)
            if odd is None:
                return
            event = odd
            if event.delta is None:
                refuse_content(_whole(data).get("delta"), "an event")
        delta = event.delta
        if event.type == "content_block_delta" and delta is not None:
            # The hot path: a delta with text and nothing else.
            block, text = self._at.get(event.index), delta.text
            if delta.type == "text_delta" and text and type(text) is str and block is not None:
                block.pieces.append(text)
                events.append(text)
            else:
                self._take_delta(event.index, delta, data, events)
        else:
            kind = event.type if event.type in _EVENTS or not name else name
            if kind == "content_block_delta" and delta is not None:
                self._take_delta(event.index, delta, data, events)
            else:
                self._take_event(kind, event, data, events)

    def text_span(self, name: str, data: bytes) -> TextSpan | None:  # noqa: ARG002 - the type in the data says what it is
        """Return where the text of a plain delta stands; see :meth:`RepeatingMapper.text_span`."""
        try:
            block = self._at.get(decode(data).index)
        except UNREADABLE:
            return None
        return None if block is None else span_of_text(data, _TEXTS, plain_text, block.pieces)

    def finish(self, events: list[RunEvent] | None = None) -> Completion:  # noqa: ARG002 - the protocol's form
        """Return the complete answer; see :meth:`StreamMapper.finish`."""
        if not (self.is_complete or self._stop_word):
            raise failures.protocol_failure("the stream ended before the message was stopped")
        has_opaque = self._container is not None or any(block.opaque() for block in self._blocks)
        return self._completion(with_message=has_opaque)

    def read_whole(self, whole: Any) -> Completion:
        """Read a response that came in one piece."""
        message = whole if isinstance(whole, dict) else {}
        if message.get("type") == "error" or message.get("error"):
            raise ProviderFailedError(anthropic_errors.failure_in_stream(message))
        self._stop_word = _word(message.get("stop_reason"))
        content = message.get("content")
        if not isinstance(content, list) and not (content is None and self._stop_word == "refusal"):
            raise failures.protocol_failure("the response holds no message")
        events: list[RunEvent] = []
        try:
            self._take_start(message, events)
            self._close_all(events)
        except ProviderFailedError as error:
            error.partial_text = joined_text(events)
            raise
        self._take_stop_details(message.get("stop_details"))
        return self._completion(with_message=True, is_weighed=True)

    def _take_message(self, message: dict[str, Any], events: list[RunEvent]) -> None:
        """Take a whole message that a server sends in the place of its events."""
        self._stop_word = _word(message.get("stop_reason")) or self._stop_word
        self._take_start(message, events)
        self._close_all(events)
        self._take_stop_details(message.get("stop_details"))

    def _take_delta(self, index: int | None, delta: MessageDelta, data: bytes, events: list[RunEvent]) -> None:
        kind = delta.type
        if kind == "text_delta":
            piece = delta.text
        elif kind == "thinking_delta":
            piece = delta.thinking
        elif kind == "input_json_delta":
            piece = delta.partial_json
        else:
            self._take_odd_delta(index, data)
            return
        piece = text_in(piece, f"a delta of type {kind}")
        block = self._at.get(index)
        if not piece or (block is None and piece == "{}"):
            return
        if self._answer is not None and block is self._answer:
            kind = "text_delta"
        if block is None or not block.takes(kind):
            block = self._missed(index, kind, events)
        block.pieces.append(piece)
        if kind == "text_delta":
            events.append(piece)
        elif kind == "thinking_delta":
            events.append(ReasoningDelta(piece))
        elif block.call is not None:
            events.append(ToolCallDelta(block.call, arguments=piece))

    def _take_event(self, kind: Any, event: MessageEvent, data: bytes, events: list[RunEvent]) -> None:
        match kind:
            case "content_block_start":
                self._kept.add(data)
                self._open(event.index, event.content_block, events)
            case "content_block_stop":
                self._close(self._at.get(event.index), events)
            case "message_start":
                self._kept.add(data)
                self._take_start(object_in(event.message, "the message that a stream starts with"), events)
            case "message_delta":
                self._close_all(events)
                if event.delta is not None:
                    self._stop_word = _word(event.delta.stop_reason) or self._stop_word
                    self._take_stop_details(event.delta.stop_details)
                    self._take_container(event.delta.container)
                self._take_usage(event.usage, events)
            case "message_stop":
                self._close_all(events)
                self.is_complete = True
            case "message":
                self._kept.add(data)
                self._take_message(_whole(data), events)
            case _ if kind == "error" or event.error:
                raise ProviderFailedError(anthropic_errors.failure_in_stream(_whole(data)))
            case _ if event.index is not None:
                # The API asks its clients to ignore unknown events. But an event of a content block may have content.
                refuse_content(_whole(data), f"an event of type {as_text(kind)}")

    def _take_start(self, message: dict[str, Any], events: list[RunEvent]) -> None:
        self._model = as_name(message.get("model"))
        self.response_id = as_name(message.get("id")) or None
        self._take_container(message.get("container"))
        for index, block in enumerate(elements_of(message.get("content"), "the content of the message")):
            self._open(index, block, events)
        self._take_usage(message.get("usage"), events)

    def _open(self, index: int | None, said: Any, events: list[RunEvent]) -> None:
        """Begin a block. If it has content already, as from some compatible servers, the content is sent on."""
        said = object_in(said, "a content block")
        is_call = said.get("type") == "tool_use"
        if is_call and self._answer_tool is not None and said.get("name") == self._answer_tool:
            self._answer_input = said.get("input") or {}
            said = {"type": "text"}
            block = self._answer = ContentBlock(said)
        else:
            block = ContentBlock(said, self._calls if is_call else None)
        self._blocks.append(block)
        check_parts(len(self._blocks))
        self._at[index] = block
        if block.call is not None:
            self._calls += 1
            check_calls(self._calls)
            name = text_in(said.get("name"), "the name of a tool")
            events.append(ToolCallDelta(block.call, call_id(block), name))
        elif block.kind in {"text", "thinking"}:
            if piece := text_in(said.get(block.kind), f"a block of type {block.kind}"):
                block.pieces.append(piece)
                events.append(piece if block.kind == "text" else ReasoningDelta(piece))
        else:
            refuse_unknown(said)

    def _missed(self, index: int | None, delta_kind: str, events: list[RunEvent]) -> ContentBlock:
        """Begin a block for a delta whose block is missing or of another kind.

        An input without its block is an error.
        """
        kind = {"text_delta": "text", "thinking_delta": "thinking"}.get(delta_kind)
        if kind is None:
            raise failures.protocol_failure("the input of a tool call arrived without the name of its tool")
        self._open(index, {"type": kind}, events)
        return self._blocks[-1]

    def _close(self, block: ContentBlock | None, events: list[RunEvent]) -> None:
        """End a block. An input that came whole at the block's start is sent on now, unless pieces have followed it."""
        if block is None or not block.is_open:
            return
        block.is_open = False
        given = block.said.get("input")
        if block.call is not None and not block.pieces and given:
            block.pieces.append(given if isinstance(given, str) else json_text(given))
            events.append(ToolCallDelta(block.call, arguments=block.pieces[0]))
        if block is self._answer and not block.pieces:
            block.pieces.append(json_text(self._answer_input))
            events.append(block.pieces[0])

    def _close_all(self, events: list[RunEvent]) -> None:
        for block in self._blocks[self._closed :]:
            self._close(block, events)
        self._closed = len(self._blocks)

    def _take_odd_delta(self, index: int | None, data: bytes) -> None:
        block, delta = self._at.get(index), object_in(_whole(data).get("delta"), "a delta")
        if block is not None and block.is_read:
            refuse_content(delta, f"a delta of type {as_text(delta.get('type'))}")
        if block is not None:
            self._kept.add(data)
            block.change(delta)

    def _take_stop_details(self, details: Any) -> None:
        if isinstance(details, dict) and details.get("type") == "refusal":
            self._refusal = as_text(details.get("explanation")) or None

    def _take_container(self, said: Any) -> None:
        if isinstance(said, dict) and said.get("id"):
            self._container = said

    def _take_usage(self, said: Any, events: list[RunEvent]) -> None:
        """Take token counts. They are totals: a later count replaces an earlier one."""
        if not isinstance(said, dict) or not said:
            return
        details = said.get("output_tokens_details")
        thinking = details.get("thinking_tokens") if isinstance(details, dict) else None
        for name, value in (*said.items(), ("thinking_tokens", thinking)):
            if name in _COUNTS and isinstance(value, int | float) and 0 <= value < MAX_COUNT:
                self._counts[name] = int(value)
        if "cache_creation_input_tokens" not in said and isinstance(by_life := said.get("cache_creation"), dict):
            self._counts["cache_creation_input_tokens"] = sum(map(as_count, by_life.values()))
        self._tool_requests = server_tool_requests(said) or self._tool_requests
        usage = self._usage()
        if usage != self.usage:
            self.usage = usage
            events.append(UsageUpdate(usage))

    def _usage(self) -> Usage:
        count = self._counts.get
        input_tokens = sum(count(name, 0) for name in _INPUT_COUNTS)
        output_tokens = count("output_tokens", 0)
        return Usage(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            total_tokens=input_tokens + output_tokens,
            cached_input_tokens=count("cache_read_input_tokens", 0),
            cache_write_tokens=count("cache_creation_input_tokens", 0),
            reasoning_tokens=count("thinking_tokens", 0),
            source="provider" if self._stop_word else "partial",
            server_tool_requests=self._tool_requests,
        )

    def _read_odd(self, data: bytes) -> MessageEvent | None:
        """Read an event that the fast decoder refused. Return None if there is nothing to take."""
        data = data.strip()
        self.has_split_characters = self.has_split_characters or may_hold_halves(data)
        self._kept.add_halves(data)
        if data == b"[DONE]" and self._stop_word:
            self.is_complete = True
        if not data or self.is_complete:
            return None
        try:
            return decode_leniently(data)
        except ValueError:
            if self._stop_word:
                # The answer has ended. An unreadable event does no harm, unless it has more content.
                refuse_content(read_object(data), "an event")
                return None
            raise failures.protocol_failure(f"an event of {len(data)} bytes is not JSON") from None

    def _completion(self, *, with_message: bool, is_weighed: bool = False) -> Completion:
        if self.usage.source == "partial":
            self.usage = msgspec.structs.replace(self.usage, source="provider")
        reason = _FINISH_REASONS.get(self._stop_word, "stop")
        if reason == "tool_calls" and self._answer is not None and not self._calls:
            reason = "stop"
        if reason == "stop" and self._calls:
            reason = "tool_calls"
        calls = calls_of(self._blocks, is_cut=reason == "max_tokens")
        message = message_of(self._blocks, calls, self._container, is_weighed=is_weighed) if with_message else None
        return Completion(
            finish_reason=reason,
            provider_finish_reason=self._stop_word or None,
            usage=self.usage,
            tool_calls=calls,
            model=self._model or self._requested_model,
            message=message,
            refusal=self._refusal,
            response_id=self.response_id,
        )


def _word(value: Any) -> str:
    """Return a stop reason; an empty text if it means: not stopped."""
    word = as_name(value).strip() if isinstance(value, str) else ""
    return "" if word.lower() in {"null", "none"} else word


def _whole(data: bytes) -> dict[str, Any]:
    """Return a whole event, of which :data:`decode` has read some fields."""
    try:
        whole = loads(data)
    except ValueError:  # too deeply nested, in a field that the decoder skipped
        whole = None
    if not isinstance(whole, dict):
        raise failures.protocol_failure(f"an event of {len(data)} bytes cannot be read")
    return whole
