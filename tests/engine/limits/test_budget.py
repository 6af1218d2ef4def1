"""Several engines that share one limit: the store, by one contract for each of its kinds, and an engine's part of a limit."""

from __future__ import annotations

import random
import signal
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigurationError
from headrace.settings.limit_settings import LimitConfig
from headrace_engine.broker.redis_budget import RedisBudget
from headrace_engine.limits.budget import (
    ASK_INTERVAL,
    BudgetAsk,
    BudgetSource,
    BudgetStoreError,
    LocalBudget,
    SharedLimit,
)
from headrace_engine.limits.shared_limits import SharedLimits
from tests.redis_server import RedisServer, needs_redis
from tests.repetition import repeated


class Stores:
    """Makes the source of each engine, in one store."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self._local = LocalBudget(lambda: 1000.0)
        self._server: RedisServer | None = request.getfixturevalue("redis_server") if kind == "redis" else None

    def of(self, engine: str) -> BudgetSource:
        if self._server is None:
            return self._local.of(engine)
        return RedisBudget(self._server.url, "test", engine)


@pytest.fixture(params=["local", pytest.param("redis", marks=needs_redis)])
def stores(request: pytest.FixtureRequest) -> Stores:
    return Stores(request.param, request)


def test_an_engine_alone_gets_the_block_that_it_wants_up_to_the_limit(stores: Stores) -> None:
    source = stores.of("a")

    (lease,) = source.lease([BudgetAsk("openai", {"requests": 10}, {}, {"requests": 4})])
    assert (lease.block, lease.engines) == ({"requests": 4}, 1)

    (lease,) = source.lease([BudgetAsk("openai", {"requests": 10}, {"requests": 4}, {"requests": 20})])
    assert lease.block == {"requests": 6}  # four are sent


def test_what_one_engine_has_sent_or_reserved_no_other_engine_gets(stores: Stores) -> None:
    first, second = stores.of("a"), stores.of("b")
    first.lease(
        [BudgetAsk("openai", {"requests": 10, "tokens": 1000}, {"requests": 3}, {"requests": 5, "tokens": 100})]
    )

    (lease,) = second.lease([BudgetAsk("openai", {"requests": 10, "tokens": 1000}, {}, {"requests": 9, "tokens": 10})])

    # Of ten, three are sent and five reserved; of the two that are left each engine gets a part.
    assert (lease.block, lease.engines) == ({"requests": 1, "tokens": 10}, 2)


def test_limits_do_not_touch_each_other_and_one_question_may_have_several(stores: Stores) -> None:
    source = stores.of("a")
    asks = [
        BudgetAsk("openai", {"requests": 5}, {}, {"requests": 5}),
        BudgetAsk("groq", {"tokens": 7}, {}, {"tokens": 9}),
    ]

    assert [lease.block for lease in source.lease(asks)] == [{"requests": 5}, {"tokens": 7}]


def test_what_was_used_less_than_told_is_free_again(stores: Stores) -> None:
    source = stores.of("a")
    source.lease([BudgetAsk("openai", {"tokens": 100}, {"tokens": 100}, {"tokens": 1})])

    (lease,) = source.lease([BudgetAsk("openai", {"tokens": 100}, {"tokens": -60}, {"tokens": 80})])

    assert lease.block == {"tokens": 60}


@needs_redis
def test_a_store_that_was_emptied_says_so(redis_server: RedisServer) -> None:
    source = RedisBudget(redis_server.url, "test", "a")
    ask = BudgetAsk("openai", {"requests": 10}, {"requests": 10}, {"requests": 1})
    (before,) = source.lease([ask])
    redis_server.signal(signal.SIGKILL)

    with pytest.raises(BudgetStoreError, match=r"redis\.sock"):
        source.lease([ask])
    redis_server.start()
    (after,) = source.lease([ask])

    assert before.generation != after.generation


@needs_redis
def test_a_store_that_answers_wrongly_is_an_error_of_the_store(redis_server: RedisServer) -> None:
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.set("test:{openai}", "not a hash")

    with pytest.raises(BudgetStoreError, match="WRONGTYPE"):
        RedisBudget(redis_server.url, "test", "a").lease([BudgetAsk("openai", {"requests": 1}, {}, {"requests": 1})])


def test_an_address_that_is_none_is_a_setting_that_cannot_be_used() -> None:
    with pytest.raises(ConfigurationError, match=r"budget\.url"):
        RedisBudget("http://127.0.0.1:1", "test", "a")


class World:
    """Some engines that share a limit, in virtual time, with everything that they send."""

    def __init__(self, limit: int, engines: int, rng: random.Random) -> None:
        self.now = 0.0
        self.limit = limit
        self.rng = rng
        self.store = LocalBudget(lambda: self.now, "first")
        self.parts = [SharedLimit("openai", {"requests": limit}, engines) for _ in range(engines)]
        self.sources = [self.store.of(str(number)) for number in range(engines)]
        self.is_up = True
        self.sent: deque[float] = deque()
        self.most = 0
        self.total = 0

    def lose_everything(self) -> None:
        self.store = LocalBudget(lambda: self.now, "second")
        self.sources = [self.store.of(str(number)) for number in range(len(self.parts))]

    def step(self, demand: int) -> None:
        self.now += ASK_INTERVAL
        for part, source in zip(self.parts, self.sources, strict=True):
            if (ask := part.ask(self.now)) is not None:
                if self.is_up:
                    (lease,) = source.lease([ask])
                    part.leased(lease)
                else:
                    part.lost()
            for _ in range(self.rng.randint(0, demand)):
                if not part.is_away and part.has_room({"requests": 1}):
                    part.take({"requests": 1}, self.now)
                    self.sent.append(self.now)
                    self.total += 1
        while self.sent and self.sent[0] <= self.now - 60.0:
            self.sent.popleft()
        self.most = max(self.most, len(self.sent))


@settings(max_examples=repeated(10, 100), deadline=None)
@given(
    seed=st.integers(0, 2**32),
    limit=st.integers(3, 2000),
    engines=st.integers(1, 6),
    demand=st.integers(1, 20),
)
def test_all_engines_together_stay_within_the_limit(seed: int, limit: int, engines: int, demand: int) -> None:
    world = World(limit, engines, random.Random(seed))
    for part in world.parts:
        part.has_room({"requests": 1})
        (lease,) = world.sources[0].lease([BudgetAsk("other", {"requests": 1}, {}, {})])
        part.leased(lease)
        part.has_room({"requests": 1})

    for _ in range(600):
        world.step(demand)

    assert world.most <= limit


def test_one_busy_engine_among_idle_ones_gets_nearly_all() -> None:
    world = World(600, 4, random.Random(1))
    for part, source in zip(world.parts, world.sources, strict=True):
        part.has_room({"requests": 1})
        first = part.ask(0.0) or BudgetAsk("openai", {"requests": 600}, {}, {"requests": 1})
        part.leased(source.lease([first])[0])
    busy = world.parts[0]

    sent: list[float] = []
    while world.now < 600.0:
        world.now += ASK_INTERVAL
        for part, source in zip(world.parts, world.sources, strict=True):
            if (ask := part.ask(world.now)) is not None:
                part.leased(source.lease([ask])[0])
        while busy.has_room({"requests": 1}):
            busy.take({"requests": 1}, world.now)
            sent.append(world.now)

    assert len(sent) >= 0.95 * 600 * 10


def test_a_store_that_forgot_everything_is_told_of_the_last_minute() -> None:
    world = World(100, 2, random.Random(3))
    for part, source in zip(world.parts, world.sources, strict=True):
        part.has_room({"requests": 1})
        part.leased(source.lease([part.ask(0.0) or BudgetAsk("", {}, {}, {})])[0])
    for _ in range(40):
        world.step(20)
    assert world.total == 100  # the limit is used up

    world.lose_everything()
    for _ in range(40):
        world.step(20)

    # Each engine may send the rest of its block before it learns of the loss; nothing more comes from the empty store.
    assert world.total <= 100 + 2 * 2


def test_while_the_store_is_away_each_engine_has_its_share() -> None:
    part = SharedLimit("openai", {"requests": 100}, engines=4)

    assert part.is_away
    assert part.share == 0.25
    assert part.has_room({"requests": 100})  # the share is kept by the engine's own limits


def test_limits_that_no_pool_has_any_more_are_forgotten() -> None:
    limits = SharedLimits(engines=2)
    table = LimitConfig(requests_per_minute=10)
    kept, gone = limits.of(("openai", "key"), table), limits.of(("openai", "other"), table)
    assert kept is not None
    assert gone is not None

    limits.keep([("openai", "key")])

    assert limits.of(("openai", "key"), table) is kept
    assert limits.of(("openai", "other"), table) is not gone
