"""Event loops in virtual time.

In place of ``headrace.transport.reactor.Reactor``, of asyncio's loop, and of process handles.

They keep the order of the real ones: what is readable, then calls, then timers, then the end of the turn; but an error in a
callback is not survived here, it is a find.
"""

from __future__ import annotations

import heapq
import select
from asyncio import InvalidStateError
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable
from functools import partial
from typing import Any

from tests.simulation.world import Host, World

Action = Callable[[], object]


class Timer:
    """A timer that can be cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action: Action | None = action

    def cancel(self) -> None:
        self.action = None


class Descriptors:
    """Which descriptors of a process are ready, and who wants to know. A signal is given once, as an edge, except for levels."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._watched: dict[int, Action] = {}
        self._writers: dict[int, Action] = {}
        self._ready: dict[int, None] = {}
        self._levels: dict[int, Callable[[], int]] = {}

    def add_reader(self, fd: int, action: Action) -> None:
        self._watched[fd] = action

    def remove_reader(self, fd: int) -> None:
        self._watched.pop(fd, None)

    def add_writer(self, fd: int, action: Action) -> None:
        self._writers[fd] = action

    def remove_writer(self, fd: int) -> None:
        self._writers.pop(fd, None)

    def add_level(self, fd: int, events: Callable[[], int]) -> None:
        """``events`` says what a descriptor is ready for, at any time: EPOLLIN, EPOLLOUT."""
        self._levels[fd] = events

    def remove_level(self, fd: int) -> None:
        self._levels.pop(fd, None)

    def _at_level(self) -> list[tuple[dict[int, Action], int]]:
        """Return who wants to know of what is ready now: readers or writers, and the descriptor."""
        ready = []
        for fd, events in self._levels.items():
            if fd in self._watched or fd in self._writers:
                now = events()
                if now & select.EPOLLIN and fd in self._watched:
                    ready.append((self._watched, fd))
                if now & select.EPOLLOUT and fd in self._writers:
                    ready.append((self._writers, fd))
        return ready

    def signal(self, fd: int) -> None:
        """Say that a descriptor became readable."""
        self._ready[fd] = None
        self._host.nudge()

    @property
    def is_ready(self) -> bool:
        return bool(self._ready) or bool(self._levels and self._at_level())

    def take(self) -> list[Action]:
        """Return the callbacks of the readable sockets, in any order, as epoll does."""
        ready = [(self._watched, fd) for fd in self._ready]
        self._ready = {}
        if self._levels:
            ready += [entry for entry in self._at_level() if entry not in ready]
        if len(ready) > 1:
            self._host.world.random.shuffle(ready)
        return [partial(_run_watcher, who, fd, action) for who, fd in ready if (action := who.get(fd)) is not None]


def _run_watcher(who: dict[int, Action], fd: int, action: Action) -> None:
    if who.get(fd) is action:
        action()


