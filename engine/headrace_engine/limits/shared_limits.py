"""The limits that an engine shares with other engines: what it asks the store for, all limits together. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.messages import LimitKind
from headrace_engine.limits.budget import ASK_INTERVAL, BudgetAsk, BudgetLease, SharedLimit

_KINDS: tuple[LimitKind, ...] = ("requests", "tokens", "input_tokens", "output_tokens")


class SharedLimits:
    """The shared limits of one engine. ``engines``: see ``[budget] engines`` in the settings."""

    def __init__(self, engines: int) -> None:
        self._engines = engines
        self._limits: dict[str, SharedLimit] = {}
        self._ask_at = float("-inf")
        self._is_asking = False
        self.problem = ""
        """Why the store does not answer; empty while it does."""

    def of(self, name: Iterable[str], configured: LimitConfig | None) -> SharedLimit | None:
        """Return this engine's part of one limit of the settings; None if it has no figure for a minute.

        ``name``: whose limit it is, in words and hashes.
        """
        figures = {kind: getattr(configured, f"{kind}_per_minute") for kind in _KINDS} if configured else {}
        amounts: dict[LimitKind, int] = {kind: figure for kind, figure in figures.items() if figure is not None}
        if not amounts:
            return None
        key = "/".join(name)
        limit = self._limits.get(key)
        if limit is None:
            limit = self._limits[key] = SharedLimit(key, amounts, self._engines)
        else:
            limit.limit_to(amounts)
        return limit

    def keep(self, names: Iterable[Iterable[str]]) -> None:
        """Forget all limits but these."""
        keys = {"/".join(name) for name in names}
        self._limits = {key: limit for key, limit in self._limits.items() if key in keys}

    def asks(self, now: float) -> list[BudgetAsk]:
        """Return the questions to send now; none while the store has not answered the last ones."""
        if self._is_asking or (now < self._ask_at and not any(limit.is_urgent for limit in self._limits.values())):
            return []
        asks = [ask for limit in self._limits.values() if (ask := limit.ask(now)) is not None]
        self._is_asking = bool(asks)
        self._ask_at = now + ASK_INTERVAL
        return asks

    def next_ask(self, now: float) -> float | None:
        """Return when :meth:`asks` has questions next, if nothing else happens; None for never."""
        if self._is_asking or not any(limit.is_in_use(now) for limit in self._limits.values()):
            return None
        return max(self._ask_at, now)

    def answered(self, leases: Sequence[BudgetLease]) -> None:
        """The store has answered."""
        self._is_asking = False
        self.problem = ""
        for lease in leases:
            if (limit := self._limits.get(lease.limit)) is not None:
                limit.leased(lease)

    def failed(self, reason: str) -> None:
        """The store did not answer: each limit's share counts."""
        self._is_asking = False
        self.problem = reason
        for limit in self._limits.values():
            limit.lost()
