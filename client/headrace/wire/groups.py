"""Puts neighbouring messages about leases into one message for many runs, and takes such messages apart again. Pure.

Only a peer with the capability ``groups`` understands the messages for many runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, cast

import msgspec

from headrace.wire.messages import MAX_GROUP, Acquire, AcquireMany, Grant, GrantMany, Release, ReleaseMany

GROUPS = "groups"
"""The capability."""

_ACQUIRE_FIELDS = [name for name in Acquire.__struct_fields__ if name not in ("span_id", "input_tokens")]
_GRANT_FIELDS = [name for name in Grant.__struct_fields__ if name != "span_id"]
_shared_by_questions = attrgetter(*_ACQUIRE_FIELDS)
_shared_by_grants = attrgetter(*_GRANT_FIELDS)


def packed(messages: Sequence[msgspec.Struct]) -> Sequence[msgspec.Struct]:
    """Return the messages in the same order, with neighbours that fit together as one message."""
    if len(messages) == 1:
        return messages
    found: list[msgspec.Struct] = []
    index, count = 0, len(messages)
    while index < count:
        first = messages[index]
        end = index + 1
        if end < count and type(messages[end]) is type(first) and type(first) in _PACKED:
            end = _end_of_group(messages, index)
        found.append(first if end == index + 1 else _group(messages[index:end]))
        index = end
    return found


def questions_of(many: AcquireMany) -> list[Acquire]:
    """Return the questions of a group, one for each run."""
    first = many.question
    attempt, provider, model, priority, account = (
        first.attempt,
        first.provider,
        first.model,
        first.priority,
        first.account,
    )
    avoid, is_traced, is_repeat, user, tags = first.avoid, first.is_traced, first.is_repeat, first.user, first.tags
    limit, wait, is_provider_retry, is_hedge = (
        first.max_output_tokens,
        first.max_wait,
        first.is_provider_retry,
        first.is_hedge,
    )
    further = [
        Acquire(
            span_id,
            attempt,
            provider,
            model,
            priority,
            avoid,
            is_traced,
            is_repeat,
            account,
            user,
            tags,
            tokens,
            limit,
            wait,
            is_provider_retry,
            is_hedge,
        )
        for span_id, tokens in many.others
    ]
    return [first, *further]


def grants_of(many: GrantMany) -> list[Grant]:
    """Return the grants of a group, one for each run."""
    first = many.grant
    shared = _shared_by_grants(first)
    return [first, *[Grant(span_id, *shared) for span_id in many.others]]


def unpacked(message: msgspec.Struct) -> Sequence[msgspec.Struct]:
    """Return the messages for one run each that a message stands for: itself, if it is for one run."""
    match message:
        case AcquireMany():
            return questions_of(message)
        case GrantMany():
            return grants_of(message)
        case ReleaseMany():
            return message.releases
        case _:
            return (message,)


def run_count(message: msgspec.Struct) -> int:
    """Return how many messages for one run a message stands for."""
    match message:
        case AcquireMany() | GrantMany():
            return 1 + len(message.others)
        case ReleaseMany():
            return len(message.releases)
        case _:
            return 1


_PACKED = frozenset({Acquire, Grant, Release})


def _end_of_group(messages: Sequence[msgspec.Struct], start: int) -> int:
    """Return the index behind the last message that fits together with the one at ``start``."""
    first = messages[start]
    kind = type(first)
    end, limit = start + 1, min(start + MAX_GROUP, len(messages))
    if kind is Release:
        while end < limit and type(messages[end]) is kind:
            end += 1
        return end
    shared_by: Any = _shared_by_questions if kind is Acquire else _shared_by_grants
    shared = shared_by(first)
    while end < limit and type(messages[end]) is kind and shared_by(messages[end]) == shared:
        end += 1
    return end


def _group(messages: Sequence[msgspec.Struct]) -> msgspec.Struct:
    first = messages[0]
    match first:
        case Acquire():
            others = cast("Sequence[Acquire]", messages[1:])
            return AcquireMany(first, [(other.span_id, other.input_tokens) for other in others])
        case Grant():
            return GrantMany(first, [other.span_id for other in cast("Sequence[Grant]", messages[1:])])
        case _:
            return ReleaseMany(cast("list[Release]", list(messages)))
