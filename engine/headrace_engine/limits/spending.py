"""Spending limits: how much money the runs of a day (UTC) may cost, for a provider, a model, a user or a tag. Pure.

A run's cost is estimated and reserved when it is granted, and replaced by the real cost when it ends. It counts for the
day on which it was granted. Amounts are whole billionths of a US dollar, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

import msgspec

from headrace.pricing.prices import PriceTable
from headrace.settings.limit_settings import SpendingConfig
from headrace.text.model_names import fits, model_family
from headrace.types import Usage
from headrace.wire.accounts import short_hash
from headrace.wire.engine_status import SpendingStatus
from headrace.wire.messages import Acquire, Release, TokenCounts
from headrace_engine.limits.gate import Refusal
from headrace_engine.limits.token_estimates import TokenEstimates

BILLIONTHS = 1_000_000_000
"""Units of an amount in a dollar."""
ANY_USER = "*"
_DAY_SECONDS = 86_400
_RETRY_SOON = 1.0
"""Seconds after which it may help to ask again, if only the estimates of running runs fill the limit."""
_MOST = 1_000_000 * BILLIONTHS
"""What one run costs at most. More can only be a mistake in its token counts, and the sums of a day must fit into 64 bits."""
_MAX_MODELS = 1024
"""Models of which estimates are kept."""
_FREE = frozenset(
    {
        "withdrawn",
        "invalid_request",
        "authentication",
        "rate_limit",
        "provider_unavailable",
        "worker_stopping",
        "duplicate_span_id",
    }
)
"""Outcomes of attempts for which a provider bills nothing, if it told no tokens."""

Spender = tuple[str, str]
"""Whose money is counted: the name of a spending table, and the short hash of a user; empty if users are not told apart."""
Day = str
"""A day (UTC), as ``2026-11-29``."""
Amounts = Mapping[tuple[Day, str, str], int]
"""Day, name of the table, user → billionths of a dollar."""


def day_of(unix_time: float) -> Day:
    """Return the day of a time in seconds since 1970."""
    return datetime.fromtimestamp(unix_time, UTC).date().isoformat()


class Charge(msgspec.Struct, frozen=True, gc=False):
    """What one run has reserved: ``amount`` for each of ``spenders``, on one day. ``input_tokens`` is the client's estimate."""

    day: Day
    spenders: tuple[Spender, ...]
    amount: int
    provider: str
    model: str
    input_tokens: int


class _Limit(msgspec.Struct, frozen=True):
    """One ``[spending.LABEL]`` table. ``user`` and ``tag`` are short hashes."""

    label: str
    config: SpendingConfig
    most: int
    user: str
    tag: str

    def spender(self, question: Acquire) -> Spender | None:
        """Return who pays for a run; None if the table is not about it."""
        config = self.config
        if config.provider and config.provider != question.provider:
            return None
        if config.model and not _fits_model(config.model, question.provider, question.model):
            return None
        if self.tag and self.tag not in question.tags:
            return None
        if config.user_id == ANY_USER:
            return (self.label, question.user) if question.user else None
        return None if self.user and self.user != question.user else (self.label, "")


