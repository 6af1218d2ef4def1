"""An account: one key at one provider, and the limits of the settings over all models that it is used for. Pure."""

from __future__ import annotations

from typing import NamedTuple

from headrace.settings.limit_settings import LimitConfig
from headrace.wire.engine_status import LevelStatus, PoolStatus
from headrace_engine.limits.concurrency import Concurrency
from headrace_engine.limits.key_ring import KeyRing
from headrace_engine.limits.rate_limits import RateLimits


class AccountName(NamedTuple):
    """Whose limits they are: a provider, and the short hashes of a key and of an address."""

    provider: str
    key: str
    address: str


class PoolName(NamedTuple):
    """The name of a pool: an account, and a model family."""

    provider: str
    key: str
    address: str
    family: str

    @property
    def account(self) -> AccountName:
        """The account that the pool belongs to."""
        return AccountName(self.provider, self.key, self.address)


class Account:
    """The limits over all models of one key, as the settings have them."""

    def __init__(self, name: AccountName, configured: LimitConfig | None, ring: KeyRing, now: float) -> None:
        self.name = name
        self.ring = ring
        self.is_limited = configured is not None
        self.version = 0
        self.rates = RateLimits(configured, now)
        self.concurrency = Concurrency(None if configured is None else configured.max_concurrency)

    def configure(self, configured: LimitConfig | None, now: float) -> None:
        """The limits of the settings are these from now on."""
        self.is_limited = configured is not None
        self.rates.configure(configured, now)
        self.concurrency.configured = None if configured is None else configured.max_concurrency


def shown_key(key: str, own_key: str) -> str:
    """Return how the status shows a key: its first digits; nothing for the engine's only key."""
    return "" if key == own_key else key[:8]


def account_status(account: Account, own_key: str, now: float) -> PoolStatus:
    """Return the limits over all models of a key for the engine's status. Its model is ``*``."""
    levels: list[LevelStatus] = account.rates.levels(now)
    name, concurrency = account.name, account.concurrency
    return PoolStatus(
        name.provider,
        "*",
        shown_key(name.key, own_key),
        levels,
        concurrency.running,
        concurrency=concurrency.limit,
        out_of_rotation=account.ring.why_not(name.key, now),
    )
