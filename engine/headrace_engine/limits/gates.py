"""All pools of one engine: which gate a run stands before, made when it is needed, and forgotten when nobody uses it. Pure.

A pool is made for each run whose provider or model has limits in the settings. For other runs one is made by the first
failure that is the provider's, or by the first response that tells limits: until then nothing is looked at.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from heapq import nlargest
from typing import Any, assert_never

import msgspec

from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import Settings
from headrace.wire.accounts import model_family, short_hash
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Release, ResponseReport
from headrace_engine.limits import signs
from headrace_engine.limits.account import Account, AccountName, PoolName, account_status
from headrace_engine.limits.configured_limits import ConfiguredLimits
from headrace_engine.limits.gate import Draw, KeyRefused, Refusal
from headrace_engine.limits.key_ring import KeyRing
from headrace_engine.limits.key_spread import ANY_KEY, KeySpread
from headrace_engine.limits.pool import Pool, RunTicket, SavedPool, Shared, Spending, is_idle
from headrace_engine.limits.rate_limits import RateLimits
from headrace_engine.limits.shared_limits import SharedLimits

MAX_LEARNED = 1024
"""Pools that are made by what runs meet. Where there are more, only those that the settings ask for are made."""
MAX_POOLS = 4096
"""Pools in all. A run that needs one more is refused until another one has been idle for a minute."""
MAX_TOLD = 1024
"""Pools that the status tells: those with the most runs."""
_LOOK_INTERVAL = 60.0
"""Seconds between two looks for pools that nobody uses."""
_CROWDED_INTERVAL = 1.0
"""The same, while there are so many pools that no more are made."""
_REMEMBERED = 4096
"""Answers of :meth:`PoolGates.gate_of` that are remembered."""
_NO_RETRY = "the provider fails so often that no more retries are sent: more than a fifth of the runs were tried again"
_TOO_MANY = f"limits of {MAX_POOLS:,} keys and models are counted already"
_NO_HEDGE = "no second attempt beside the first one: too many were sent, or the pool has little left"


class _AccountState(msgspec.Struct, frozen=True):
    name: AccountName
    rates: Any


class _RingState(msgspec.Struct, frozen=True):
    provider: str
    keys: list[str]
    refused: list[str]


class _State(msgspec.Struct, frozen=True):
    at: float
    pools: list[SavedPool]
    accounts: list[_AccountState]
    rings: list[_RingState]


_DECODER = msgspec.msgpack.Decoder(_State)
_ENCODER = msgspec.msgpack.Encoder()


class PoolGates:
    """The gates of one engine. ``draw``: see ``Draw``. ``limits``: those that other engines use too. ``spending``: every run stands before a gate then, and is counted."""

    def __init__(
        self, settings: Settings, draw: Draw, spending: Spending | None = None, limits: SharedLimits | None = None
    ) -> None:
        self.generation = 0
        self._take(settings)
        self._shared = Shared(draw, spending, limits, facts=[])
        self._spending = spending
        self._pools: dict[PoolName, Pool] = {}
        self._accounts: dict[AccountName, Account] = {}
        self._spreads: dict[PoolName, KeySpread] = {}
        self._rings: dict[str, KeyRing] = {}
        # By provider, account and model, as the runs say them.
        self._found: dict[tuple[str, str, str], Pool | KeySpread | None] = {}
        self._is_open = False
        self._now = 0.0
        self._look_at = 0.0
        self._crowded_look_at = 0.0
        self._regroup()

    @property
    def is_changed(self) -> bool:
        """Whether :meth:`state` has something new to tell."""
        return self._shared.is_changed

    # What the admission asks. See ``Gates``.

    def gate_of(self, question: Acquire) -> Pool | KeySpread | None:
        """Return the gate that the run stands before; None if nothing limits it."""
        if self._is_open:
            return None
        run = (question.provider, question.account, question.model)
        try:
            return self._found[run]
        except KeyError:
            gate = self._find(self._name(question))
            if len(self._found) >= _REMEMBERED:
                self._found.clear()
            self._found[run] = gate
            return gate

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why the run gets no lease at all; None if it may wait. A retry or a hedge that may counts at once."""
        self._now = now
        is_further = question.is_provider_retry or question.is_hedge
        if self._is_open and not is_further:
            return None
        if now >= self._look_at:
            self._forget_idle(now)
        if len(self._pools) >= MAX_POOLS and self._is_without_place(question):
            return ("queue_full", _TOO_MANY, _LOOK_INTERVAL)
        if self._spending is not None and (refusal := self._spending.refusal(question, now)) is not None:
            return refusal
        if not is_further:
            return None
        gate = self.gate_of(question) or self._make(question)
        if question.is_provider_retry and gate is not None and not gate.retries.take(now):
            return ("no_retry", _NO_RETRY, None)
        if question.is_hedge and (gate is None or not gate.may_hedge(question, now) or not gate.hedges.take(now)):
            return ("no_hedge", _NO_HEDGE, None)
        return None

    def learns_from(self, question: Acquire, sign: Release | ResponseReport, now: float) -> bool:
        """Make a gate for a run without a ticket, if its failure or the head of its response says that there are limits."""
        match sign:
            case Release():
                if not signs.is_failure(sign):
                    return False
            case ResponseReport():
                if not sign.limits:
                    return False
            case _:
                assert_never(sign)
        self._now = now
        return self.gate_of(question) is None and self._make(question) is not None

    def adopt(self, question: Acquire, key: str, now: float, went_at: float | None = None) -> RunTicket | None:
        """Count a run that has its lease already. None: nothing limits it."""
        self._now = now
        match self.gate_of(question):
            case Pool() as pool:
                return pool.adopt(question, now, went_at)
            case KeySpread() as spread:
                return spread.adopt(question, key, now, went_at)
            case None:
                return None
            case gate:
                assert_never(gate)

    # Keys.

    def keys_told(self, epoch: int, keys: Mapping[str, Sequence[str]], now: float) -> None:
        """A worker says which keys it has."""
        self._now = now
        changed = [provider for provider, hashes in keys.items() if self._ring(provider).told(epoch, hashes)]
        if changed:
            self._shared.is_changed = True
            self._name_own_pools(set(changed))
            self._regroup()

    def worker_left(self, epoch: int) -> None:
        """A worker is gone. A key that no worker has is forgotten."""
        changed = [ring.worker_left(epoch) for ring in self._rings.values()]
        if any(changed):
            self._regroup()

    def configure(self, settings: Settings, now: float) -> None:
        """The settings are read again: their limits count from now on. What was used stays counted, and what headers said stays known."""
        self._now = now
        self._take(settings)
        for name, account in self._accounts.items():
            account.configure(self._limits.of_provider(name.provider), now)
            self._share(account.rates, name, self._limits.of_provider(name.provider))
        for pool in self._pools.values():
            pool.configure(self._limits.of_family(pool.name.provider, pool.name.family), now)
            self._share(pool.rates, pool.name, pool.configured)
        self._shared.is_changed = True
        self._regroup()

    def _take(self, settings: Settings) -> None:
        self._limits = ConfiguredLimits(settings)
        self._apis = {name: provider.api for name, provider in settings.providers.items()}
        self._addresses = {
            name: short_hash(provider.base_url.rstrip("/")) for name, provider in settings.providers.items()
        }

    def reloaded(self) -> None:
        """Workers have read their keys again: keys that the provider refused are tried again."""
        for ring in self._rings.values():
            ring.reloaded()
        self._shared.is_changed = True

    def facts(self) -> list[KeyRefused]:
        """Return what has happened since the last call and is to be logged loudly."""
        facts, self._shared.facts = self._shared.facts, []
        return facts

    # Status and state.

    def pools(self, waiting: Mapping[Hashable, int], now: float) -> list[PoolStatus]:
        """Return the pools for the engine's status. ``waiting``: the key of a gate → how many runs wait at it."""
        told = list(self._pools.values())
        spreads = list(self._spreads.values())
        if len(told) + len(spreads) > MAX_TOLD:
            told = nlargest(MAX_TOLD, told, lambda pool: (waiting.get(pool.key, 0), pool.running, pool.granted_total))
            spreads = nlargest(MAX_TOLD, spreads, lambda spread: (waiting.get(spread.key, 0), spread.granted_total))
        found = [spread.status(waiting.get(spread.key, 0)) for spread in spreads]
        accounts: dict[AccountName, Account] = {}
        for pool in told:
            name = pool.name
            accounts[name.account] = pool.account
            found.append(pool.status(self._own_key(name.provider), waiting.get(name, 0), now))
        found += [
            account_status(one, self._own_key(one.name.provider), now) for one in accounts.values() if one.is_limited
        ]
        return sorted(found, key=lambda pool: (pool.provider, pool.model, pool.key))

    def state(self, now: float) -> bytes | None:
        """Return what a new broker of this boot must know of the limits; None if it has not changed since the last call."""
        if not self._shared.is_changed:
            return None
        self._shared.is_changed = False
        return _ENCODER.encode(
            _State(
                now,
                [pool.state(now) for pool in self._pools.values()],
                [
                    _AccountState(name, one.rates.to_state(now))
                    for name, one in self._accounts.items()
                    if one.is_limited
                ],
                [
                    _RingState(name, list(ring.keys), ring.refused_keys)
                    for name, ring in self._rings.items()
                    if ring.keys
                ],
            )
        )

    def restore(self, state: bytes, now: float) -> None:
        """Take over the state of an earlier broker of this boot. Raises msgspec.DecodeError if it cannot be read."""
        self._now = now
        told = _DECODER.decode(state)
        self._shared.forgotten = (told.at, now)
        for ring in told.rings:
            self._ring(ring.provider).restore(ring.keys, ring.refused)
        for one in told.accounts:
            account = self._account(one.name)
            if account.is_limited:
                configured = self._limits.of_provider(one.name.provider)
                account.rates = RateLimits.from_state(one.rates, configured, now)
                self._share(account.rates, one.name, configured)
        for pool in told.pools:
            known = self._pool(pool.name)
            known.restore(pool, now)
            self._share(known.rates, pool.name, known.configured)
        self._regroup()

    # Pools.

    def _find(self, name: PoolName) -> Pool | KeySpread | None:
        """Return the gate with this name, if there is one or the settings ask for one."""
        known = self._spreads.get(name) or self._pools.get(name)
        if known is not None or not self._is_asked_for(name) or len(self._pools) >= MAX_POOLS:
            return known
        return self._gate(name)

    def _gate(self, name: PoolName) -> Pool | KeySpread:
        return self._spread(name) if name.key == ANY_KEY else self._pool(name)

    def _is_without_place(self, question: Acquire) -> bool:
        """Return whether a run needs a pool for which there is no place, also after a look for pools that nobody uses."""
        if self.gate_of(question) is not None or not self._is_asked_for(self._name(question)):
            return False
        self._make_places()
        return len(self._pools) >= MAX_POOLS

    def _make_places(self) -> None:
        """There are many pools: forget those that are idle, but do not look for them again and again."""
        if self._now >= self._crowded_look_at:
            self._crowded_look_at = self._now + _CROWDED_INTERVAL
            self._forget_idle(self._now, is_crowded=True)

    def _make(self, question: Acquire) -> Pool | KeySpread | None:
        """Make the gate of a run. None: there are too many."""
        if len(self._pools) >= MAX_LEARNED:
            self._make_places()
            if len(self._pools) >= MAX_LEARNED:
                return None
        gate = self._gate(self._name(question))
        self._regroup()
        return gate

    def _is_asked_for(self, name: PoolName) -> bool:
        return (
            name.key == ANY_KEY
            or self._spending is not None
            or self._limits.of_provider(name.provider) is not None
            or self._limits.of_family(name.provider, name.family) is not None
        )

    def _name(self, question: Acquire) -> PoolName:
        """Return the name of a run's pool: the key and the address that it does not name are the engine's own."""
        key, _, address = question.account.partition("@")
        key = "" if key == ANY_KEY else key  # no caller's key has this name
        provider = question.provider
        address = address or self._addresses.get(provider, "")
        return PoolName(provider, key or self._own_key(provider), address, model_family(question.model))

    def _own_key(self, provider: str) -> str:
        """Return the engine's key of a provider: its hash, a word for any of several, nothing if it has none."""
        ring = self._rings.get(provider)
        if ring is None or not ring.keys:
            return ""
        return ring.keys[0] if len(ring.keys) == 1 else ANY_KEY

    def _pool(self, name: PoolName) -> Pool:
        pool = self._pools.get(name)
        if pool is None:
            configured = self._limits.of_family(name.provider, name.family)
            api = self._apis.get(name.provider, "")
            pool = Pool(name, self._account(name.account), configured, api, self._shared, self._now)
            self._share(pool.rates, name, configured)
            self._pools[name] = pool
        return pool

    def _account(self, name: AccountName) -> Account:
        account = self._accounts.get(name)
        if account is None:
            configured = self._limits.of_provider(name.provider)
            account = self._accounts[name] = Account(name, configured, self._ring(name.provider), self._now)
            self._share(account.rates, name, configured)
        return account

    def _spread(self, name: PoolName) -> KeySpread:
        spread = self._spreads.get(name)
        if spread is None:
            spread = KeySpread(
                name, self._ring(name.provider), lambda key: self._pool(name._replace(key=key)), self._now
            )
            self._spreads[name] = spread
        return spread

    def _ring(self, provider: str) -> KeyRing:
        return self._rings.setdefault(provider, KeyRing(provider))

    def _name_own_pools(self, providers: AbstractSet[str]) -> None:
        """The engine's only key has become known: what was counted without its name is its own."""
        for name in [name for name in self._accounts if not name.key and name.provider in providers]:
            keys = self._rings[name.provider].keys
            known = name._replace(key=keys[0] if keys else "")
            if len(keys) != 1 or known in self._accounts:
                continue
            account = self._accounts[known] = self._accounts.pop(name)
            account.name = known
            self._share(account.rates, known, self._limits.of_provider(known.provider))
            for pool_name in [pool_name for pool_name in self._pools if pool_name.account == name]:
                pool = self._pools.pop(pool_name)
                pool.key = pool.name = pool_name._replace(key=known.key)
                self._share(pool.rates, pool.name, pool.configured)
                self._pools[pool.name] = pool

    def _share(self, rates: RateLimits, name: AccountName | PoolName, configured: LimitConfig | None) -> None:
        """Other engines use the limits of the settings too, if there is a budget."""
        if self._shared.limits is not None:
            rates.share_with(self._shared.limits.of(name, configured), self._now)

    def _forget_idle(self, now: float, *, is_crowded: bool = False) -> None:
        """Forget the pools that nobody has used for long, and that hold nothing."""
        self._look_at = now + _LOOK_INTERVAL
        for pool in self._pools.values():
            pool.forget_old(now)
        pools = {name: pool for name, pool in self._pools.items() if not pool.is_forgotten(now, is_crowded=is_crowded)}
        spreads = {
            name: spread
            for name, spread in self._spreads.items()
            if not is_idle(spread.used_at, now, is_crowded=is_crowded)
        }
        if (len(pools), len(spreads)) == (len(self._pools), len(self._spreads)):
            return
        self._pools, self._spreads = pools, spreads
        used = {name.account for name in pools}
        self._accounts = {name: account for name, account in self._accounts.items() if name in used}
        if self._shared.limits is not None:
            self._shared.limits.keep([*self._pools, *self._accounts])
        providers = {name.provider for name in used}
        self._rings = {name: ring for name, ring in self._rings.items() if name in providers or ring.is_known}
        self._shared.is_changed = True
        self._regroup()

    def _regroup(self) -> None:
        """Runs may stand before another gate than before."""
        self.generation += 1
        self._found.clear()
        self._is_open = not (
            self._limits
            or self._spending is not None
            or self._pools
            or self._spreads
            or any(len(ring.keys) > 1 for ring in self._rings.values())
        )