class SimReactor:
    """In place of ``Reactor``: for the client's I/O thread, the broker and the supervisor."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.is_stopping = False
        self.has_ended = False
        self.turn_loop = None  # no event loop reads the simulated sockets
        self.at_stop: Callable[[], None] | None = None
        self.descriptors = Descriptors(host)
        self.add_reader = self.descriptors.add_reader
        self.remove_reader = self.descriptors.remove_reader
        self.add_writer = self.descriptors.add_writer
        self.remove_writer = self.descriptors.remove_writer
        self._calls: deque[Action] = deque()
        self._timers: list[tuple[float, int, Action]] = []
        self._count = 0
        self._each_turn: list[Action] = []
        self._turn_end: list[Action] = []
        self._in_turn = False
        host.loop = self

    def call(self, action: Action) -> None:
        self._calls.append(action)
        if not self._in_turn:
            self.host.wake(self.host.world.now)

    call_soon = call_now = call

    def call_at(self, when: float, action: Action) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, action))
        if not self._in_turn:
            self.host.wake(when)

    def call_later(self, delay: float, action: Action) -> None:
        self.call_at(self.host.world.now + delay, action)

    def each_turn(self, action: Action) -> None:
        self._each_turn.append(action)

    def at_turn_end(self, action: Action) -> None:
        self._turn_end.append(action)

    def offer(self, loop: object) -> None:
        """No event loop reads the simulated sockets."""

    def wake(self) -> None:
        self.host.wake(self.host.world.now)

    def stop(self) -> None:
        self.is_stopping = True
        self.wake()

    def run(self) -> None:
        """Return at once: the world takes the turns."""

    def turn(self) -> None:
        self._in_turn = True
        for action in self.descriptors.take():
            action()
        for _ in range(len(self._calls)):
            self._calls.popleft()()
        timers, now = self._timers, self.host.world.now
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()
        for action in self._each_turn:
            action()
        while self._turn_end:
            self._turn_end.pop(0)()
        self._in_turn = False
        if self.is_stopping:
            if self.at_stop is not None:
                self.at_stop()
            self.host.kill("exit status 0")

    def next_timer(self) -> float | None:
        if self._calls or self.descriptors.is_ready:
            return 0.0
        return self._timers[0][0] if self._timers else None


class SimLoop:
    """In place of asyncio's loop: as much of it as the worker uses."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.descriptors = Descriptors(host)
        self.add_reader = self.descriptors.add_reader
        self.remove_reader = self.descriptors.remove_reader
        self.add_writer = self.descriptors.add_writer
        self.remove_writer = self.descriptors.remove_writer
        self._ready: deque[Action] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0
        host.loop = self

    def time(self) -> float:
        return self.host.world.now

    def call_soon(self, action: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(partial(action, *arguments) if arguments else action)
        self._ready.append(partial(_run, timer))
        self.host.wake(self.host.world.now)
        return timer

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, action: Callable[..., object], *arguments: Any) -> Timer:
        return self.call_at(self.host.world.now + delay, action, *arguments)

    def call_at(self, when: float, action: Callable[..., object], *arguments: Any) -> Timer:
        timer = Timer(partial(action, *arguments) if arguments else action)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, timer))
        self.host.wake(when)
        return timer

    def add_signal_handler(self, number: int, action: Callable[[], None]) -> None:
        def handle() -> None:
            self.call_soon(action)

        self.host.signals[number] = handle

    def create_future(self) -> SimFuture:
        return SimFuture()

    def turn(self) -> None:
        ready = self._ready
        ready.extend(self.descriptors.take())
        timers, now = self._timers, self.host.world.now
        while timers and timers[0][0] <= now:
            ready.append(partial(_run, heapq.heappop(timers)[2]))
        for _ in range(len(ready)):
            if self.host.is_alive:
                ready.popleft()()

    def next_timer(self) -> float | None:
        if self._ready or self.descriptors.is_ready:
            return 0.0
        while self._timers and self._timers[0][2].action is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None


class SimFuture:
    """In place of asyncio's Future: for the one that says that the process is to end."""

    def __init__(self) -> None:
        self.is_set = False
        self.resume: Callable[[], None] | None = None

    def done(self) -> bool:
        return self.is_set

    def set_result(self, _: object) -> None:
        if self.is_set:
            raise InvalidStateError
        self.is_set = True
        if self.resume is not None:
            self.resume()

    def __await__(self) -> Generator[SimFuture, None, None]:
        if not self.is_set:
            yield self


def run_main(host: Host, main: Coroutine[Any, Any, None]) -> None:
    """Run a process's coroutine: what it waits for is a SimFuture; with its end the process ends."""

    def step() -> None:
        try:
            awaited = main.send(None)
        except StopIteration:
            host.kill("exit status 0")
        else:
            awaited.resume = step

    step()
    host.at_end.append(main.close)


class SimWatch:
    """In place of ``ProcessWatch``: tells when the processes of peers end."""

    def __init__(self, world: World, loop: SimReactor | SimLoop) -> None:
        self._world = world
        self._loop = loop
        self._watched: dict[Hashable, int] = {}

    def watch(self, key: Hashable, pid: int, ended: Callable[[], None]) -> None:
        host = self._world.hosts[pid]
        if host.is_alive:
            fd = self._watched[key] = new_descriptor(self._world)
            self._loop.descriptors.add_reader(fd, partial(self._ended, key, ended))
            signal_end(host, self._loop.descriptors, fd)

    def forget(self, key: Hashable) -> None:
        fd = self._watched.pop(key, None)
        if fd is not None:
            self._loop.descriptors.remove_reader(fd)

    def _ended(self, key: Hashable, ended: Callable[[], None]) -> None:
        self.forget(key)
        ended()


def signal_end(host: Host, descriptors: Descriptors, fd: int) -> None:
    """Make a descriptor readable when a process ends, as the kernel does with a pidfd."""
    world = host.world

    def ended() -> None:
        world.at(world.now + world.random.random() * 0.002, descriptors.signal, fd)

    host.at_end.append(ended)


def new_descriptor(world: World) -> int:
    """Return a number that no other descriptor of this world has."""
    world.descriptors += 1
    return world.descriptors


def _run(timer: Timer) -> None:
    if (action := timer.action) is not None:
        action()
