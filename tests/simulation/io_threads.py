"""Faults of the client's I/O thread: callbacks that raise, a thread that ends, a thread that is blocked.

The client's process is the real one (``headrace.connections.client_process``); what stands in for its threads is here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import cast

from headrace.process.watchdog import Bounded, Watchdog
from headrace.transport.guarded_loop import GuardedLoop
from headrace.transport.reactor import Reactor
from tests.simulation.loops import SimReactor
from tests.simulation.world import Host, SimulationViolation, World


class InjectedError(Exception):
    """What a callback raises."""


class InjectedExit(SystemExit):
    """What ends a program, raised by a callback."""


class SimIoThread(SimReactor):
    """In place of ``Reactor`` in a client. ``serve`` is what the real thread does; here it is called when the loop has ended."""

    def __init__(self, host: Host, serve: Callable[[Reactor], None]) -> None:
        super().__init__(host)
        self.blocked_until = 0.0
        self._serve = serve
        self._fuse = 0

    def block(self, seconds: float) -> None:
        """Take no turn for so long: something in a callback waits."""
        self.blocked_until = self.host.world.now + seconds

    def arm(self, fuse: int) -> None:
        """Have something raise, after ``fuse`` further occasions."""
        self._fuse = fuse

    def trip(self) -> None:
        """Raise, where that is due: each callback, and each step of a run in it, is an occasion."""
        if self._fuse > 0 and self._in_turn:
            self._fuse -= 1
            if not self._fuse:
                raise (InjectedExit if self.host.world.random.random() < 0.3 else InjectedError)("injected")

    def end(self) -> None:
        """Have the thread end, as an exception does that no callback raised."""
        if not self.has_ended:
            self.has_ended = True
            self.host.world.acting(self.host, partial(self._serve, cast("Reactor", self)))

    def turn(self) -> None:
        if self.has_ended:
            return
        if self.host.world.now < self.blocked_until:
            self.host.wake(self.blocked_until)
            return
        super().turn()

    def next_timer(self) -> float | None:
        if self.has_ended:
            return None
        timer = super().next_timer()
        return timer if timer is None else max(timer, self.blocked_until)


class SimGuarded(GuardedLoop):
    """The real guard, except that what the simulation finds gets through, and that callbacks may be made to raise."""

    def run(self, action: Callable[[], None]) -> None:
        thread = cast("SimIoThread", self._reactor)
        is_first = thread.host.world.random.random() < 0.5 if thread._fuse else True
        try:
            if is_first:
                thread.trip()
            action()
            if not is_first:
                thread.trip()
        except SimulationViolation:
            raise
        except BaseException as error:  # noqa: BLE001 - as the real one does
            self._failed(error)


class SimThread:
    """In place of the ``threading.Thread`` of the I/O thread: the world runs its loop."""

    def join(self, timeout: float) -> None:
        """It has ended by the time that it is waited for."""


class SimWatchdog(Watchdog):
    """The real watchdog, whose thread is the world's."""

    def __init__(self, world: World, runs: Callable[[], Iterable[Bounded]]) -> None:
        super().__init__(runs)
        self._host = world.current
        self._is_idle = True

    def start(self) -> None:
        """The world has it look."""

    def run_added(self) -> None:
        if self._is_idle:
            self._is_idle = False
            self._host.act(self._host.world.now, self._tick)

    def _tick(self) -> None:
        now = self._host.world.now
        if (wait := self.look(now)) is not None:
            self._host.act(now + wait, self._tick)
