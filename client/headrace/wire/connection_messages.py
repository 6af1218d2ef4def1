"""The messages with which a connection begins and ends, the protocol's version and the size of its frames."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.wire.bounds import Capacity, Name, Reason, Small, Words

PROTOCOL_MAJOR = 1
PROTOCOL_MINOR = 5
CAPABILITIES = ["joined", "vacated", "query", "spans", "leases", "poison", "restart", "limits", "groups"]
"""Optional messages that this version understands. Minor version 0 had none of them."""

MAX_FRAME_BYTES = 64 * 1024 * 1024
"""Largest frame. A peer that sends a larger one is cut off."""
BROKER_FRAME_BYTES = 4 * 1024 * 1024
"""Largest frame to the broker. The longest thing it is sent are the spans that a client leaves at its end."""
MAX_FRAME_MESSAGES = 10_000
"""Most messages in one frame to the broker or a worker. A sender with more sends several frames."""

PeerRole = Literal["client", "worker", "supervisor", "broker", "collector"]


class WireMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Base of all messages. It is immutable, because one message may wait in two places."""


class Hello(WireMessage, frozen=True, tag=1):
    """First message of each connection: who speaks.

    A worker also says its endpoint, where clients reach it, and its capacity, how many runs it takes (see
    ``Heartbeat``).
    """

    role: PeerRole
    minor: Small
    pid: Small
    capabilities: Words = []
    name: Name = ""
    endpoint: Name = ""
    capacity: Capacity = -1


class Welcome(WireMessage, frozen=True, tag=2):
    """Answer to a Hello. The epoch of the answering process is in the frame."""

    minor: Small
    pid: Small
    capabilities: Words = []
    version: Name = ""
    total_timeout: float | None = None
    """From a broker: the total timeout, in seconds, of runs that set none. ``None``: the broker does not say."""


class Goodbye(WireMessage, frozen=True, tag=3):
    """Last message of a connection: the sender ends it, and says why."""

    reason: Reason
