"""What the admission asks before it grants a lease: the interface of the limits. Types only.

A *gate* stands before the runs that share limits: those of one pool, or those that may use any of several keys. The
admission keeps the waiting runs of each gate in lanes of their own, so that no pool holds up another one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, Protocol

import msgspec

from headrace.settings.settings import Settings
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, RefusalKind, Release, ResponseReport, WaitWord

Priority = Literal["interactive", "batch"]
Draw = Callable[[float, float], float]
"""Returns a random figure between two others, as ``Random.uniform`` does."""


class GateWait(msgspec.Struct, frozen=True, gc=False):
    """Why no run of a gate may go now, and until when on the broker's clock. ``None``: until something happens."""

    word: WaitWord
    until: float | None


class Ticket(msgspec.Struct, gc=False):
    """A run's share of the limits, from its grant to its release. The lease holds it.

    ``key``: the short hash of the key to use, empty if there is no choice. ``reports``: see ``Grant.reports``.
    """

    gate: Gate
    key: str = ""
    reports: bool = False


Refusal = tuple[RefusalKind, str, float | None]
"""Why a run gets no lease: the kind, a reason in words, and the seconds after which it may help to ask again."""


class Gate(Protocol):
    """The limits before the runs that share them. All times are on the broker's monotonic clock."""

    key: Hashable
    """Names the gate. Runs with the same name wait in the same lanes."""

    @property
    def version(self) -> int:
        """Another number than before, if a run may go earlier than :meth:`wait` said. Quick, so that gates need not be asked in vain."""

    def wait(self, priority: Priority, question: Acquire, now: float) -> GateWait | None:
        """Return why this run may not go now; None if it may."""

    def enter(self, question: Acquire, now: float, epoch: int = 0) -> Ticket:
        """Take the run's share: it is granted now. Called only if :meth:`wait` returned None at the same time.

        ``epoch``: of the worker that it goes to. The run's key is one that this worker has.
        """

    def late_refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why a run that has waited gets no lease after all: other runs have used up the money meanwhile."""

    def answered(self, ticket: Ticket, report: ResponseReport, now: float) -> None:
        """The head of the response has come. It may come behind :meth:`leave`, if the response was short."""

    def leave(self, ticket: Ticket, release: Release | None, now: float) -> None:
        """The run's lease has ended. ``release`` is None if its client or its worker went away."""

    def expected_wait(self, question: Acquire, ahead: int, now: float) -> float:
        """Return the seconds that the run will wait behind ``ahead`` other runs, as far as is known; 0.0 if unknown."""


class KeyRefused(msgspec.Struct, frozen=True, gc=False):
    """A provider refused a key with status 401. It gets no runs until the settings are read again.

    ``key``: its short hash. ``left``: how many other keys of the provider get runs.
    """

    provider: str
    key: str
    left: int


class Gates(Protocol):
    """All gates of one engine."""

    generation: int
    """Changes when runs that wait may belong to another gate than before, for example after a first 429."""

    @property
    def is_changed(self) -> bool:
        """Whether :meth:`state` has something new to tell. Asked after each turn of the broker: it is quick."""

    def gate_of(self, question: Acquire) -> Gate | None:
        """Return the gate that the run stands before; None if nothing limits it. Quick if nothing limits any run."""

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return why the run gets no lease at all; None if it may wait. To be asked once for each attempt.

        For a spending limit that is reached, a retry without budget, and a hedge that is not allowed. A retry or a hedge
        that is not refused counts at once. A hedge never waits: one that is not refused here, and finds no place on a
        worker, is refused by the caller.
        """

    def learns_from(self, question: Acquire, sign: Release | ResponseReport, now: float) -> bool:
        """Make a gate for a run without a ticket, if its failure or the head of its response says that there are limits.

        Quick if it says nothing. True: a gate was made. Then :meth:`adopt` all leases without a ticket, this run's among
        them, and tell the gate of this run's ticket what happened (``leave`` or ``answered``), as for any other run.
        """

    def adopt(self, question: Acquire, key: str, now: float, went_at: float | None = None) -> Ticket | None:
        """Count a run that has its lease already: from an earlier broker, or from before its gate was made.

        ``key``: the key of its Grant, empty if it had none. ``went_at``: when it was granted, or asked for its lease. Return its
        ticket; None if nothing limits the run.
        """

    def keys_told(self, epoch: int, keys: Mapping[str, Sequence[str]], now: float) -> None:
        """The worker with this epoch says which keys it has: provider → short hashes. See ``KeyReport``."""

    def worker_left(self, epoch: int) -> None:
        """A worker is gone. A key that no worker has is forgotten."""

    def configure(self, settings: Settings, now: float) -> None:
        """The settings are read again: their limits count from now on. What was used stays counted."""

    def reloaded(self) -> None:
        """Workers have read their keys again: keys that the provider refused are tried again."""

    def facts(self) -> list[KeyRefused]:
        """Return what has happened since the last call and is to be logged loudly."""

    def pools(self, waiting: Mapping[Hashable, int], now: float) -> list[PoolStatus]:
        """Return the pools for the engine's status. ``waiting``: the key of a gate → how many runs wait at it."""

    def state(self, now: float) -> bytes | None:
        """Return what a new broker of this boot must know of the limits; None if it has not changed since the last call."""

    def restore(self, state: bytes, now: float) -> None:
        """Take over the state of an earlier broker of this boot. Raises msgspec.DecodeError if it cannot be read."""
