"""A run that waits for a lease, and what a waiting run waits for. Pure."""

from __future__ import annotations

import enum

import msgspec

from headrace.wire.messages import Acquire, WaitWord

Owner = int | bytes
"""The client that a run counts for: the pid of its process, or the connection if the pid is not known."""

_PLACE_BYTES = 1024
_EPOCH_BYTES = 44
_TEXT_BYTES = 60
"""What a text in a list takes beside its characters."""


class WaitingRun(msgspec.Struct, frozen=True, gc=False):
    """A run that waits for a lease. ``since`` is when its client asked, on the broker's clock."""

    client: bytes
    question: Acquire
    since: float
    process: int = 0
    """The pid of the client, 0 where it is not known. All connections of one process are one owner."""

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self.question.span_id

    @property
    def attempt(self) -> int:
        """The attempt that waits."""
        return self.question.attempt

    @property
    def places(self) -> int:
        """How many places of the queue the run takes: one for each KiB of its names, its tags and its list ``avoid``."""
        question = self.question
        size = len(question.provider) + len(question.model) + _EPOCH_BYTES * len(question.avoid)
        size += len(question.account) + len(question.user)
        if question.tags:
            size += sum(map(len, question.tags)) + _TEXT_BYTES * len(question.tags)
        return 1 + size // _PLACE_BYTES

    @property
    def owner(self) -> Owner:
        """Who asks: the client's process, or its connection."""
        return self.process or self.client


class WaitCause(enum.IntEnum):
    """What a run waits for. If workers give different causes, the cause with the highest number counts."""

    NO_WORKER = 0
    """No worker is connected that takes new runs."""
    ALL_AVOIDED = 1
    """The run must not go to any of the workers that are connected."""
    WORKERS_FULL = 2
    """Each worker that the run may go to has all its runs, or is silent."""
    CLIENT_SHARE = 3
    """There is room on a worker, but the client has its share of this worker already."""
    GATE = 4
    """There is room on a worker, but the limits of the provider or of the settings let no run go."""


class Wait(msgspec.Struct, frozen=True, gc=False):
    """What a run waits for, and until when on the broker's clock.

    ``None``: until something happens, however long that takes.
    """

    cause: WaitCause
    until: float | None
    gate_word: WaitWord = ""
    """What the gate says, if the cause is ``GATE``."""

    @property
    def word(self) -> WaitWord:
        """The word for it in a Grant and in the status."""
        return self.gate_word or ("share" if self.cause is WaitCause.CLIENT_SHARE else "workers")
