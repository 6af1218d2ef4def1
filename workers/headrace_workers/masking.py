"""Takes secrets out of all that a run tells of its provider's words: ids, models, reasons, names. Pure.

What the model itself wrote (text, reasoning, refusals, the arguments of tool calls) is the caller's, and stays as it is. All else is
masked: no provider has a reason to quote a key there, and who reads it, stores it or logs it does not expect one.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.known_secrets import address_secrets
from headrace.secret_mask import SecretMask, is_word
from headrace.types import (
    Message,
    Part,
    ReasoningPart,
    RunEvent,
    TextPart,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire.messages import Aborted, Failed, Finished, Terminal, ToolCallText
from headrace_workers.providers.protocol import ProviderFailure

_KEPT = 128
"""Masks of keys that are kept for the next run with the same key."""


class RunMasks:
    """The masks of a worker's runs. ``secrets`` are those of its environment, which no run may tell."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._known = frozenset(secrets)
        self._base = SecretMask(self._known)
        self._kept: OrderedDict[tuple[str | None, str | None], SecretMask] = OrderedDict()
        # For log lines: a dummy key is no secret, and would blot out words of ours.
        self._for_lines = SecretMask(secret for secret in self._known if not is_word(secret))
        self._in_use: weakref.WeakSet[SecretMask] = weakref.WeakSet()

    def of(self, api_key: str | None, base_url: str | None) -> SecretMask:
        """Return the mask of a run that is sent with this key to this address."""
        given = (api_key, base_url)
        mask = self._kept.get(given)
        if mask is None:
            secrets = {api_key or "", *address_secrets(base_url or "")} - self._known - {""}
            mask = SecretMask(secrets, self._base) if secrets else self._base
            self._kept[given] = mask
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            if any(not is_word(secret) for secret in secrets):
                self._in_use.add(mask)
        return mask

    def masked_line(self, text: str) -> str:
        """Return a text of no run in particular, such as a log line, without the secrets that are known."""
        text = self._for_lines.masked(text)
        for mask in list(self._in_use):
            text = mask.masked_here(text)
        return text


def masked_terminal(terminal: Terminal, mask: SecretMask) -> Terminal:
    """Return a run's last message without secrets."""
    match terminal:
        case Finished() if terminal.message is not None or not mask.is_clean(_said(terminal)):
            return msgspec.structs.replace(
                terminal,
                provider_finish_reason=_masked(terminal.provider_finish_reason, mask),
                usage=masked_usage(terminal.usage, mask),
                tool_calls=[masked_call(call, mask) for call in terminal.tool_calls],
                model=mask.masked(terminal.model),
                message=None if terminal.message is None else _message(terminal.message, mask),
            )
        case Failed():
            return msgspec.structs.replace(
                terminal,
                reason=mask.masked(terminal.reason),
                usage=masked_usage(terminal.usage, mask),
                request_id=_masked(terminal.request_id, mask),
                code=_masked(terminal.code, mask),
                argument=_masked(terminal.argument, mask),
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
        request_id=_masked(failure.request_id, mask),
        argument=_masked(failure.argument, mask),
    )


def masked_events(events: list[RunEvent], mask: SecretMask) -> list[RunEvent]:
    """Return events without secrets in the ids and names of tool calls and in what usage counts."""
    return [event if type(event) is str else _event(event, mask) for event in events]


def masked_usage(usage: Usage, mask: SecretMask) -> Usage:
    """Return usage without secrets in the names of what it counts."""
    counts = usage.server_tool_requests
    if not counts or all(map(mask.is_clean, counts)):
        return usage
    return msgspec.structs.replace(
        usage, server_tool_requests={mask.masked(name): count for name, count in counts.items()}
    )


def masked_call(call: ToolCallText, mask: SecretMask) -> ToolCallText:
    """Return a tool call without secrets in its id and its name."""
    return ToolCallText(mask.masked(call.id), mask.masked(call.name), call.arguments)


def _said(finished: Finished) -> str:
    """Return all that is to be masked, for one look at it."""
    said = [finished.model, finished.provider_finish_reason or "", *finished.usage.server_tool_requests]
    for call in finished.tool_calls:
        said += (call.id, call.name)
    return "\n".join(said)


def _masked(text: str | None, mask: SecretMask) -> str | None:
    return None if text is None else mask.masked(text)


def _event(event: RunEvent, mask: SecretMask) -> RunEvent:
    match event:
        case ToolCallDelta() if event.id is not None or event.name is not None:
            return ToolCallDelta(event.index, _masked(event.id, mask), _masked(event.name, mask), event.arguments)
        case UsageUpdate() if event.usage.server_tool_requests:
            return UsageUpdate(masked_usage(event.usage, mask))
        case _:
            return event


def _message(message: Message, mask: SecretMask) -> Message:
    if isinstance(message.content, str):
        return message
    return msgspec.structs.replace(message, content=[_part(part, mask) for part in message.content])


def _part(part: Part, mask: SecretMask) -> Part:
    if part.extra is not None:
        part = msgspec.structs.replace(part, extra=_value(part.extra, mask))
    match part:
        case ToolCallPart():
            opaque = _value(part.provider_data, mask)
            call_id, name = mask.masked(part.id), mask.masked(part.name)
            return msgspec.structs.replace(part, id=call_id, name=name, provider_data=opaque)
        case TextPart() | ReasoningPart() if part.provider_data is not None:
            return msgspec.structs.replace(part, provider_data=_value(part.provider_data, mask))
        case _:
            return part


def _value(value: Any, mask: SecretMask) -> Any:
    """Return opaque data without secrets. It comes from :mod:`headrace_workers.portable`, which bounds its depth."""
    if isinstance(value, str):
        return mask.masked(value)
    if isinstance(value, dict):
        return {mask.masked(name): _value(item, mask) for name, item in value.items()}
    if isinstance(value, list):
        return [_value(item, mask) for item in value]
    return value
