"""Who a peer is: what it says of itself, held against what the kernel and the supervisor say. Pure.

Rules of this file:

1. The supervisor is the process that started this one. It knows for certain which processes it started, and says so.
2. A worker, a broker or a collector is a process that the supervisor says it is: its pid, its start, its name and its epoch.
   That its parent is the supervisor is not enough: a container's first process is the parent of all that is left behind.
3. A connection that is older than its process was made by another one, which had the same pid.
4. One that may be the supervisor's child, of which it has not told yet, waits for a while. What it says meanwhile waits too.
5. Everybody else is a client, and none of the others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from headrace.process.lifecycle import Origin
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import PeerRole

M = TypeVar("M")

HOLD_FOR = 5.0
"""Seconds that a process waits for the supervisor's word, which is on its way since the process was started."""
_MAX_HELD = 1000
"""Messages of one such process that wait with it."""
_MESSAGE_BYTES = 128
"""That a message takes beside its own."""
ROOM = 64 * 1024 * 1024
"""Bytes of what all such processes say that wait with them."""
SAID_TOO_MUCH = "it said too much before the supervisor had told who it is"
_TICKS = 2.0
"""The kernel tells of a start in whole ticks, a hundredth of a second each."""


class Claim(msgspec.Struct, frozen=True):
    """What a peer says that it is, and what the kernel says.

    ``pid`` is 0, and ``origin`` None, where the kernel does not tell. ``connected`` is when its connection was made, in ticks.
    """

    role: PeerRole
    name: str
    epoch: int
    pid: int
    origin: Origin | None
    connected: float


class Known(msgspec.Struct, frozen=True):
    """It is what it says."""


class Unknown(msgspec.Struct, frozen=True):
    """It may be; the supervisor has not told."""


class Refused(msgspec.Struct, frozen=True):
    """It is not, and why."""

    reason: str


Verdict = Known | Unknown | Refused


class _Held(Generic[M]):
    def __init__(self, claim: Claim, since: float) -> None:
        self.claim = claim
        self.since = since
        self.messages: list[M] = []
        self.size = 0


class Doorkeeper(Generic[M]):
    """The processes of one engine. ``can_tell`` is False where the kernel tells no process of its peers: they are believed.

    ``room`` is how many bytes may wait of those of which the supervisor has not told yet. One process has as much of it as it leaves free.
    """

    def __init__(self, supervisor: int, origin: Origin | None, *, can_tell: bool = True, room: int = ROOM) -> None:
        self._supervisor = supervisor
        self._started = origin.started if origin is not None else 0
        self._can_tell = can_tell
        self._processes: dict[int, ProcessStatus] = {}
        self._held: dict[bytes, _Held[M]] = {}
        self._room = room
        self._sizes: Counter[int] = Counter()

    def told(self, processes: Sequence[ProcessStatus]) -> None:
        """The supervisor says which processes there are."""
        self._processes = {process.pid: process for process in processes if process.pid is not None}

    def knock(self, peer: bytes, claim: Claim, now: float) -> Verdict:
        """A peer says hello; one that is unknown is held until :meth:`ready` tells of it."""
        verdict = self._judge(claim)
        if isinstance(verdict, Unknown):
            self._held[peer] = _Held(claim, now)
        return verdict

    def holds(self, peer: bytes) -> bool:
        """Return whether a peer waits."""
        return peer in self._held

    def hold(self, peer: bytes, message: M, size: int) -> bool:
        """Keep what a peer that waits says, ``size`` bytes of it; return False when it is too much."""
        held = self._held[peer]
        process = held.claim.pid
        size += _MESSAGE_BYTES
        free = self._room - self._sizes.total()
        if len(held.messages) >= _MAX_HELD or self._sizes[process] + 2 * size > free:
            return False
        held.messages.append(message)
        held.size += size
        self._sizes[process] += size
        return True

    def ready(self, now: float) -> list[tuple[bytes, Known | Refused, list[M]]]:
        """Return the peers that need wait no longer, with what they have said."""
        found: list[tuple[bytes, Known | Refused, list[M]]] = []
        for peer, held in list(self._held.items()):
            verdict = self._judge(held.claim)
            if isinstance(verdict, Unknown):
                if now - held.since < HOLD_FOR:
                    continue
                verdict = Refused(f"the supervisor did not start process {held.claim.pid} as a {held.claim.role}")
            found.append((peer, verdict, held.messages))
            self.forget(peer)
        return found

    def forget(self, peer: bytes) -> None:
        """A peer has gone; unknown ones are fine."""
        held = self._held.pop(peer, None)
        if held is not None:
            self._sizes -= Counter({held.claim.pid: held.size})

    def _judge(self, claim: Claim) -> Verdict:
        if claim.role == "client" or not self._can_tell:
            return Known()
        if not claim.pid:
            return Refused(f"a {claim.role} is a process of this engine, and the kernel does not know this peer's")
        if claim.role == "supervisor":
            if claim.pid == self._supervisor and _is_since(claim, self._started):
                return Known()
            return Refused(f"process {claim.pid} did not start this one: it is not the supervisor")
        process = self._processes.get(claim.pid)
        if process is not None and _is_it(claim, process):
            if _is_since(claim, process.started):
                return Known()
            return Refused(f"process {claim.pid} is not the one that the supervisor started")
        is_below = claim.origin is None or self._supervisor in (claim.pid, claim.origin.parent)
        if process is None and not is_below:
            return Refused(f"process {claim.pid} is not the supervisor's: it is no {claim.role} of this engine")
        return Unknown()


def _is_it(claim: Claim, process: ProcessStatus) -> bool:
    """Return whether a process has the role that a peer says; of the workers alone the supervisor tells the epoch."""
    if claim.role == "worker":
        return bool(process.epoch) and (process.name, process.epoch) == (claim.name, claim.epoch)
    return process.name == claim.role


def _is_since(claim: Claim, started: int) -> bool:
    """Return whether a peer's process is the one that was started then, and has made its connection itself."""
    if claim.origin is None:
        return True  # the pid must do
    if started and claim.origin.started != started:
        return False
    return claim.origin.started <= claim.connected + _TICKS
