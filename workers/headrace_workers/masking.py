"""Removes secrets from everything that a run passes on from its provider: ids, model names, reasons, tool names. Pure.

The model's own words (text, reasoning, refusals, arguments of tool calls) belong to the caller and stay as they are.
All else is masked: a provider has no reason to quote a key there, and nobody who stores or logs these fields expects
one. A dummy key that is a word (``mock``) may also be a model's name, or a part of an id: it is removed from reasons
and codes only.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from headrace.settings.known_secrets import address_secrets
from headrace.text.secret_mask import LONGEST_TEXT, MASK, SecretMask, is_word
from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RunEvent,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.flow import FEW, length_of_start, length_of_text
from headrace.wire.messages import Aborted, Failed, Finished, Terminal, ToolCallText
from headrace_workers.providers.shared.wire_format import ProviderFailure

_MOST_TEXTS = 1_000
_NAMES_OF_MEDIA = ("name", "media_type", "file_id", "url")
"""Fields of images, audio and files that a provider names. Their content stays as it is."""
_KEPT = 128
"""Masks that are kept for the next run with the same key."""


class RunMasks:
    """The masks of a worker's runs.

    ``secrets``: those of the worker's environment. See :mod:`headrace.settings.known_secrets`.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._known = frozenset(secrets)
        self._base = SecretMask(self._known)
        self._kept: OrderedDict[tuple[str | None, str | None, tuple[str, ...]], SecretMask] = OrderedDict()
        self._in_use: weakref.WeakSet[SecretMask] = weakref.WeakSet()

    def mask_of(self, api_key: str | None, base_url: str | None, others: tuple[str, ...] = ()) -> SecretMask:
        """Return the mask for a run with this key and this address. ``others``: further secrets in its request."""
        given = (api_key, base_url, others)
        mask = self._kept.get(given)
        if mask is None:
            if others:
                beneath, secrets = self.mask_of(api_key, base_url), {*others} - self._known
            else:
                beneath, secrets = self._base, {api_key or "", *address_secrets(base_url or "")} - self._known - {""}
            mask = SecretMask(secrets, beneath) if secrets else beneath
            self._kept[given] = mask
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            if any(not is_word(secret) for secret in secrets):
                self._in_use.add(mask)
        return mask

    def masked_line(self, text: str) -> str:
        """Return a text without all known secrets. For a text that belongs to no single run, such as a log line."""
        text = self._base.masked(text)
        for mask in list(self._in_use):
            text = mask.masked_own(text)
        return text


def masked_terminal(terminal: Terminal, mask: SecretMask) -> Terminal:
    """Return a terminal message without secrets."""
    match terminal:
        case Finished():
            return msgspec.structs.replace(
                terminal,
                provider_finish_reason=_masked_name(terminal.provider_finish_reason, mask),
                usage=masked_usage(terminal.usage, mask),
                tool_calls=masked_calls(terminal.tool_calls, mask),
                model=mask.masked(terminal.model, words=False),
                message=None if terminal.message is None else _message(terminal.message, mask),
            )
        case Failed():
            return msgspec.structs.replace(
                terminal,
                reason=mask.masked(terminal.reason),
                usage=masked_usage(terminal.usage, mask),
                request_id=_masked_name(terminal.request_id, mask),
                code=_masked(terminal.code, mask),
                argument=_masked_name(terminal.argument, mask),
            )
        case Aborted() if terminal.usage.server_tool_requests:
            return msgspec.structs.replace(terminal, usage=masked_usage(terminal.usage, mask))
        case _:
            return terminal


def masked_failure(failure: ProviderFailure, mask: SecretMask) -> ProviderFailure:
    """Return a failure without secrets."""
    return msgspec.structs.replace(
        failure,
        reason=mask.masked(failure.reason),
        code=_masked(failure.code, mask),
        request_id=_masked_name(failure.request_id, mask),
        argument=_masked_name(failure.argument, mask),
    )


def masked_events(events: list[RunEvent], mask: SecretMask) -> list[RunEvent]:
    """Return events without secrets in the ids and names of tool calls, and in the names that usage counts."""
    if length_of_text(events) is not None:
        return events
    if len(events) < FEW:
        return _masked_rest(events, mask)
    end = length_of_start(events)
    return [*events[:end], *_masked_rest(events[end:], mask)]


def _masked_rest(events: list[RunEvent], mask: SecretMask) -> list[RunEvent]:
    calls = [event for event in events if type(event) is ToolCallDelta]
    mask_text = _mask_for([text for call in calls for text in (call.id, call.name) if text], mask)
    return [event if type(event) is str else _event(event, mask, mask_text) for event in events]


