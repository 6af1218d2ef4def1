"""The messages about leases, between a client, the broker and a worker."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.types import UsageSource
from headrace.wire.bounds import Count, Epochs, Id, Name, Reason, Seconds, Small, Word, Words
from headrace.wire.connection_messages import WireMessage

_MAX_LEASES = 200_000

RefusalKind = Literal[
    "duplicate_span_id", "queue_full", "no_workers", "stopping", "poison", "over_budget", "no_retry", "no_hedge"
]
"""Why the broker gives no lease.

``over_budget``: a spending limit of the settings is reached. ``no_retry``: the retry budget of the pool is used up.
``no_hedge``: a second attempt beside the first one is not allowed now. The last three go only to clients with the
capability ``limits``.
"""


WaitWord = Literal["", "workers", "share", "limit", "blocked", "breaker"]
"""What a run waited for.

``workers``: a place on a worker. ``share``: the client's own share of them. ``limit``: a limit of the provider or of
the settings. ``blocked``: the provider's Retry-After. ``breaker``: the provider failed too often.
"""


class Acquire(WireMessage, frozen=True, tag=10):
    """Ask the broker for a lease: the permission to run on one worker.

    ``avoid`` has the epochs of workers on which this run must not run again. ``is_repeat`` says that the client sends
    this question a second time, after it connected again; the question of a new attempt is not a repeat.

    The fields from ``account`` on are for the limits (:mod:`headrace.wire.accounts` makes the short hashes).
    ``account``: whose key and which address the run uses. ``user`` and ``tags``: short hashes of ``user_id`` and of the
    tags. ``input_tokens``: an estimate. ``max_output_tokens``: the caller's limit, 0 for none. ``max_wait``: the run is
    refused at once if it would wait longer, in seconds. ``is_provider_retry``: an earlier attempt failed at the
    provider, not with its worker. ``is_hedge``: a second attempt beside the first one, which goes on.
    """

    span_id: Id
    attempt: Small
    provider: Name
    model: Name
    priority: Literal["interactive", "batch"] = "interactive"
    avoid: Epochs = []  # noqa: RUF012 - msgspec makes a new list for each message
    is_traced: bool = True
    is_repeat: bool = False
    account: Word = ""
    user: Word = ""
    tags: Words = []  # noqa: RUF012
    input_tokens: Count = 0
    max_output_tokens: Count = 0
    max_wait: Seconds | None = None
    is_provider_retry: bool = False
    is_hedge: bool = False

    @property
    def is_retry(self) -> bool:
        """Whether an earlier attempt of this run failed. It says nothing about workers: see ``avoid``."""
        return self.attempt > 1


class Grant(WireMessage, frozen=True, tag=11):
    """A lease.

    It names the worker, its endpoint, its epoch and its pid, as the broker's kernel numbers it (0: unknown).
    ``waited_for``: what the run waited for last, a word of ``WaitWord``; empty if it did not wait. ``key``: the short
    hash of the engine's key that the run must use; empty: its only one. ``reports``: the worker must tell the broker of
    the response's head, also where it has no limits in its headers.
    """

    span_id: Id
    attempt: Small
    worker: Name
    endpoint: Name
    epoch: Count
    pid: Small = 0
    waited_for: Word = ""
    key: Word = ""
    reports: bool = False


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
    cache_write_tokens: Count = 0


class Release(WireMessage, frozen=True, tag=13):
    """A client gives back its lease, or its place in the queue, and says how the attempt ended.

    ``outcome`` is a word of ``settlement.py``; a receiver takes a word that it does not know, and an empty one, for
    "not known". The other fields are set where the worker said them: tokens, the provider's HTTP status, and the
    seconds of its Retry-After. ``is_final``: the same request would fail again, for example because the money is used
    up. ``clock``: of a timeout, the clock that ran out.
    """

    span_id: Id
    attempt: Small
    outcome: Word = ""
    tokens: TokenCounts | None = None
    status_code: Small | None = None
    retry_after: Seconds | None = None
    is_final: bool = False
    clock: Word = ""


class Hold(WireMessage, frozen=True, tag=16):
    """To a new broker: the run has a lease from an earlier broker, on the worker with this epoch.

    ``question``: the run's Acquire, so that the new broker counts the run in its pool. ``key``: as in the Grant.
    ``age``: seconds since the Grant came.
    """

    span_id: Id
    attempt: Small
    epoch: Count
    question: Acquire | None = None
    key: Word = ""
    age: Seconds = 0.0


class Revoke(WireMessage, frozen=True, tag=19):
    """To a client: its lease has ended, because the worker does not have the run.

    If the run is on the worker all the same, the client sends Hold.
    """

    span_id: Id
    attempt: Small


LimitKind = Literal["requests", "tokens", "input_tokens", "output_tokens"]


class SaidLimit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One limit as a provider's response headers tell it.

    ``limit`` and ``remaining`` are counts (None: not told). ``reset``: seconds until the limit is whole again.
    """

    kind: LimitKind
    limit: Count | None = None
    remaining: Count | None = None
    reset: Seconds | None = None


class ResponseReport(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The head of one response: its HTTP status and the limits in its headers. It is about the lease of its run."""

    span_id: Id
    attempt: Small
    status: Small
    limits: Annotated[list[SaidLimit], Meta(max_length=16)] = []


class LimitReport(WireMessage, frozen=True, tag=28):
    """From a worker to the broker: responses whose heads have come.

    A worker sends a report within 20 ms, and only the newest response of a pool where several have come.
    """

    responses: Annotated[list[ResponseReport], Meta(max_length=_MAX_LEASES)]


class KeyReport(WireMessage, frozen=True, tag=29):
    """From a worker to the broker, after its hello: provider → short hashes of the keys that the worker has for it."""

    keys: Annotated[dict[Name, Annotated[list[Word], Meta(max_length=1000)]], Meta(max_length=10_000)]


class LeaseQuery(WireMessage, frozen=True, tag=26):
    """To a worker: which of these runs does it have? Each item: span id, attempt, pid of the client (0: any client)."""

    leases: Annotated[list[tuple[Id, Small, Small]], Meta(max_length=_MAX_LEASES)]


class LeaseState(WireMessage, frozen=True, tag=27):
    """Answer to a LeaseQuery. Each item: span id, attempt, and whether the worker has the run."""

    leases: Annotated[list[tuple[Id, Small, bool]], Meta(max_length=_MAX_LEASES)]
