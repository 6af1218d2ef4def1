"""Rate limits of the simulated provider: requests and tokens a minute for each key and model, in a strict sliding window.

Pure: ``now`` is an argument. Only what was admitted counts: a request that got a 429 takes nothing from the limit.
"""

from __future__ import annotations

from collections import deque
from typing import Annotated, Any, Literal, Protocol

import msgspec

from headrace.testing.shared.reply import Reply

_MINUTE = 60.0

PerMinute = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class ProviderLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The limits of each pair of a key and a model. ``window``: seconds; of a window of 3 s, a twentieth of the limit is allowed."""

    requests_per_minute: PerMinute | None = None
    tokens_per_minute: PerMinute | None = None
    window: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = _MINUTE
    headers: bool = True
    retry_after: bool = True


class LimitLevel(msgspec.Struct, frozen=True):
    """One limit, as a request met it. ``limit`` and ``left`` are those of a minute; ``left`` is what this request leaves.

    ``asked``: what the request needs. ``wait``: seconds until it has room; 0: now. ``reset``: seconds until nothing of
    the limit is used any more.
    """

    kind: Literal["requests", "tokens"]
    limit: int
    left: int
    asked: int
    wait: float
    reset: float


class LimitCheck(msgspec.Struct, frozen=True):
    """What became of one request. ``exceeded``: the limit that it had to stop at."""

    limits: ProviderLimits
    levels: list[LimitLevel]
    exceeded: LimitLevel | None


class LimitForm(Protocol):
    """How one API speaks of its limits: a module with these functions."""

    def tokens_of(self, body: dict[str, Any], usage: dict[str, Any]) -> int:
        """Return how many tokens a request takes from the limit."""

    def limit_headers(self, check: LimitCheck, wall_time: int) -> dict[str, str]:
        """Return the headers that tell the limits. ``wall_time``: seconds since 1970."""

    def limited(self, check: LimitCheck, model: str) -> Reply:
        """Return the 429 reply to a request above a limit."""


class LimitEnforcement:
    """Admits requests while their key's and model's window has room for them."""

    def __init__(self) -> None:
        self._limits: dict[str, ProviderLimits] = {}
        self._windows: dict[tuple[str, str], _Window] = {}

    def __bool__(self) -> bool:
        return bool(self._limits)

    def set(self, key: str, limits: ProviderLimits) -> None:
        """Limit one key, by its hash; all keys that have no limits of their own if it is empty. What was used stays used."""
        if limits.requests_per_minute is None and limits.tokens_per_minute is None:
            self._limits.pop(key, None)
        else:
            self._limits[key] = limits

    def clear(self) -> None:
        """Remove all limits, and forget what was used."""
        self._limits.clear()
        self._windows.clear()

    def check(self, key: str, model: str, tokens: int, now: float) -> LimitCheck | None:
        """Count a request if it has room; say what it met. None if nothing limits its key."""
        limits = self._limits.get(key) or self._limits.get("")
        if limits is None:
            return None
        window = self._windows.get((key, model))
        if window is None:
            window = self._windows[key, model] = _Window()
        window.forget(now - limits.window)
        levels = window.levels(limits, tokens, now)
        exceeded = max((level for level in levels if level.wait > 0), key=lambda level: level.wait, default=None)
        if exceeded is None:
            window.add(now, tokens)
        return LimitCheck(limits, levels, exceeded)


class _Window:
    """What one key and model were admitted with lately: times, and tokens."""

    __slots__ = ("_entries", "_tokens")

    def __init__(self) -> None:
        self._entries: deque[tuple[float, int]] = deque()
        self._tokens = 0

    def forget(self, until: float) -> None:
        entries = self._entries
        while entries and entries[0][0] <= until:
            self._tokens -= entries.popleft()[1]

    def add(self, now: float, tokens: int) -> None:
        self._entries.append((now, tokens))
        self._tokens += tokens

    def levels(self, limits: ProviderLimits, tokens: int, now: float) -> list[LimitLevel]:
        levels: list[LimitLevel] = []
        if limits.requests_per_minute is not None:
            levels.append(self._level("requests", limits, limits.requests_per_minute, 1, now))
        if limits.tokens_per_minute is not None:
            levels.append(self._level("tokens", limits, limits.tokens_per_minute, tokens, now))
        return levels

    def _level(
        self, kind: Literal["requests", "tokens"], limits: ProviderLimits, limit: int, asked: int, now: float
    ) -> LimitLevel:
        share = limits.window / _MINUTE
        used = len(self._entries) if kind == "requests" else self._tokens
        excess = used + asked - limit * share
        wait = self._wait(kind, excess, limits.window, now) if excess > 0 else 0.0
        left = int((limit * share - used - (0 if wait else asked)) / share)
        last = self._entries[-1][0] if wait and self._entries else now
        return LimitLevel(kind, limit, min(max(left, 0), limit), asked, wait, last + limits.window - now)

    def _wait(self, kind: str, excess: float, window: float, now: float) -> float:
        """Return the seconds until so much has left the window; a whole window if that will not be enough."""
        for at, tokens in self._entries:
            excess -= 1 if kind == "requests" else tokens
            if excess <= 0:
                return max(at + window - now, 0.001)
        return window