def masked_usage(usage: Usage, mask: SecretMask) -> Usage:
    """Return usage without secrets in the names that it counts."""
    counts = usage.server_tool_requests
    mask_text = _mask_for(list(counts), mask) if counts else None
    if mask_text is None:
        return usage
    return msgspec.structs.replace(
        usage, server_tool_requests={mask_text(name): count for name, count in counts.items()}
    )


def masked_calls(calls: list[ToolCallText], mask: SecretMask) -> list[ToolCallText]:
    """Return tool calls without secrets in their ids and names."""
    mask_text = _mask_for([text for call in calls for text in (call.id, call.name)], mask)
    if mask_text is None:
        return calls
    return [ToolCallText(mask_text(call.id), mask_text(call.name), call.arguments) for call in calls]


def _mask_for(texts: list[str], mask: SecretMask) -> Callable[[str], str] | None:
    """Return the function that masks each of ``texts``, or None if no text needs it.

    Very many texts are searched together, because searching each would stall the worker. If they hold a secret, all are
    masked.
    """
    said = "\n".join(texts)
    if len(texts) > _MOST_TEXTS or len(said) > LONGEST_TEXT:
        return (lambda _: MASK) if mask.is_quoted(said) else None
    return None if mask.is_clean(said) else partial(mask.masked, words=False)


def _masked_name(text: str | None, mask: SecretMask) -> str | None:
    return None if text is None else mask.masked(text, words=False)


def _masked(text: str | None, mask: SecretMask) -> str | None:
    return None if text is None else mask.masked(text)


def _event(event: RunEvent, mask: SecretMask, mask_text: Callable[[str], str] | None) -> RunEvent:
    match event:
        case ToolCallDelta() if mask_text is not None:
            call_id, name = (text if text is None else mask_text(text) for text in (event.id, event.name))
            return ToolCallDelta(event.index, call_id, name, event.arguments)
        case UsageUpdate() if event.usage.server_tool_requests:
            return UsageUpdate(masked_usage(event.usage, mask))
        case _:
            return event


def _message(message: Message, mask: SecretMask) -> Message:
    if isinstance(message.content, str):
        return message
    named = [part for part in message.content if isinstance(part, ToolCallPart)]
    mask_text = _mask_for([text for part in named for text in (part.id, part.name)], mask)
    is_quoted = _is_quoted([(part.extra, part.provider_data) for part in message.content], mask)
    parts = [_part(part, mask, mask_text, is_quoted=is_quoted) for part in message.content]
    return msgspec.structs.replace(message, content=parts)


def _is_quoted(opaque: list[Any], mask: SecretMask) -> bool | None:
    """Return whether large opaque data holds a secret.

    Return None for small data, where each text is masked instead.
    """
    said = msgspec.json.encode(opaque).decode()
    return mask.is_quoted(said) if len(said) > LONGEST_TEXT else None


def _part(part: Part, mask: SecretMask, mask_text: Callable[[str], str] | None, *, is_quoted: bool | None) -> Part:
    def opaque(value: Any) -> Any:
        if value is None or is_quoted is not None:
            return None if is_quoted else value
        return _value(value, mask)

    if part.extra is not None:
        part = msgspec.structs.replace(part, extra=opaque(part.extra))
    match part:
        case ToolCallPart():
            call_id, name = (part.id, part.name) if mask_text is None else (mask_text(part.id), mask_text(part.name))
            return msgspec.structs.replace(part, id=call_id, name=name, provider_data=opaque(part.provider_data))
        case ImagePart() | AudioPart() | FilePart():
            fields = [name for name in _NAMES_OF_MEDIA if hasattr(part, name)]
            names = {name: _masked_name(getattr(part, name), mask) for name in fields}
            return msgspec.structs.replace(part, **names, provider_data=opaque(part.provider_data))
        case _ if part.provider_data is not None:
            return msgspec.structs.replace(part, provider_data=opaque(part.provider_data))
        case _:
            return part


def _value(value: Any, mask: SecretMask) -> Any:
    """Return opaque data without secrets. Its depth was bounded by :mod:`headrace_workers.runs.sendable_answer`."""
    if isinstance(value, str):
        return mask.masked(value, words=False)
    if isinstance(value, dict):
        return {mask.masked(name, words=False): _value(item, mask) for name, item in value.items()}
    if isinstance(value, list):
        return [_value(item, mask) for item in value]
    return value
