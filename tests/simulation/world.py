"""Virtual time, and the processes that live in it. One thread; every choice comes from one seeded generator.

Nothing here knows the product. A :class:`Host` stands for one process of the operating system: it can be killed and stopped
at any instant between two turns of its loop, and what reaches it meanwhile waits where the kernel would keep it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Any, Protocol

SIGKILL = "signal 9"


class SimulationViolation(BaseException):
    """A promise is broken. No Exception, so that nothing under test takes it for its own; and remembered where it does."""

    latest: SimulationViolation | None = None

    def __init__(self, what: str) -> None:
        super().__init__(what)
        SimulationViolation.latest = SimulationViolation.latest or self


class Loop(Protocol):
    """What a process does when it has work."""

    def turn(self) -> None:
        """Do what is ready."""

    def next_timer(self) -> float | None:
        """Return when there is work next, if nothing happens until then."""


class World:
    """The clock, what is to happen, and everybody."""

    def __init__(self, seed: int, *, is_traced: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 1000.0
        self.wall = 1_700_000_000.0
        """What a wall clock shows beyond the monotonic one: it jumps, and nothing may care."""
        self.hosts: dict[int, Host] = {}
        self.trace: list[str] | None = [] if is_traced else None
        self.steps = 0
        self.descriptors = 1000
        self.latency = 0.0003
        self._current: Host | None = None
        self._queue: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0
        self._disturbances: list[tuple[float, float, Host | None, bool]] = []

    @property
    def current(self) -> Host:
        """The process that runs at this moment."""
        assert self._current is not None
        return self._current

    def at(self, when: float, action: Callable[[Any], None], argument: Any = None) -> None:
        """Have something happen."""
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, action, argument))

    def run(self, until: Callable[[], bool], limit: float) -> bool:
        """Let things happen until ``until`` says so; return False when ``limit`` (or the end of all events) comes first."""
        queue, pop = self._queue, heapq.heappop
        while not until():
            if not queue or queue[0][0] > limit:
                return False
            self.now, _, action, argument = pop(queue)
            self.steps += 1
            action(argument)
        return True

    def acting(self, host: Host, action: Callable[[], None]) -> None:
        """Run ``action`` as code of a process."""
        before, self._current = self._current, host
        try:
            action()
        finally:
            self._current = before

    def disturbed(self, start: float, end: float, host: Host | None = None, *, is_stop: bool = False) -> None:
        """Note that a process is stopped or slow: bounds of time do not count meanwhile."""
        self._disturbances.append((start, end, host, is_stop))

    def disturbance(self, start: float, end: float, apart_from: Host | None = None) -> float:
        """Return how many seconds of disturbances touch a stretch of time: by so much may what happens in it be late.

        Stops of ``apart_from`` are not counted.
        """
        return sum(
            last - first
            for first, last, host, is_stop in self._disturbances
            if first <= end and last >= start and not (is_stop and host is apart_from)
        )

    def is_calm(self, since: float) -> bool:
        """Return whether nothing has been disturbed since then."""
        return not any(first <= self.now and last >= since for first, last, _, _ in self._disturbances)

    def was_stopped(self, host: Host, since: float) -> bool:
        """Return whether a process was stopped, it alone, at some time since then."""
        return any(host is stopped and last >= since for _, last, stopped, _ in self._disturbances)

    def note(self, host: Host | None, text: str) -> None:
        """Add a line to the trace, where one is kept."""
        if self.trace is not None:
            self.trace.append(f"{self.now - 1000.0:10.4f}  {host.name if host else '-':8}  {text}")


class Host:
    """One process."""

    def __init__(self, world: World, name: str, parent: Host | None = None) -> None:
        self.world = world
        self.name = name
        self.pid = len(world.hosts) + 2
        self.parent = parent
        self.started_at = world.now
        self.loop: Loop | None = None
        self.is_alive = True
        self.is_stopped = False
        self.stopped_since = 0.0
        self.status = ""
        self.signals: dict[int, Callable[[], None]] = {}
        self.at_end: list[Callable[[], None]] = []
        """What the kernel does when the process ends, in this order."""
        self._deferred: list[Callable[[], None]] = []
        self._is_turning = False
        self._wake_at = float("inf")
        world.hosts[self.pid] = self
        if parent is not None:
            parent.at_end.append(self._orphaned)

    # What happens inside.

    def wake(self, when: float) -> None:
        """Have the loop take a turn, at the latest then."""
        if when < self._wake_at and self.is_alive:
            self._wake_at = when
            self.world.at(when, self._woken, when)

    def nudge(self) -> None:
        """Something became ready: take a turn at once, or a moment later together with what comes meanwhile."""
        chance = self.world.random.random()
        if chance < 0.8 and self.is_alive and not self.is_stopped:
            self.turn()
        else:
            self.wake(self.world.now + chance * 0.001)

    def turn(self) -> None:
        """Take one turn; another one after it, where this one made others act who made it ready again."""
        loop = self.loop
        if loop is None or self.is_stopped or not self.is_alive:
            return
        world = self.world
        if self._is_turning:
            self.wake(world.now)
            return
        before, world._current = world._current, self
        self._is_turning = True
        try:
            loop.turn()
        finally:
            self._is_turning = False
            world._current = before
        timer = loop.next_timer()
        if timer is not None:
            self.wake(max(timer, world.now))

    def act(self, when: float, action: Callable[[], None]) -> None:
        """Have another thread of the process do something: not while it is stopped, never once it has ended."""
        self.world.at(when, self._act, action)

    def _act(self, action: Callable[[], None]) -> None:
        if self.is_stopped:
            self._deferred.append(action)
        elif self.is_alive:
            self.world.acting(self, action)

    def _woken(self, when: float) -> None:
        if when == self._wake_at:
            self._wake_at = float("inf")
            self.turn()

    # What happens to it.

    def kill(self, status: str = SIGKILL) -> None:
        """End the process, now."""
        if not self.is_alive:
            return
        self.world.note(self, f"ends: {status}")
        self.is_alive = False
        self.status = status
        for action in self.at_end:
            action()

    def stop(self) -> None:
        """SIGSTOP."""
        if self.is_alive and not self.is_stopped:
            self.world.note(self, "is stopped")
            self.is_stopped = True
            self.stopped_since = self.world.now

    def resume(self) -> None:
        """SIGCONT."""
        if self.is_alive and self.is_stopped:
            self.world.note(self, "goes on")
            self.is_stopped = False
            deferred, self._deferred = self._deferred, []
            for action in deferred:
                self._act(action)
            self._wake_at = float("inf")
            self.turn()

    def signal(self, number: int) -> None:
        """Deliver a signal that has a handler; without one it ends the process."""
        if not self.is_alive:
            return
        handler = self.signals.get(number)
        if handler is None:
            self.kill(f"signal {number}")
            return
        self.act(self.world.now, handler)

    def _orphaned(self) -> None:
        """The kernel ends a process when its parent has ended."""
        self.world.at(self.world.now + 0.002, lambda _: self.kill("signal 9, with its parent"))
