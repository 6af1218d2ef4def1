"""Reads a provider's rate limits from the headers of a response: ``x-ratelimit-*``, ``anthropic-ratelimit-*`` and others.

Pure. No clock is read: a reset that is a date is counted from the response's own ``Date`` header.

Only limits per minute are told as limits. A limit per day says nothing about a minute, so it is told only when nothing
of it remains: as ``remaining`` 0 without a ``limit``, and with the seconds until a request may pass again. A limit is
taken for one per day if its header's name says so, if Groq sends it for requests, if its reset is more than 90 s away,
or if its reset fits no other time. (A limit of more than 1,440 requests per day may look like one per minute while almost all of it is left. It holds
nothing back then.) Limits per month are left out: no provider tells their reset.

A limit with an impossible value is left out: a count that is negative or no number, a limit of 0, or a reset more than a
day away or more than a minute ago. OpenAI's and Azure's -1 means "not known".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

import msgspec

from headrace.wire.messages import LimitKind, SaidLimit

_MAX_COUNT = 10**12
"""Requests or tokens in a minute. A larger count is no real limit."""
_LONGEST_MINUTE = 90.0
"""Seconds. A reset of a limit per minute is at most this far away: a minute, and some difference between two clocks."""
_LATE = 60.0
"""Seconds. A reset may be this long ago: some providers count it from the request, and the answer took longer."""
_DAY = 86_400.0 + _LATE
_SAME = 0.002
"""Seconds. Two times that differ by less are the same: providers round to milliseconds."""
_MAX_TEXT = 40
_IMPOSSIBLE = -1.0
"""Stands for a value that cannot be true."""
_EPOCH_SECONDS = 1e9
_EPOCH_MILLISECONDS = 1e11
"""Numbers from here on are times since 1970, in seconds or in milliseconds. OpenRouter sends the latter."""

_NUMBER = re.compile(r"\d{1,16}(?:\.\d{1,20})?")
_DURATION = re.compile(
    r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9}(?:\.\d{1,20})?)s)?(?:(\d{1,9}(?:\.\d{1,20})?)ms)?"
)
_SMALL_DURATION = re.compile(r"\d{1,9}(?:\.\d{1,20})?(?:µs|Âµs|μs|us|ns)")
"""Less than a millisecond, as Go writes it. ``Âµ`` is a ``µ`` in UTF-8 that was read as Latin-1."""
_HTTP_DATE = re.compile(r"[A-Z][a-z]{2}, (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT")
_MONTHS = {
    name: 1 + place
    for place, name in enumerate(["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"])
}

Window = Literal["", "minute", "day", "unnamed"]
"""The time that a limit is about, as the names of its headers say. ``unnamed``: they do not even name what they count."""


class _Source(msgspec.Struct, frozen=True):
    """The names of the headers that tell one limit. ``period``: how often it is renewed, in seconds."""

    kind: LimitKind
    limit: str
    remaining: str
    reset: str
    window: Window = ""
    period: str = ""


def _openai(kind: LimitKind, what: str, window: Window = "") -> _Source:
    limit, remaining, reset, period = (
        f"x-ratelimit-{word}-{what}" for word in ("limit", "remaining", "reset", "renewalperiod")
    )
    return _Source(kind, limit, remaining, reset, window, period)


def _anthropic(kind: LimitKind, what: str) -> _Source:
    prefix = f"anthropic-ratelimit-{what}"
    return _Source(kind, f"{prefix}-limit", f"{prefix}-remaining", f"{prefix}-reset")


_REQUESTS = _openai("requests", "requests")
_SOURCES = (
    _REQUESTS,
    _openai("tokens", "tokens"),
    _openai("tokens", "tokens-usage-based"),
    _openai("tokens", "project-tokens"),
    _openai("requests", "requests-minute", "minute"),
    _openai("tokens", "tokens-minute", "minute"),
    _openai("requests", "requests-day", "day"),
    _openai("tokens", "tokens-day", "day"),
    _anthropic("requests", "requests"),
    _anthropic("tokens", "tokens"),
    _anthropic("input_tokens", "input-tokens"),
    _anthropic("output_tokens", "output-tokens"),
    # Mistral: tokens of a minute.
    _Source("tokens", "ratelimitbysize-limit", "ratelimitbysize-remaining", "ratelimitbysize-reset"),
    # OpenRouter.
    _Source("requests", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "unnamed"),
)
_SOURCE_OF = {name: source for source in _SOURCES for name in (source.limit, source.remaining)}
_NAMES = _SOURCE_OF.keys()


def read_limits(headers: Mapping[str, str]) -> list[SaidLimit]:
    """Return the limits in the headers of a response, at most one of each kind. ``headers`` has lower-case names.

    Where several headers tell limits of one kind, the lowest counts.
    """
    if headers.keys().isdisjoint(_NAMES):
        return []
    limits: dict[LimitKind, SaidLimit] = {}
    for source in dict.fromkeys([_SOURCE_OF[name] for name in headers if name in _SOURCE_OF]):
        said = _read(source, headers)
        if said is not None:
            other = limits.get(said.kind)
            limits[said.kind] = said if other is None else _lower(said, other)
    return list(limits.values())


def _read(source: _Source, headers: Mapping[str, str]) -> SaidLimit | None:
    """Return the limit that one group of headers tells. None: a value is impossible, or the limit is not per minute."""
    limit, remaining = _count(headers.get(source.limit)), _count(headers.get(source.remaining))
    reset = _seconds(headers.get(source.reset), headers)
    if limit in (0, _IMPOSSIBLE) or _IMPOSSIBLE in (remaining, reset):
        return None
    if reset is not None and reset > _LONGEST_MINUTE and _is_renewed_each_minute(source, headers):
        reset = None  # it is not in seconds
    if _is_long(source, limit, remaining, reset, headers):
        if remaining != 0 or reset is None:
            return None
        # A limit without "day" in its name is refilled all the time. Its reset says when all of it is there again.
        return SaidLimit(source.kind, None, 0, reset / limit if limit and source.window == "" else reset)
    if limit is not None and remaining is not None:
        remaining = min(limit, remaining)
    return SaidLimit(source.kind, limit, remaining, reset)


def _is_long(
    source: _Source, limit: int | None, remaining: int | None, reset: float | None, headers: Mapping[str, str]
) -> bool:
    """Return whether a limit is, or may be, about more than a minute."""
    if source.window == "day" or (reset is not None and reset > _LONGEST_MINUTE):
        return True
    if source.window == "unnamed":
        return reset is None or not _is_in_milliseconds(headers[source.reset])
    return source is _REQUESTS and ("x-groq-region" in headers or _is_refilled_in_a_day(limit, remaining, reset))


def _is_refilled_in_a_day(limit: int | None, remaining: int | None, reset: float | None) -> bool:
    """Return whether the reset is just the time in which a limit per day is refilled with what was used of it."""
    if not limit or remaining is None or not reset or remaining >= limit:
        return False
    return abs(reset * limit - (limit - remaining) * 86_400) < _SAME * limit


def _is_in_milliseconds(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and float(text) >= _EPOCH_MILLISECONDS


def _is_renewed_each_minute(source: _Source, headers: Mapping[str, str]) -> bool:
    """Return whether Azure says that a limit is per minute. Its resets are in seconds, or in milliseconds."""
    period = headers.get(source.period, "")
    return _NUMBER.fullmatch(period) is not None and float(period) <= _LONGEST_MINUTE


def _lower(one: SaidLimit, other: SaidLimit) -> SaidLimit:
    """Return one limit for two of the same kind: the lower limit, and what is left of the one with less left."""
    known = [limit for limit in (one.limit, other.limit) if limit is not None]
    least = min(one, other, key=lambda said: _MAX_COUNT if said.remaining is None else said.remaining)
    return SaidLimit(one.kind, min(known, default=None), least.remaining, least.reset)


def _count(text: str | None) -> int | None:
    """Return a count of requests or tokens. ``None``: not told."""
    if text is None:
        return None
    if not text.isdecimal() or len(text) > _MAX_TEXT:
        return int(_IMPOSSIBLE)
    count = int(text)
    return count if count <= _MAX_COUNT else int(_IMPOSSIBLE)


def _seconds(text: str | None, headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a reset. ``None``: not told, or a date in a response that does not tell its own."""
    if text is None:
        return None
    if not text or len(text) > _MAX_TEXT:
        return _IMPOSSIBLE
    if "T" in text:
        return _wait(_epoch(text), headers)
    if not text[-1].isdecimal():
        seconds = _duration(text)
    elif _NUMBER.fullmatch(text) is None:
        return _IMPOSSIBLE
    else:
        seconds = float(text)
        if seconds >= _EPOCH_MILLISECONDS:
            return _wait(seconds / 1000, headers)
        if seconds >= _EPOCH_SECONDS:
            return _wait(seconds, headers)
    return seconds if seconds <= _DAY else _IMPOSSIBLE


