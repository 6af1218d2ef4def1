"""Checks who a peer is: compares the role that a peer claims with what the kernel and the supervisor say. Pure.

The rules:

1. The supervisor is the process that started this process. It knows which processes it started, and reports them.
2. A worker, a broker or a collector is a process that the supervisor reports: with the same pid, start time, name and epoch.
   It is not enough that the peer's parent is the supervisor: the first process of a container is the parent of every orphan.
3. A connection that is older than its process was made by an earlier process with the same pid. Such a peer is refused.
4. A child of the supervisor may say hello before the supervisor has reported it. The peer waits, and so do its messages.
5. Any process may be a client. A client may say only what clients say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from headrace.process.lifecycle import ProcessOrigin
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import PeerRole

M = TypeVar("M")

HOLD_FOR = 5.0
"""Seconds that a peer waits for the supervisor's report. The supervisor sends a report when it starts a process."""
_MAX_HELD = 1000
"""Messages of one waiting peer that are kept."""
_MESSAGE_BYTES = 128
"""Bytes of memory that a kept message takes, in addition to its own bytes."""
MAX_HELD_BYTES = 64 * 1024 * 1024
"""Bytes of the messages of all waiting peers that are kept, by default."""
SAID_TOO_MUCH = "it sent too many messages or bytes before the supervisor had reported its process"
_TICKS = 2.0
"""Tolerance between two times in ticks. The kernel gives a start time in whole ticks of 0.01 s."""


class Claim(msgspec.Struct, frozen=True):
    """Who a peer claims to be (role, name, epoch), and what the kernel says about it (pid, origin).

    If the kernel does not tell the process, ``pid`` is 0 and ``origin`` is None. ``connected`` is the time of the connection, in ticks.
    """

    role: PeerRole
    name: str
    epoch: int
    pid: int
    origin: ProcessOrigin | None
    connected: float


class Genuine(msgspec.Struct, frozen=True):
    """The peer is what it claims to be."""


class Undecided(msgspec.Struct, frozen=True):
    """The peer may be what it claims to be. The supervisor has not reported its process yet."""


class Mismatch(msgspec.Struct, frozen=True):
    """The peer is not what it claims to be. ``reason`` says why."""

    reason: str


Verdict = Genuine | Undecided | Mismatch


class _HeldPeer(Generic[M]):
    """A peer that waits for the supervisor's report, with its messages."""

    def __init__(self, claim: Claim, since: float) -> None:
        self.claim = claim
        self.since = since
        self.messages: list[M] = []
        self.size = 0


class PeerCheck(Generic[M]):
    """Checks the peers of one process.

    ``supervisor`` and ``origin`` are the parent's pid and what the kernel says about it. ``can_tell`` is False if the kernel does not
    tell the processes of peers: then every claim is believed. ``max_held_bytes`` limits the messages of all waiting peers together; a
    process may use at most as much as it leaves free for the others.
    """

    def __init__(
        self,
        supervisor: int,
        origin: ProcessOrigin | None,
        *,
        can_tell: bool = True,
        max_held_bytes: int = MAX_HELD_BYTES,
    ) -> None:
        self._supervisor = supervisor
        self._started = origin.started if origin is not None else 0
        self._can_tell = can_tell
        self._processes: dict[int, ProcessStatus] = {}
        self._held: dict[bytes, _HeldPeer[M]] = {}
        self._max_held_bytes = max_held_bytes
        self._held_bytes: Counter[int] = Counter()

    def reported(self, processes: Sequence[ProcessStatus]) -> None:
        """Take note of the supervisor's report: the processes that run now."""
        self._processes = {process.pid: process for process in processes if process.pid is not None}

    def check(self, peer: bytes, claim: Claim, now: float) -> Verdict:
        """Check a peer that says hello. A peer that is undecided waits here until :meth:`decided` returns it."""
        verdict = self._judge(claim)
        if isinstance(verdict, Undecided):
            self._held[peer] = _HeldPeer(claim, now)
        return verdict

    @property
    def has_waiting(self) -> bool:
        """Whether any peer waits for the supervisor's report."""
        return bool(self._held)

    def holds(self, peer: bytes) -> bool:
        """Return whether a peer waits for the supervisor's report."""
        return peer in self._held

    def hold(self, peer: bytes, message: M, size: int) -> bool:
        """Keep a message of ``size`` bytes from a waiting peer. Return False if the peer has said too much."""
        held = self._held[peer]
        process = held.claim.pid
        size += _MESSAGE_BYTES
        free = self._max_held_bytes - self._held_bytes.total()
        if len(held.messages) >= _MAX_HELD or self._held_bytes[process] + 2 * size > free:
            return False
        held.messages.append(message)
        held.size += size
        self._held_bytes[process] += size
        return True

    def decided(self, now: float) -> list[tuple[bytes, Genuine | Mismatch, list[M]]]:
        """Return the peers that wait no longer, with their verdicts and messages. A peer waits for at most :data:`HOLD_FOR`."""
        found: list[tuple[bytes, Genuine | Mismatch, list[M]]] = []
        for peer, held in list(self._held.items()):
            verdict = self._judge(held.claim)
            if isinstance(verdict, Undecided):
                if now - held.since < HOLD_FOR:
                    continue
                verdict = Mismatch(f"the supervisor did not start process {held.claim.pid} as a {held.claim.role}")
            found.append((peer, verdict, held.messages))
            self.forget(peer)
        return found

    def forget(self, peer: bytes) -> None:
        """Forget a peer that has gone. An unknown peer is ignored."""
        held = self._held.pop(peer, None)
        if held is not None:
            self._held_bytes -= Counter({held.claim.pid: held.size})

    def _judge(self, claim: Claim) -> Verdict:
        if claim.role == "client" or not self._can_tell:
            return Genuine()
        if not claim.pid:
            return Mismatch(f"the peer claims to be a {claim.role}, but the kernel does not tell its process")
        if claim.role == "supervisor":
            if claim.pid == self._supervisor and _is_since(claim, self._started):
                return Genuine()
            return Mismatch(
                f"the peer claims to be the supervisor, but the supervisor is another process than {claim.pid}"
            )
        process = self._processes.get(claim.pid)
        if process is not None and _is_it(claim, process):
            if _is_since(claim, process.started):
                return Genuine()
            return Mismatch(f"process {claim.pid} is another process than the {claim.role} that the supervisor started")
        is_below = claim.origin is None or self._supervisor in (claim.pid, claim.origin.parent)
        if process is None and not is_below:
            return Mismatch(
                f"the supervisor did not start process {claim.pid}, so it is no {claim.role} of this engine"
            )
        return Undecided()


def _is_it(claim: Claim, process: ProcessStatus) -> bool:
    """Return whether a reported process has the role that the peer claims. Reports have the epochs of workers only."""
    if claim.role == "worker":
        return bool(process.epoch) and (process.name, process.epoch) == (claim.name, claim.epoch)
    return process.name == claim.role


def _is_since(claim: Claim, started: int) -> bool:
    """Return whether the peer's process started at ``started``, and made its connection after that."""
    if claim.origin is None:
        return True  # the kernel does not tell the start time: the pid must be enough
    if started and claim.origin.started != started:
        return False
    return claim.origin.started <= claim.connected + _TICKS
