"""The commands that the session of a run returns. ``connections/engine_runs.py`` carries them out."""

from __future__ import annotations

import msgspec

from headrace.wire.messages import Abort, Acquire, Credit, Grant, Hold, Query, Release, Run


class AskBroker(msgspec.Struct, frozen=True, gc=False):
    """Send a message to the broker."""

    message: Acquire | Hold | Release


class TellWorker(msgspec.Struct, frozen=True, gc=False):
    """Send a message to the worker of the session's lease.

    If ``former`` is set, send it to that earlier worker instead: its last message. If ``lease`` is set, send it to the
    worker of that lease, which is a hedge's.
    """

    message: Run | Credit | Abort | Query
    former: Grant | None = None
    lease: Grant | None = None


class WakeAt(msgspec.Struct, frozen=True, gc=False):
    """Call the session's ``due`` at this time, on the clock of the caller of the session."""

    when: float


class HedgeBegan(msgspec.Struct, frozen=True, gc=False):
    """From now on, messages about this id are about the run."""

    span_id: str


class HedgeEnded(msgspec.Struct, frozen=True, gc=False):
    """Messages about this id are about the run no longer."""

    span_id: str


class RunEnded(msgspec.Struct, frozen=True, gc=False):
    """Tell the caller that the run has ended."""


Command = AskBroker | TellWorker | WakeAt | HedgeBegan | HedgeEnded | RunEnded