class SpendingLimits:
    """All spending tables of the settings.

    ``unix_time`` turns a time on the broker's clock into seconds since 1970. ``unpriced`` is told each model without a
    price, once: its runs count as free.
    """

    def __init__(
        self,
        tables: Mapping[str, SpendingConfig],
        prices: PriceTable,
        unix_time: Callable[[float], float],
        unpriced: Callable[[str, str], None],
    ) -> None:
        self._unix_time = unix_time
        self._unpriced = unpriced
        self._without_price: set[tuple[str, str]] = set()
        self._estimates: dict[tuple[str, str], TokenEstimates] = {}
        self._day: Day = ""
        # Of this day: what the store has, and what running runs have reserved.
        self._stored: dict[Spender, int] = {}
        self._reserved: dict[Spender, int] = {}
        # What the store has been given and has not confirmed, and what it has not been given.
        self._handed: dict[tuple[Day, str, str], int] = {}
        self._new: dict[tuple[Day, str, str], int] = {}
        self.configure(tables, prices)

    def configure(self, tables: Mapping[str, SpendingConfig], prices: PriceTable) -> None:
        """Take other tables and prices. What was spent stays counted by the names of the tables."""
        self._limits = [
            _Limit(
                label, config, round(config.max_cost * BILLIONTHS), short_hash(config.user_id), short_hash(config.tag)
            )
            for label, config in tables.items()
        ]
        self._prices = prices
        self._without_price.clear()

    # What the gates ask.

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why a run gets no lease; None if there is money for it."""
        self._turn_to(day_of(self._unix_time(now)))
        cost = -1
        for limit in self._limits:
            if (spender := limit.spender(question)) is None:
                continue
            cost = self._estimate(question) if cost < 0 else cost
            spent, reserved = self._spent(spender), self._reserved.get(spender, 0)
            # A limit that is reached refuses also what seems to cost nothing.
            if spent + reserved + max(cost, 1) > limit.most:
                return self._over_budget(limit, spent, reserved, cost, now)
        return None

    def granted(self, question: Acquire, now: float) -> Charge | None:
        """Reserve what a run will cost. Return what :meth:`ended` needs; None if no table is about the run."""
        self._turn_to(day_of(self._unix_time(now)))
        spenders = tuple(spender for limit in self._limits if (spender := limit.spender(question)) is not None)
        if not spenders:
            return None
        amount = self._estimate(question)
        for spender in spenders:
            self._reserved[spender] = self._reserved.get(spender, 0) + amount
        return Charge(self._day, spenders, amount, question.provider, question.model, question.input_tokens)

    def ended(self, charge: object, release: Release | None, now: float) -> None:
        """A run has ended: count what it has cost. ``release`` is None if its client or its worker went away."""
        self._turn_to(day_of(self._unix_time(now)))
        if not isinstance(charge, Charge):
            return
        cost = self._real_cost(charge, release)
        for spender in charge.spenders:
            if charge.day == self._day:
                self._set_reserved(spender, self._reserved.get(spender, 0) - charge.amount)
            if cost:
                key = (charge.day, *spender)
                self._new[key] = self._new.get(key, 0) + cost

    # What the store is told, and tells.

    def unsaved(self) -> Amounts | None:
        """Return the amounts to add to the store; None if there are none, or if the last ones have not been answered yet.

        The caller answers with :meth:`saved` or :meth:`failed`.
        """
        if self._handed or not self._new:
            return None
        self._handed, self._new = self._new, {}
        return self._handed

    def not_handed(self) -> Amounts:
        """Return the amounts that :meth:`unsaved` has not returned yet."""
        return self._new

    def saved(self) -> None:
        """The store has added the amounts. Its totals follow in :meth:`told`, in the same turn."""
        self._handed = {}

    def failed(self) -> None:
        """The store has not added the amounts. They are kept, and given to it again."""
        handed, self._handed = self._handed, {}
        for key, amount in handed.items():
            self._new[key] = self._new.get(key, 0) + amount

    def told(self, day: Day, totals: Mapping[Spender, int]) -> None:
        """The store tells the totals of a day, those of other engines among them."""
        self._turn_to(day)
        self._stored = dict(totals)

    # The status.

    def status(self, now: float) -> list[SpendingStatus]:
        """Return each table with what was spent today. With ``user_id = "*"``: by the user who has spent most."""
        self._turn_to(day_of(self._unix_time(now)))
        spent: dict[str, int] = {}
        for spender in {*self._stored, *self._counted_today(self._handed), *self._counted_today(self._new)}:
            spent[spender[0]] = max(spent.get(spender[0], 0), self._spent(spender))
        return [
            SpendingStatus(limit.label, spent.get(limit.label, 0) / BILLIONTHS, limit.config.max_cost)
            for limit in self._limits
        ]

    # Amounts.

    def _turn_to(self, day: Day) -> None:
        if day != self._day:
            self._day = day
            self._stored = {}
            self._reserved = {}

    def _counted_today(self, amounts: Iterable[tuple[Day, str, str]]) -> list[Spender]:
        return [(label, user) for day, label, user in amounts if day == self._day]

    def _spent(self, spender: Spender) -> int:
        key = (self._day, *spender)
        return self._stored.get(spender, 0) + self._handed.get(key, 0) + self._new.get(key, 0)

    def _set_reserved(self, spender: Spender, amount: int) -> None:
        if amount > 0:
            self._reserved[spender] = amount
        else:
            self._reserved.pop(spender, None)

    def _estimate(self, question: Acquire) -> int:
        """Return what a run will likely cost."""
        estimates = self._estimates.get((question.provider, model_family(question.model)))
        tokens = (estimates or _UNKNOWN).cost(question.input_tokens, question.max_output_tokens, whole_output=False)
        return self._cost(
            question.provider, question.model, TokenCounts(tokens.input_tokens, tokens.output_tokens, 0, "estimated")
        )

    def _real_cost(self, charge: Charge, release: Release | None) -> int:
        if release is None:
            return charge.amount
        if (tokens := release.tokens) is not None:
            self._learn(charge, tokens)
            return self._cost(charge.provider, charge.model, tokens)
        is_unsent = release.outcome == "timeout" and release.clock == "connect"
        return 0 if is_unsent or release.outcome in _FREE else charge.amount

    def _learn(self, charge: Charge, tokens: TokenCounts) -> None:
        if tokens.source != "provider":
            return
        name = (charge.provider, model_family(charge.model))
        if (estimates := self._estimates.get(name)) is None:
            if len(self._estimates) >= _MAX_MODELS:
                self._estimates.clear()
            estimates = self._estimates[name] = TokenEstimates()
        estimates.learn(charge.input_tokens, tokens.input_tokens, tokens.output_tokens)

    def _cost(self, provider: str, model: str, tokens: TokenCounts) -> int:
        usage = Usage(
            input_tokens=tokens.input_tokens,
            output_tokens=tokens.output_tokens,
            cached_input_tokens=tokens.cached_input_tokens,
            cache_write_tokens=tokens.cache_write_tokens,
            source=tokens.source,
        )
        dollars = self._prices.cost(provider, model, usage)
        if dollars is None:
            self._note_unpriced(provider, model)
            return 0
        return min(round(dollars * BILLIONTHS), _MOST)

    def _note_unpriced(self, provider: str, model: str) -> None:
        if (provider, model) not in self._without_price and len(self._without_price) < _MAX_MODELS:
            self._without_price.add((provider, model))
            self._unpriced(provider, model)

    def _over_budget(self, limit: _Limit, spent: int, reserved: int, cost: int, now: float) -> Refusal:
        text = f"[spending.{limit.label}] allows ${limit.config.max_cost:,.2f} a day (UTC)"
        if limit.config.user_id == ANY_USER:
            text += " for each user"
        text += f": {_dollars(spent)} is spent"
        if reserved:
            text += f", runs that are running may cost {_dollars(reserved)}"
        text += f", and this run may cost {_dollars(cost)}"
        if cost > limit.most:
            return "over_budget", text, None
        unix_time = self._unix_time(now)
        to_next_day = _DAY_SECONDS - unix_time % _DAY_SECONDS
        if spent + max(cost, 1) <= limit.most:
            return "over_budget", text, _RETRY_SOON
        return "over_budget", f"{text}; the next day begins in {_duration(to_next_day)}", to_next_day


_UNKNOWN = TokenEstimates()
"""Of a model of which no run has ended. It is never told anything."""


def _fits_model(pattern: str, provider: str, model: str) -> bool:
    return (
        fits(pattern, model)
        or fits(pattern, model_family(model))
        or fits(pattern, f"{provider}/{model}")
        or (fits(pattern, f"{provider}/{model_family(model)}"))
    )


def _dollars(amount: int) -> str:
    dollars = amount / BILLIONTHS
    return f"${dollars:,.2f}" if dollars >= 1 or not amount else f"${dollars:.2g}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(max(round(seconds / 60), 1), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
