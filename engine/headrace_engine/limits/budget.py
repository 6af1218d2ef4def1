"""One set of limits for several engines: what an engine asks the shared store for, and its part of one limit. Pure.

The store counts what all engines have sent in the last minute, and what each has reserved. An engine asks four times a
second: it says what it has sent since its last question and how large a block it wants, and gets a new block. It sends
no request without a part of its block. While the store is away, each engine goes on with its share of the limit.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from headrace.wire.messages import LimitKind

Amounts = Mapping[LimitKind, int]

ASK_INTERVAL = 0.25
"""Seconds between two questions to the store, while there are runs."""
WINDOW = 61.0
"""Seconds for which a request counts: a minute, and the time that it may take to reach the provider."""
FRESH = 5.0
"""Seconds after which an engine that has not asked counts no more, and its block is free."""
_GROWTH = 2
"""A block is this many times what was used since the last question, so that a rising demand finds room soon."""
_RESERVE = 100
"""An engine that has had runs in the last minute keeps one part of this many of each limit: its next run need not wait."""


class BudgetStoreError(Exception):
    """The store cannot be reached, or answers wrongly. The text says which."""


class BudgetAsk(msgspec.Struct, frozen=True, gc=False):
    """What one engine tells and asks about one limit.

    ``limits``: the whole amounts for a minute. ``spent``: sent, and not told before; it may be negative, if less was
    used than was told. ``want``: the block that the engine wants to have now, what is left of its last one included.
    """

    limit: str
    limits: dict[LimitKind, int]
    spent: dict[LimitKind, int]
    want: dict[LimitKind, int]


class BudgetLease(msgspec.Struct, frozen=True, gc=False):
    """The store's answer: the block that the engine has now.

    ``engines``: how many engines use this limit, this one included. ``generation``: another word than before if the
    store has lost what it knew.
    """

    limit: str
    block: dict[LimitKind, int]
    engines: int
    generation: str


class BudgetSource(Protocol):
    """A store that several engines share. Used in a thread of its own."""

    def lease(self, asks: Sequence[BudgetAsk]) -> Sequence[BudgetLease]:
        """Answer each question, in their order. May take some time. Raises BudgetStoreError."""

    def close(self) -> None:
        """Give up the connection."""


class LocalBudget:
    """A store in this process: for engines that share one, and the model for other stores. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float], generation: str = "local") -> None:
        self._clock = clock
        self._generation = generation
        # By limit: (second, kind) → sent; (engine, kind) → block; engine → when it asked last.
        self._sent: dict[str, Counter[tuple[int, LimitKind]]] = {}
        self._blocks: dict[str, dict[tuple[str, LimitKind], int]] = {}
        self._asked_at: dict[str, dict[str, float]] = {}

    def of(self, engine: str) -> BudgetSource:
        """Return the source of one engine."""
        return _EngineBudget(self, engine)

    def lease(self, engine: str, ask: BudgetAsk) -> BudgetLease:
        """Answer the question of one engine."""
        now = self._clock()
        sent = self._sent.setdefault(ask.limit, Counter())
        blocks = self._blocks.setdefault(ask.limit, {})
        asked_at = self._asked_at.setdefault(ask.limit, {})
        asked_at[engine] = now
        for other in [other for other, at in asked_at.items() if at <= now - FRESH]:
            del asked_at[other]
        for owner in [owner for owner in blocks if owner[0] not in asked_at]:
            del blocks[owner]
        for second in [second for second in sent if second[0] <= int(now) - WINDOW]:
            del sent[second]
        block: dict[LimitKind, int] = {}
        for kind, limit in ask.limits.items():
            sent[int(now), kind] += ask.spent.get(kind, 0)
            used = sum(amount for (_, of), amount in sent.items() if of == kind)
            held = sum(amount for (owner, of), amount in blocks.items() if of == kind and owner != engine)
            part = -(-(limit - used - held) // len(asked_at))
            blocks[engine, kind] = block[kind] = max(0, min(ask.want.get(kind, 0), part))
        return BudgetLease(ask.limit, block, len(asked_at), self._generation)


class _EngineBudget:
    def __init__(self, store: LocalBudget, engine: str) -> None:
        self._store = store
        self._engine = engine

    def lease(self, asks: Sequence[BudgetAsk]) -> Sequence[BudgetLease]:
        return [self._store.lease(self._engine, ask) for ask in asks]

    def close(self) -> None:
        pass


class _Batch:
    """What was sent between two questions. ``is_told``: the store knows of it."""

    __slots__ = ("amounts", "at", "is_told")

    def __init__(self, at: float, amounts: dict[LimitKind, int]) -> None:
        self.at = at
        self.amounts = amounts
        self.is_told = False


class SharedLimit:
    """This engine's part of one limit, such as the requests and tokens of one key in a minute.

    ``name`` is the limit's name in the store. ``engines``: how many engines there are at least, for the time in which
    the store cannot tell.
    """

    def __init__(self, name: str, limits: Amounts, engines: int) -> None:
        self.name = name
        self._limits = dict(limits)
        self._least_engines = engines
        self._seen_engines = 1
        self._generation = ""
        self._block: dict[LimitKind, int] = dict.fromkeys(self._limits, 0)
        self._spent: dict[LimitKind, int] = dict.fromkeys(self._limits, 0)  # since the last question
        self._batches: deque[_Batch] = deque()  # of the last minute
        self._lacking: dict[LimitKind, int] = {}
        self._used_at = float("-inf")
        self._is_asking = False
        self.is_away = True
        """Whether the store does not answer. It does not before its first answer."""

    @property
    def share(self) -> float:
        """The part of the limit that this engine may use by itself now: 1.0 while the store shares it out."""
        return 1.0 / max(self._seen_engines, self._least_engines) if self.is_away else 1.0

    @property
    def is_urgent(self) -> bool:
        """Whether a run waits for a block: ask at once."""
        return bool(self._lacking) and not self._is_asking

    def is_in_use(self, now: float) -> bool:
        """Return whether there have been runs in the last minute, or one waits: then the store is asked again and again."""
        return now - self._used_at <= WINDOW or bool(self._lacking)

    def limit_to(self, limits: Amounts) -> None:
        """The settings have changed."""
        self._limits = dict(limits)
        self._block = {kind: self._block.get(kind, 0) for kind in self._limits}
        self._spent = {kind: self._spent.get(kind, 0) for kind in self._limits}

    def has_room(self, cost: Amounts) -> bool:
        """Return whether the block has room for a run. If it has none, the next question asks for more.

        A run that is larger than the whole limit counts as large as the limit.
        """
        if self.is_away:
            return True
        needed = {kind: min(cost.get(kind, 0), limit) for kind, limit in self._limits.items()}
        lacking = {kind: amount for kind, amount in needed.items() if amount > self._block[kind]}
        if lacking:
            self._lacking = needed
        return not lacking

    def take(self, cost: Amounts, now: float) -> None:
        """A run has been granted."""
        self._used_at = now
        self._add(cost)

    def settle(self, difference: Amounts) -> None:
        """A run has used this much more than it was granted for; less where the amount is negative."""
        self._add(difference)

    def _add(self, amounts: Amounts) -> None:
        for kind in self._limits:
            if amount := amounts.get(kind, 0):
                self._block[kind] -= amount
                self._spent[kind] += amount

    def ask(self, now: float) -> BudgetAsk | None:
        """Return the next question; None if nothing is to be asked, or the last one has no answer yet."""
        if self._is_asking or not self.is_in_use(now):
            return None
        self._is_asking = True
        spent, self._spent = self._spent, dict.fromkeys(self._limits, 0)
        self._batches.append(_Batch(now, spent))
        while self._batches[0].at < now - WINDOW:
            self._batches.popleft()
        told = dict.fromkeys(self._limits, 0)
        for batch in self._batches:
            for kind, amount in batch.amounts.items() if not batch.is_told else ():
                if kind in told:
                    told[kind] += amount
        want = {
            kind: min(limit, max(_GROWTH * spent[kind], _GROWTH * self._lacking.get(kind, 0), limit // _RESERVE, 1))
            for kind, limit in self._limits.items()
        }
        self._lacking = {}
        return BudgetAsk(self.name, dict(self._limits), told, want)

    def leased(self, lease: BudgetLease) -> None:
        """The store has answered. What was sent meanwhile comes out of the new block."""
        self._is_asking = False
        has_forgotten = bool(self._generation) and lease.generation != self._generation
        for batch in self._batches:
            batch.is_told = not has_forgotten  # if so, the next question tells of the whole last minute
        block = {} if has_forgotten else lease.block
        self._block = {kind: block.get(kind, 0) - self._spent[kind] for kind in self._limits}
        self._generation = lease.generation
        self._seen_engines = max(lease.engines, 1)
        self.is_away = False

    def lost(self) -> None:
        """The store did not answer. What the question told is told again."""
        self._is_asking = False
        self.is_away = True
