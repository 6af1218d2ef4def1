"""The messages about many leases at once, between a client and the broker: many questions, grants and releases in one."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from headrace.wire.bounds import Count, Id
from headrace.wire.connection_messages import WireMessage
from headrace.wire.lease_messages import Acquire, Grant, Release

MAX_GROUP = 64
"""Runs in one message at most, so that no client keeps the broker from the others for long."""


class AcquireMany(WireMessage, frozen=True, tag=60):
    """Ask for a lease for each of several runs, as so many Acquires would in this order.

    ``question``: of the first run. ``others``: of each further run the span id and the estimate of its input tokens; all
    other fields of its question are those of the first.
    """

    question: Acquire
    others: Annotated[list[tuple[Id, Count]], Meta(max_length=MAX_GROUP - 1)]


class GrantMany(WireMessage, frozen=True, tag=61):
    """Leases for several runs on one worker, as so many Grants would give them.

    ``grant``: of the first run. ``others``: the span ids of the further runs; all other fields are those of the first.
    """

    grant: Grant
    others: Annotated[list[Id], Meta(max_length=MAX_GROUP - 1)]


class ReleaseMany(WireMessage, frozen=True, tag=62):
    """A client gives back several leases. The broker gives them to others when it has taken all of them back."""

    releases: Annotated[list[Release], Meta(max_length=MAX_GROUP)]