def _wait(epoch: float, headers: Mapping[str, str]) -> float | None:
    """Return the seconds from the response's date until ``epoch``, seconds since 1970."""
    date = headers.get("date")
    if epoch == _IMPOSSIBLE or date is None:
        return None if date is None else _IMPOSSIBLE
    now = _epoch_of_date(date) if len(date) <= _MAX_TEXT else _IMPOSSIBLE
    if now == _IMPOSSIBLE:
        return None
    wait = epoch - now
    return max(0.0, wait) if -_LATE <= wait <= _DAY else _IMPOSSIBLE


# The same texts come again and again: all responses of one second have one date, and most resets are a few milliseconds.


@lru_cache(maxsize=1024)
def _duration(text: str) -> float:
    """Return the seconds of a duration such as ``12ms``, ``59.369s``, ``6m0s`` or ``1h2m``."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return 0.0 if _SMALL_DURATION.fullmatch(text) else _IMPOSSIBLE
    days, hours, minutes, seconds, milliseconds = [float(part) if part else 0.0 for part in match.groups()]
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds + milliseconds / 1000


@lru_cache(maxsize=256)
def _epoch(text: str) -> float:
    """Return a time of RFC 3339 as seconds since 1970."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _IMPOSSIBLE
    return moment.timestamp() if moment.tzinfo is not None else _IMPOSSIBLE


@lru_cache(maxsize=256)
def _epoch_of_date(text: str) -> float:
    """Return the value of a ``Date`` header as seconds since 1970."""
    match = _HTTP_DATE.fullmatch(text)
    if match is None:
        return _IMPOSSIBLE
    day, month, year, hour, minute, second = match.groups()
    try:
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC
        ).timestamp()
    except (KeyError, ValueError):
        return _IMPOSSIBLE
