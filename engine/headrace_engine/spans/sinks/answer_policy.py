"""Decides what to do after a server's answer to a batch of spans: go on, try again, wait, send fewer, or give spans up. Pure.

Spans are given up only if the answer is certainly about these spans. If the operator can mend the cause (a key, an address), the spans
stay pending.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from headrace.text.secret_mask import NO_SECRETS, SecretMask

MAX_RETRY_AFTER = 300.0
"""The longest wait, in seconds, that a server can ask for."""
MAX_TRIES_OF_ONE = 20
"""How often a single span may be answered with status 500. Then it is given up: a span that breaks the server must not hold up others."""
MAX_EXCERPT = 200

_MALFORMED = frozenset({400, 422})
_PASSING = frozenset({408, 425, 429})


class SpanSetAside(msgspec.Struct, frozen=True):
    """A span that this sink will never take. ``index``: its place in the batch. ``reason``: why."""

    index: int
    reason: str


class Delivered(msgspec.Struct, frozen=True):
    """The first ``taken`` spans of the batch are done.

    Of them ``rejected`` were refused for ever, and ``skipped`` were not meant for this sink. ``aside``: the rejected spans that are
    known one by one.
    """

    taken: int
    rejected: int = 0
    skipped: int = 0
    reason: str = ""
    aside: tuple[SpanSetAside, ...] = ()


class Retry(msgspec.Struct, frozen=True):
    """Try again later: after ``after`` seconds or more, if the server says how long."""

    reason: str
    after: float | None = None


class Blocked(msgspec.Struct, frozen=True):
    """Sending will fail until somebody mends the configuration, here or at the server. Try again seldom."""

    reason: str


class SplitBatch(msgspec.Struct, frozen=True):
    """The batch was too large, or the server refuses one of its spans. Send fewer at once, to find out which."""

    reason: str


class Undeliverable(msgspec.Struct, frozen=True):
    """The server will never take these spans."""

    reason: str


Verdict = Delivered | Retry | Blocked | SplitBatch | Undeliverable


class ServerAnswer(msgspec.Struct, frozen=True):
    """An HTTP answer. ``body`` may be cut."""

    status: int
    retry_after: str = ""
    body: bytes = b""


def verdict_on(
    answer: ServerAnswer, spans: int, tries: int, wall_time: float, mask: SecretMask = NO_SECRETS
) -> Verdict:
    """Return the verdict on an HTTP answer to ``spans`` spans. ``tries``: how often they were sent. ``mask`` takes secrets out."""
    status = answer.status
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Delivered(spans)
    reason = _words(answer, mask)
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE or status in _MALFORMED:
        return SplitBatch(reason) if spans > 1 else Undeliverable(reason)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and spans == 1 and tries >= MAX_TRIES_OF_ONE:
        return Undeliverable(f"{reason}, {tries} times")
    is_broken = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED
    if is_broken or status in _PASSING:
        return Retry(reason, seconds_to_wait(answer.retry_after, wall_time))
    return Blocked(reason)


def seconds_to_wait(retry_after: str, wall_time: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, as a number or as a date; None if it has neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER)
    from email.utils import parsedate_to_datetime  # here: its import takes 10 ms, at the start of each collector

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return min(max(moment.timestamp() - wall_time, 0.0), MAX_RETRY_AFTER)


def joined_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """Return one verdict for a batch that was sent span by span. The spans before the first one that must be sent again are done.

    The spans after it may have arrived too. They are sent again, with the same ids.
    """
    taken = 0
    aside: list[SpanSetAside] = []
    for verdict in verdicts:
        match verdict:
            case Delivered():
                pass
            case Undeliverable():
                aside.append(SpanSetAside(taken, verdict.reason))
            case _:
                return _dealt_with(taken, aside) if taken else verdict
        taken += 1
    return _dealt_with(taken, aside)


def _dealt_with(taken: int, aside: list[SpanSetAside]) -> Delivered:
    return Delivered(taken, len(aside), reason=aside[-1].reason if aside else "", aside=tuple(aside))


def excerpt(text: str, mask: SecretMask) -> str:
    """Return the beginning of a server's text, on one line and without secrets; an empty string if it is markup or not text."""
    said = " ".join(text.split())
    if not said.isprintable() or said.startswith("<"):
        return ""
    return mask.masked(said)[:MAX_EXCERPT]


def _words(answer: ServerAnswer, mask: SecretMask) -> str:
    """Return the status, with the server's own words if they are a line of text."""
    try:
        words = f"HTTP {answer.status} {HTTPStatus(answer.status).phrase}"
    except ValueError:
        words = f"HTTP {answer.status}"
    said = excerpt(answer.body[: 4 * MAX_EXCERPT].decode("utf-8", "ignore"), mask)
    return f"{words}: {said}" if said else words
