"""Whole answers: events from a whole answer, a message from events, and whether a body without an end is whole.

Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.answers.assembly import assemble, assembled_message, parse_tool_calls
from headrace.types import (
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    RunEvent,
    TextPart,
    ToolCallDelta,
    UsageUpdate,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.answer_limits import MAX_TEXT, MAX_WIDE_TEXT, too_large, weigh_arguments
from headrace_workers.providers.shared.lenient_json import UNREADABLE, check_json
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi, ProviderFailedError
from headrace_workers.runs.body_kind import BOM
from headrace_workers.runs.split_characters import SplitCharacters

_LARGE = 1024 * 1024


def is_content(event: RunEvent) -> bool:
    """Return whether an event is content: anything but usage."""
    return type(event) is not UsageUpdate


def events_of(completion: Completion) -> list[RunEvent]:
    """Return an answer as events. For a provider that answered in one piece although a stream was requested."""
    message = completion.message
    events: list[RunEvent] = []
    if message is not None:
        parts = [] if isinstance(message.content, str) else message.content
        reasoning = "".join(part.text for part in parts if isinstance(part, ReasoningPart))
        events += [ReasoningDelta(reasoning)] if reasoning else []
        events += [message.text] if message.text else []
    events += [RefusalDelta(completion.refusal)] if completion.refusal else []
    calls = enumerate(completion.tool_calls)
    events += [ToolCallDelta(index, call.id, call.name, call.arguments) for index, call in calls]
    SplitCharacters().join(events, 0)
    return events


def is_ascii(event: RunEvent) -> bool:
    """Return whether an event's text is ASCII only."""
    match event:
        case str():
            return event.isascii()
        case ReasoningDelta() | RefusalDelta():
            return event.text.isascii()
        case ToolCallDelta():
            return event.arguments.isascii()
        case UsageUpdate():
            return True


def check_length(completion: Completion) -> None:
    """Raise LimitError if text, reasoning, refusal and arguments of an answer have too many characters together."""
    texts = [completion.refusal or "", *[call.arguments for call in completion.tool_calls]]
    content = completion.message.content if completion.message is not None else ""
    if isinstance(content, str):
        texts.append(content)
    else:
        texts += [part.text for part in content if isinstance(part, (TextPart, ReasoningPart))]
    length = sum(map(len, texts))
    if length > MAX_TEXT:
        raise too_large(f"{MAX_TEXT} characters")
    if length > MAX_WIDE_TEXT and not all(map(str.isascii, texts)):
        raise too_large(f"{MAX_WIDE_TEXT} characters, and not all of them are ASCII")


def is_json(body: bytes) -> bool:
    """Return whether all of a body is one JSON value."""
    try:
        check_json(body.removeprefix(BOM))
    except UNREADABLE:
        return False
    return True


def is_cut_json(body: bytes) -> bool:
    """Return whether a body is the beginning of a JSON value and lacks the rest, or is empty."""
    body = body.removeprefix(BOM).strip()
    if not body.startswith((b"{", b"[")):
        return not body
    try:
        check_json(body)
    except RecursionError:
        return False
    except UNREADABLE as error:
        said = str(error)
        is_at_end = said.endswith(f"(byte {len(body)})") and "trailing" not in said  # such as in the middle of a number
        return is_at_end or "truncated" in said
    return False


def is_whole(api: ProviderApi, request: RunRequest, body: bytes) -> bool:
    """Return whether the bytes that have come are a whole answer, or a whole error. The body itself has not ended."""
    body = body.removeprefix(BOM)
    try:
        check_json(body)
        if len(body) > _LARGE:
            return True  # do not read a large answer twice: it is JSON, and that is enough
    except UNREADABLE:
        if len(body) > _LARGE:
            return False
    try:
        api.read_body(request, body)
    except ProviderFailedError as error:
        return error.failure.kind != "provider_protocol"
    except RecursionError:
        return False
    return True


def with_message(completion: Completion, events: Sequence[RunEvent]) -> Completion:
    """Return the completion with a message made of ``events``. Unchanged if it has a message, or holds vectors."""
    if completion.message is not None or completion.vectors is not None:
        return completion
    said = assemble(events)
    weigh_arguments([call.arguments for call in completion.tool_calls])
    calls, _ = parse_tool_calls(completion.tool_calls, may_be_cut=True)
    message = assembled_message(said.text, said.reasoning, calls)
    return msgspec.structs.replace(completion, message=message, refusal=completion.refusal or said.refusal or None)
