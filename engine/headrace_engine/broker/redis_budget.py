"""The budget of several engines in Redis or Valkey: one script call for each limit. Blocking; runs in the budget's thread.

All times are the store's own, so the clocks of the engines' hosts do not matter. Keys in the store have hashes in them,
never a provider's key.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from headrace.errors import ConfigurationError
from headrace.text.shown_address import without_password
from headrace.wire.messages import LimitKind
from headrace_engine.limits.budget import FRESH, WINDOW, BudgetAsk, BudgetLease, BudgetStoreError

TIMEOUT = 1.0
"""Seconds that the store may take to answer."""
# One hash for each limit. Its fields: "gen"; "s:KIND:SECOND" sent in that second; "h:KIND:ENGINE" the block of an
# engine; "e:ENGINE" when it asked last. ARGV: engine, new generation, window, freshness, then for each kind:
# kind, limit, spent, want. Returns generation, engines, then the block of each kind.
_SCRIPT = """
local now = tonumber(redis.call('TIME')[1])
local engine, window, fresh = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('HSETNX', KEYS[1], 'gen', ARGV[2])
redis.call('HSET', KEYS[1], 'e:' .. engine, now)
for i = 5, #ARGV, 4 do
    local spent = tonumber(ARGV[i + 2])
    if spent ~= 0 then redis.call('HINCRBY', KEYS[1], 's:' .. ARGV[i] .. ':' .. now, spent) end
end
local fields = redis.call('HGETALL', KEYS[1])
local alive, engines, used, held, old = {}, 0, {}, {}, {}
local gen = ''
for i = 1, #fields, 2 do
    local name = fields[i]
    if name == 'gen' then gen = fields[i + 1] end
    if string.sub(name, 1, 2) == 'e:' then
        if tonumber(fields[i + 1]) > now - fresh then
            alive[string.sub(name, 3)] = true
            engines = engines + 1
        else
            old[#old + 1] = name
        end
    end
end
for i = 1, #fields, 2 do
    local what, kind, of = string.match(fields[i], '^([sh]):([a-z_]+):(.+)$')
    if what == 's' then
        if tonumber(of) > now - window then
            used[kind] = (used[kind] or 0) + tonumber(fields[i + 1])
        else
            old[#old + 1] = fields[i]
        end
    elseif what == 'h' then
        if alive[of] then
            if of ~= engine then held[kind] = (held[kind] or 0) + tonumber(fields[i + 1]) end
        else
            old[#old + 1] = fields[i]
        end
    end
end
if #old > 0 then redis.call('HDEL', KEYS[1], unpack(old)) end
local answer = {gen, engines}
for i = 5, #ARGV, 4 do
    local kind, limit, want = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 3])
    local free = limit - (used[kind] or 0) - (held[kind] or 0)
    local block = math.max(0, math.min(want, math.ceil(free / engines)))
    redis.call('HSET', KEYS[1], 'h:' .. kind .. ':' .. engine, block)
    answer[#answer + 1] = block
end
redis.call('EXPIRE', KEYS[1], 3600)
return answer
"""


class RedisBudget:
    """A :class:`BudgetSource` in a Redis or Valkey server. ``engine`` is this engine's own word, another for each engine.

    Raises ConfigurationError if the package ``redis`` is missing, or the address is not one.
    """

    def __init__(self, url: str, name: str, engine: str) -> None:
        try:
            import redis
        except ImportError:
            raise ConfigurationError("budget.url needs the package redis: install headrace[redis]") from None
        self._errors: tuple[type[Exception], ...] = (redis.RedisError, OSError, ValueError, TypeError, KeyError)
        self._address = without_password(url)
        try:
            self._redis: Any = redis.Redis.from_url(
                url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT, decode_responses=True
            )
            self._script: Any = self._redis.register_script(_SCRIPT)
        except self._errors as error:
            raise ConfigurationError(f"budget.url: {error}") from None
        self._name = name
        self._engine = engine

    def lease(self, asks: Sequence[BudgetAsk]) -> Sequence[BudgetLease]:
        """Ask for each limit. Raises BudgetStoreError."""
        try:
            with self._redis.pipeline(transaction=False) as pipeline:
                for ask in asks:
                    self._script(keys=[f"{self._name}:{{{ask.limit}}}"], args=self._arguments(ask), client=pipeline)
                answers = pipeline.execute()
            return [self._lease(ask, answer) for ask, answer in zip(asks, answers, strict=True)]
        except self._errors as error:
            raise BudgetStoreError(f"{self._address}: {error}") from None

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _arguments(self, ask: BudgetAsk) -> list[Any]:
        figures: list[Any] = [self._engine, secrets.token_hex(8), WINDOW, FRESH]
        for kind, limit in ask.limits.items():
            figures += [kind, limit, ask.spent.get(kind, 0), ask.want.get(kind, 0)]
        return figures

    def _lease(self, ask: BudgetAsk, answer: Any) -> BudgetLease:
        generation, engines, *blocks = answer
        block: dict[LimitKind, int] = {kind: int(amount) for kind, amount in zip(ask.limits, blocks, strict=True)}
        return BudgetLease(ask.limit, block, int(engines), str(generation))
