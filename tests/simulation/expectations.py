"""Promises about time: something must become true within a bound.

The bound grows by the time in which a process was stopped or slow.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from tests.simulation.world import Host, SimulationViolation, World


class _Expectation(msgspec.Struct):
    since: float
    bound: float
    holds: Callable[[], bool]
    what: str
    apart_from: Host | None
    excuse: Callable[[], float]
    is_met: bool = False


class Expectations:
    """What is still to come true."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open: list[_Expectation] = []

    def __bool__(self) -> bool:
        return bool(self._open)

    def add(
        self,
        bound: float,
        holds: Callable[[], bool],
        what: str,
        apart_from: Host | None = None,
        excuse: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Expect ``holds`` within ``bound`` seconds. Stops of ``apart_from`` are no excuse: they are what it is about.

        ``excuse`` returns seconds that are to be allowed beyond those of disturbances.
        """
        expectation = _Expectation(self._world.now, bound, holds, what, apart_from, excuse)
        self._open.append(expectation)
        self._world.at(self._world.now + bound, self._look, expectation)

    def look(self) -> None:
        """Let go of what has come true."""
        for expectation in self._open:
            expectation.is_met = expectation.holds()
        self._open = [expectation for expectation in self._open if not expectation.is_met]

    def _look(self, expectation: _Expectation) -> None:
        if expectation.is_met or expectation.holds():
            expectation.is_met = True
            self._open = [known for known in self._open if known is not expectation]
            return
        world = self._world
        excuse = world.disturbance(expectation.since, world.now, expectation.apart_from) + expectation.excuse()
        due = expectation.since + expectation.bound + excuse
        if due <= world.now + 1e-6:
            raise SimulationViolation(
                f"{expectation.what}: not within {expectation.bound:.2f} s (and {excuse:.2f} s of excuses)"
            )
        world.at(due, self._look, expectation)
