"""Maps responses of the Responses API, of OpenAI and of compatible servers, to run events. Pure.

A stream must have an end. In everything else that vendors vary, the mapper is lenient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from headrace.answers.assembly import joined_text
from headrace.answers.tool_arguments import well_formed_text
from headrace.types import FinishReason, Message, ReasoningDelta, RefusalDelta, RunEvent, Usage, UsageUpdate
from headrace_workers.providers.openai_responses.calls import ResponseCalls
from headrace_workers.providers.openai_responses.check import check_items
from headrace_workers.providers.openai_responses.errors import failure_in_response, raise_if_error
from headrace_workers.providers.openai_responses.events import (
    TEXT_DELTA,
    Item,
    ResponseEvent,
    decode,
    event_of,
    items_of,
    plain_text,
    read_usage,
    reasoning_of,
    refusal_of,
    text_of,
    typed,
)
from headrace_workers.providers.openai_responses.message import custom_calls_of_caller, is_plain, message_of
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.answer_limits import KeptMemory, check_parts
from headrace_workers.providers.shared.lenient_json import (
    UNREADABLE,
    as_name,
    as_text,
    loads_with_halves,
    may_hold_halves,
    read_object,
)
from headrace_workers.providers.shared.text_span import TextSpan, number_of, span_of_text, strings_of
from headrace_workers.providers.shared.unread_content import elements_of, object_in
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ProviderFailedError,
)

_DELTAS = strings_of("delta")
_NUMBERS = number_of("sequence_number")
_NOTHING = (b"", b"null", b"{}", b"[]")
_OF_ONE_ITEM = {"item_id", "output_index", "sequence_number"}
"""Fields of an event, which no whole response has."""


class _ArrivingWords:
    """Words that arrive in deltas, and again in whole items and in the whole response."""

    __slots__ = ("_counted", "_done", "_done_length", "_length", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self._done: list[str] = []
        self._done_length = 0
        self._counted = 0  # the number of pieces whose characters are counted in _length
        self._length = 0

    def item_done(self, words: str) -> str:
        """Take the words of a whole item. Return the words that no delta had."""
        if not words:
            return ""
        self._done.append(words)
        self._done_length += len(words)
        self._length += sum(map(len, self.pieces[self._counted :]))
        self._counted = len(self.pieces)
        if self._done_length <= self._length:
            return ""
        self._done = ["".join(self._done)]
        return self.missing(self._done[0])

    def missing(self, whole: str) -> str:
        """Take all words of the response. Return the words that no delta had."""
        words = "".join(self.pieces)
        self._become(words)
        said = well_formed_text(words)
        if len(whole) <= len(said) or not whole.startswith(said):
            return ""
        self._become(whole)
        return whole[len(said) :]

    def _become(self, words: str) -> None:
        """Keep all words as one piece, so that the next call has nothing to join."""
        self.pieces[:] = [words] if words else []
        self._counted, self._length = len(self.pieces), len(words)


class ResponsesMapper:
    """Maps one response. ``is_complete`` is True after its terminal event."""

    __slots__ = (
        "_calls",
        "_is_in_doubt",
        "_items",
        "_kept",
        "_model",
        "_reason",
        "_reasoning",
        "_refusal",
        "_requested_model",
        "_status",
        "_text",
        "has_split_characters",
        "is_complete",
        "response_id",
        "usage",
    )

    continuation: str | None = None

    def __init__(self, requested_model: str) -> None:
        self.usage = Usage()
        self.is_complete = False
        self.has_split_characters = False
        self.response_id: str | None = None
        self._requested_model = requested_model
        self._model = ""
        self._status = ""
        self._is_in_doubt = False  # whether content could not be read, which the whole response may still have
        self._reason = ""
        self._text = _ArrivingWords()
        self._reasoning = _ArrivingWords()
        self._refusal = _ArrivingWords()
        self._calls = ResponseCalls()
        self._items: list[Item] = []
        self._kept = KeptMemory()

    @property
    def has_end(self) -> bool:
        """Whether the terminal event has arrived."""
        return self.is_complete

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Read one server-sent event; see :meth:`StreamMapper.feed`."""
        try:
            event = decode(data)
        except UNREADABLE:
            odd = self._read_odd(data, events)
            if odd is None:
                return
            event, data = odd
        kind = event.kind or name
        if kind == TEXT_DELTA:
            # The hot path.
            delta = event.delta
            if delta and type(delta) is str:
                self._text.pieces.append(delta)
                events.append(delta)
            elif delta:
                self._is_in_doubt = True
            return
        take = self._takers.get(kind) if type(kind) is str else None
        if take is not None:
            event.kind = kind  # the data may lack the type
            take(self, event, events)
        elif kind == "error" or name == "error" or not as_text(kind).startswith("response."):
            self._take_unknown_event(read_object(data), events, is_named_error=kind == "error" or name == "error")

    def text_span(self, name: str, data: bytes) -> TextSpan | None:
        """Return where the text of a plain delta stands; see :meth:`RepeatingMapper.text_span`."""
        if name not in {"", TEXT_DELTA}:
            return None
        return span_of_text(data, _DELTAS, plain_text, self._text.pieces, _NUMBERS)

    def _take_unknown_event(self, whole: dict[str, Any], events: list[RunEvent], *, is_named_error: bool) -> None:
        """Take an event of an unknown type: an error, or the whole response in the place of its events."""
        raise_if_error(whole, is_certain=is_named_error)
        status = as_text(whole.get("status")) or "completed"
        is_whole = isinstance(whole.get("output"), list) and not _OF_ONE_ITEM & whole.keys()
        if is_whole and status not in {"queued", "in_progress"}:
            self._end(whole, status, events)

    def finish(self, events: list[RunEvent] | None = None) -> Completion:  # noqa: ARG002 - the protocol's form
        """Return the complete answer; see :meth:`StreamMapper.finish`."""
        if not self.is_complete:
            raise failures.protocol_failure("the stream ended before the response was complete")
        return self._completion(None if is_plain(self._items) else self._message())

    def read_whole(self, response: dict[str, Any]) -> Completion:
        """Read a response that came in one piece."""
        events: list[RunEvent] = []
        try:
            self._end(response, as_text(response.get("status")) or "completed", events)
        except ProviderFailedError as error:
            error.partial_text = joined_text(events)
            raise
        if self._status in {"queued", "in_progress"}:
            raise failures.protocol_failure(f"the response is not complete: its status is {self._status}")
        return self._completion(self._message())

    def _message(self) -> Message:
        return message_of(self._items, is_cut=self._status == "incomplete")

    def _read_odd(self, data: bytes, events: list[RunEvent]) -> tuple[ResponseEvent, bytes] | None:
        """Read an event that the fast decoder refused. Return None if there is nothing to take."""
        data = data.strip()
        self.has_split_characters = self.has_split_characters or may_hold_halves(data)
        self._kept.add_halves(data)
        if not data or self.is_complete or data == b"null":
            return None
        if data == b"[DONE]":
            # Some servers leave out the terminal event. Without any answer, [DONE] is no end.
            if self._items or self._text.pieces or self._refusal.pieces or self._calls:
                self._settle(events)
            return None
        try:
            loaded = loads_with_halves(data)
            if isinstance(loaded, list):
                raise_if_error((items_of(loaded) or [{}])[0])
            return event_of(loaded), data
        except (ValueError, *UNREADABLE):
            raise failures.protocol_failure(f"an event of {len(data)} bytes is no event in JSON") from None

    def _take_head(self, event: ResponseEvent, events: list[RunEvent]) -> None:  # noqa: ARG002 - as all takers
        self._take_names(read_object(event.response))

    def _take_names(self, response: dict[str, Any]) -> None:
        self._model = as_name(response.get("model")) or self._model
        self.response_id = as_name(response.get("id")) or self.response_id

    def _take_reasoning(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        if event.delta and isinstance(event.delta, str):
            self._reasoning.pieces.append(event.delta)
            events.append(ReasoningDelta(event.delta))
        elif event.delta:
            self._is_in_doubt = True

    def _take_refusal(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        if event.delta and isinstance(event.delta, str):
            self._refusal.pieces.append(event.delta)
            events.append(RefusalDelta(event.delta))
        elif event.delta:
            self._is_in_doubt = True

    def _take_arguments(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        self._calls.take_delta(event, events)

    def _take_whole_arguments(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        self._calls.take_done(event, events)

    def _take_added(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        item = read_object(event.item)
        if item.get("type") == "function_call":
            self._calls.take_item(item, event.output_index, events, is_whole=False)

    def _take_done(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        self._kept.add(bytes(event.item))
        item = typed(read_object(event.item))
        if item:
            self._items.append(item)
            check_parts(len(self._items))
        elif bytes(event.item).strip() not in _NOTHING:
            self._is_in_doubt = True
        if item.get("type") == "function_call":
            self._calls.take_item(item, event.output_index, events, is_whole=True)
            return
        if reasoning := self._reasoning.item_done(reasoning_of(item)):
            events.append(ReasoningDelta(reasoning))
        if text := self._text.item_done(text_of(item)):
            events.append(text)
        if refusal := self._refusal.item_done(refusal_of(item)):
            events.append(RefusalDelta(refusal))

    def _take_end(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        response = read_object(event.response)
        self._end(response, as_text(response.get("status")) or event.kind.removeprefix("response."), events)

    def _take_failure(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        self._end(read_object(event.response), event.kind.removeprefix("response."), events)

    def _end(self, response: dict[str, Any], status: str, events: list[RunEvent]) -> None:
        """Take the whole response, and send on what no earlier event had."""
        self._status = as_name(status)
        self._take_names(response)
        usage = response.get("usage")
        if isinstance(usage, dict) and usage:
            self.usage = read_usage(usage)
            events.append(UsageUpdate(self.usage))
        if response.get("error") or status in {"failed", "cancelled"}:
            error = response.get("error") or {"message": f"the response was {status}"}
            raise ProviderFailedError(failure_in_response({"error": error}))
        details = response.get("incomplete_details")
        self._reason = as_name(details.get("reason")) if isinstance(details, dict) else ""
        output = response.get("output")
        check_parts(len(output) if isinstance(output, list) else 0)
        for element in elements_of(output, "the output"):
            object_in(element, "an item of the output")
        if len(items := items_of(output)) >= len(self._items):
            self._items = items
        self._settle(events)

    def _settle(self, events: list[RunEvent]) -> None:
        """Send on what no event had, and check that no content was lost."""
        if reasoning := self._reasoning.missing("".join(map(reasoning_of, self._items))):
            events.append(ReasoningDelta(reasoning))
        if text := self._text.missing("".join(map(text_of, self._items))):
            events.append(text)
        if refusal := self._refusal.missing("".join(map(refusal_of, self._items))):
            events.append(RefusalDelta(refusal))
        for place, item in enumerate(self._items):
            if item.get("type") == "function_call":
                self._calls.take_item(item, place, events, is_whole=True)
        for item in custom_calls_of_caller(self._items):
            self._calls.take_custom(item, events)
        said = {"reasoning": self._reasoning, "text": self._text, "refusal": self._refusal}
        check_items(self._items, {kind: "".join(words.pieces) for kind, words in said.items()})
        self._calls.check(self._items)
        if self._is_in_doubt and not self._items:
            raise failures.protocol_failure(
                "the answer has content that cannot be read, and that no other event repeats"
            )
        self.is_complete = True

    def _completion(self, message: Message | None) -> Completion:
        refusal = "".join(self._refusal.pieces)
        reason = _finish_reason(self._status, self._reason, has_calls=bool(self._calls), is_refused=bool(refusal))
        return Completion(
            finish_reason=reason,
            # The reason is more exact than "incomplete".
            provider_finish_reason=self._reason or self._status or None,
            usage=self.usage,
            tool_calls=self._calls.complete(is_cut=reason == "max_tokens"),
            model=self._model or self._requested_model,
            message=message,
            refusal=refusal or None,
            response_id=self.response_id,
        )

    _takers: ClassVar[dict[str, Callable[[ResponsesMapper, ResponseEvent, list[RunEvent]], None]]] = {
        "response.created": _take_head,
        "response.reasoning_summary_text.delta": _take_reasoning,
        "response.reasoning_text.delta": _take_reasoning,
        "response.reasoning.delta": _take_reasoning,
        "response.refusal.delta": _take_refusal,
        "response.function_call_arguments.delta": _take_arguments,
        "response.function_call_arguments.done": _take_whole_arguments,
        "response.output_item.added": _take_added,
        "response.output_item.done": _take_done,
        "response.completed": _take_end,
        "response.incomplete": _take_end,
        "response.failed": _take_failure,
        "response.cancelled": _take_failure,
    }


def _finish_reason(status: str, reason: str, *, has_calls: bool, is_refused: bool) -> FinishReason:
    if reason == "content_filter" or (is_refused and status != "incomplete"):
        return "content_filter"
    if status == "incomplete" and reason != "steered":
        return "max_tokens"  # or another limit of the server: provider_finish_reason tells which
    return "tool_calls" if has_calls else "stop"
