"""The keys of one provider: which of them get runs."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace_engine.limits.gate import KeyRefused
from headrace_engine.limits.key_ring import SET_ASIDE, KeyRing

KEYS = ("a", "b", "c", "d")


def ring_of(*keys: str) -> KeyRing:
    ring = KeyRing("openai")
    ring.told(1, keys)
    return ring


def test_a_refused_key_gets_no_runs_until_the_settings_are_read_again() -> None:
    ring = ring_of("a", "b", "c")
    assert ring.refused("b") == KeyRefused("openai", "b", left=2)
    assert ring.refused("b") is None
    assert ring.usable(1e6) == ["a", "c"]
    assert ring.why_not("b", 1e6) == "401"

    ring.reloaded()
    assert ring.usable(1e6) == ["a", "b", "c"]


def test_where_all_keys_are_refused_all_are_tried_so_that_the_caller_sees_the_error() -> None:
    ring = ring_of("a", "b")
    ring.refused("a")
    assert ring.refused("b") == KeyRefused("openai", "b", left=0)
    assert ring.usable(0.0) == ["a", "b"]


def test_a_key_that_a_worker_does_not_have_yet_is_not_taken_for_the_refused_one() -> None:
    ring = ring_of("a", "b")
    ring.told(2, ("c", "b"))
    assert ring.refused("c") is None
    assert ring.refused("b") == KeyRefused("openai", "b", left=2)

    ring.worker_left(1)
    assert ring.refused("c") == KeyRefused("openai", "c", left=0)


def test_a_run_gets_a_key_that_its_worker_has() -> None:
    ring = ring_of("a", "b")
    ring.told(2, ("c",))
    ring.told(3, ("a",))
    assert ring.usable(0.0) == ["a", "c", "b"]
    assert ring.usable_on(1, 0.0) == ["a", "b"]
    assert ring.usable_on(2, 0.0) == ["c"]
    assert ring.usable_on(4, 0.0) == ["a", "c", "b"]


def test_a_key_without_money_is_set_aside_for_a_minute() -> None:
    ring = ring_of("a", "b")
    ring.used_up("a", 100.0)
    assert ring.usable(100.0) == ["b"]
    assert ring.why_not("a", 100.0) == "quota"
    assert ring.usable(100.0 + SET_ASIDE) == ["a", "b"]


def test_the_only_key_stays() -> None:
    assert ring_of("a").refused("a") is None


def test_a_key_is_forgotten_when_the_last_worker_that_has_it_is_gone() -> None:
    ring = ring_of("a", "b")
    assert not ring.told(2, ("a", "b"))
    assert ring.told(3, ("b", "c"))
    assert list(ring.keys) == ["b", "c", "a"]
    assert not ring.worker_left(1)
    assert ring.worker_left(2)
    assert list(ring.keys) == ["b", "c"]


def test_the_keys_of_the_last_worker_are_kept_until_another_one_tells() -> None:
    ring = ring_of("a", "b")
    assert not ring.worker_left(1)
    assert ring.keys == ("a", "b")


class KeyRingMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.ring = KeyRing("openai")
        self.workers: dict[int, set[str]] = {}
        self.epoch = 0
        self.refused: set[str] = set()
        self.aside: dict[str, float] = {}

    @rule(keys=st.lists(st.sampled_from(KEYS), max_size=4))
    def worker_comes(self, keys: list[str]) -> None:
        self.epoch += 1
        self.workers[self.epoch] = set(keys)
        self.ring.told(self.epoch, keys)

    @rule(data=st.data())
    def worker_goes(self, data: st.DataObject) -> None:
        if len(self.workers) > 1:
            epoch = data.draw(st.sampled_from(sorted(self.workers)))
            del self.workers[epoch]
            self.ring.worker_left(epoch)

    def all_keys(self) -> set[str]:
        return set().union(*self.workers.values())

    @rule(seconds=st.floats(0, 50))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=st.sampled_from(KEYS))
    def a_key_is_refused(self, key: str) -> None:
        fact = self.ring.refused(key)
        has_each = bool(self.workers) and all(key in keys for keys in self.workers.values())
        is_news = has_each and len(self.all_keys()) > 1 and key not in self.refused
        assert (fact is not None) is is_news
        if is_news:
            self.refused.add(key)

    @rule(key=st.sampled_from(KEYS))
    def a_key_is_used_up(self, key: str) -> None:
        self.ring.used_up(key, self.now)
        if key in self.all_keys():
            self.aside[key] = self.now + SET_ASIDE

    @rule()
    def settings_are_read_again(self) -> None:
        self.ring.reloaded()
        self.refused.clear()
        self.aside.clear()

    @rule()
    def new_broker(self) -> None:
        new = KeyRing("openai")
        new.restore(self.ring.keys, self.ring.refused_keys)
        for epoch, keys in self.workers.items():
            new.told(epoch, sorted(keys))
        self.aside.clear()
        self.ring = new

    @invariant()
    def keys_in_rotation(self) -> None:
        usable = self.ring.usable(self.now)
        assert len(usable) == len(set(usable))
        assert set(self.ring.keys) == self.all_keys()
        good = self.all_keys() - self.refused
        rested = {key for key in good if self.aside.get(key, 0.0) <= self.now}
        # A key stays refused while no worker has it.
        assert set(usable) == (rested or good or self.all_keys())


KeyRingMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestKeyRing = KeyRingMachine.TestCase
