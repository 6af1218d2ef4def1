"""The messages about leases, between a client, the broker and a worker."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.types import UsageSource
from headrace.wire.bounds import Count, Epochs, Id, Name, Reason, Seconds, Small, Word
from headrace.wire.connection_messages import WireMessage

_MAX_LEASES = 200_000

RefusalKind = Literal["duplicate_span_id", "queue_full", "no_workers", "stopping", "poison"]


class Acquire(WireMessage, frozen=True, tag=10):
    """Ask the broker for a lease: the permission to run on one worker.

    ``avoid`` has the epochs of workers on which this run must not run again. ``is_repeat`` says that the client sends
    this question a second time, after it connected again; the question of a new attempt is not a repeat.
    """

    span_id: Id
    attempt: Small
    provider: Name
    model: Name
    priority: Literal["interactive", "batch"] = "interactive"
    avoid: Epochs = []  # noqa: RUF012 - msgspec makes a new list for each message
    is_traced: bool = True
    is_repeat: bool = False

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt of this run failed. It says nothing about workers: see ``avoid``."""
        return self.attempt > 1


class Grant(WireMessage, frozen=True, tag=11):
    """A lease.

    It names the worker, its endpoint, its epoch and its pid, as the broker's kernel numbers it (0: unknown).
    """

    span_id: Id
    attempt: Small
    worker: Name
    endpoint: Name
    epoch: Count
    pid: Small = 0


class Refuse(WireMessage, frozen=True, tag=12):
    """The broker gives no lease. ``retry_after``: seconds after which it may help to ask again."""

    span_id: Id
    attempt: Small
    kind: RefusalKind
    reason: Reason
    retry_after: Seconds | None = None


class TokenCounts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Tokens that an attempt took from the provider's limits.

    ``source`` is that of ``Usage``: how far to trust the counts.
    """

    input_tokens: Count
    output_tokens: Count
    cached_input_tokens: Count = 0
    source: UsageSource = "none"


class Release(WireMessage, frozen=True, tag=13):
    """A client gives back its lease, or its place in the queue, and says how the attempt ended.

    ``outcome`` is a word of ``settlement.py``; a receiver takes a word that it does not know, and an empty one, for
    "not known". The other fields are set where the worker said them: tokens, the provider's HTTP status, and the
    seconds of its Retry-After.
    """

    span_id: Id
    attempt: Small
    outcome: Word = ""
    tokens: TokenCounts | None = None
    status_code: Small | None = None
    retry_after: Seconds | None = None


class Hold(WireMessage, frozen=True, tag=16):
    """To a new broker: the run has a lease from an earlier broker, on the worker with this epoch."""

    span_id: Id
    attempt: Small
    epoch: Count


class Revoke(WireMessage, frozen=True, tag=19):
    """To a client: its lease has ended, because the worker does not have the run.

    If the run is on the worker all the same, the client sends Hold.
    """

    span_id: Id
    attempt: Small


class LeaseQuery(WireMessage, frozen=True, tag=26):
    """To a worker: which of these runs does it have? Each item: span id, attempt, pid of the client (0: any client)."""

    leases: Annotated[list[tuple[Id, Small, Small]], Meta(max_length=_MAX_LEASES)]


class LeaseState(WireMessage, frozen=True, tag=27):
    """Answer to a LeaseQuery. Each item: span id, attempt, and whether the worker has the run."""

    leases: Annotated[list[tuple[Id, Small, bool]], Meta(max_length=_MAX_LEASES)]
