"""The limits of a worker: how many runs it takes, how many of one client, and how many bytes of requests.

The broker grants no more leases than these limits allow. They hold against clients that send runs without a lease.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.process.descriptors import DescriptorShares
from headrace.process.event_loop import EventLoop
from headrace.wire.value_count import MAX_VALUES, VALUE_BYTES, count_values
from headrace_workers.runs.live_run import ConnectedClient

_SHORT_REQUEST = 2 * 1024
"""Encoded bytes of a request up to which its values are not counted."""
_VALUES_PER_TURN = 1_000_000
"""Values (numbers, texts, lists, maps) of the requests that are read in one turn of the loop. They cost more time than bytes do."""
_SMALL_REQUEST = 64 * 1024
"""Bytes of a request up to which the bytes of all requests are not added up. The number of runs limits the small ones."""
_MAX_REQUEST_BYTES = 1024 * 1024 * 1024
"""Decoded bytes of the requests of all runs. The runs of one process may have half of it."""


class RunLimits:
    """Decides whether a worker can take one more run. ``clients`` are the connected clients, with their runs."""

    def __init__(
        self, shares: DescriptorShares, max_runs: int, clients: Mapping[bytes, ConnectedClient], loop: EventLoop
    ) -> None:
        self._exchanges = shares.exchanges
        self.capacity = min(max_runs, shares.exchanges)
        """Runs that the worker may have at once, as it tells the broker."""
        self._most_of_one_client = min(self.capacity + self.capacity // 4 + 8, self._exchanges - self._exchanges // 64)
        """Runs that one client may have: as many as it can have leases, and some more that are ending, but never all."""
        self._clients = clients
        self._loop = loop
        self._values_left = _VALUES_PER_TURN
        self._most_runs = 0
        """At least as many runs as the worker has: those of the last count, and all that came since."""

    def run_count(self) -> int:
        """Return how many runs the worker has."""
        count = 0
        for client in self._clients.values():
            count += len(client.runs)
        return count

    def weigh(self, client: ConnectedClient, request: bytes) -> tuple[int, str]:
        """Return the approximate bytes that an encoded request takes when it is decoded, and why its run is not taken.

        The reason is empty if the run is taken.
        """
        self._most_runs += 1
        if self._most_runs >= self._most_of_one_client:
            count = self._most_runs = self.run_count()
            if count >= self._exchanges:
                return 0, "the worker has as many runs as it can"
            if count >= self._most_of_one_client and self._run_count_of(client) >= self._most_of_one_client:
                return 0, "the worker has the largest number of runs that one client may have"
        if (weight := self._weight(request)) is None:
            return 0, "the requests that came at the same time have too many values for one turn of the worker"
        if not self._has_room_for(client, weight):
            return (
                0,
                "the requests in the worker's memory have reached their limit of bytes, for this client or for all",
            )
        return weight, ""

    def _weight(self, request: bytes) -> int | None:
        """Return the approximate bytes of a decoded request. Return None if too many values were read in this turn already."""
        size = len(request)
        if size <= _SHORT_REQUEST:
            return size
        if self._values_left <= 0:
            return None
        if self._values_left == _VALUES_PER_TURN:
            self._loop.call_soon(self._begin_turn)
        values = count_values(request, MAX_VALUES)
        self._values_left -= values
        return size + VALUE_BYTES * values

    def _begin_turn(self) -> None:
        self._values_left = _VALUES_PER_TURN

    def _has_room_for(self, client: ConnectedClient, size: int) -> bool:
        """Return whether ``size`` more bytes of requests may be kept, for the client's process and for all processes."""
        if size <= _SMALL_REQUEST:
            return True
        own = total = 0
        for other in self._clients.values():
            kept = sum(run.size for run in other.runs.values())
            total += kept
            if other.pid == client.pid:
                own += kept
        return own + size <= _MAX_REQUEST_BYTES // 2 and total + size <= _MAX_REQUEST_BYTES

    def _run_count_of(self, client: ConnectedClient) -> int:
        """Return how many runs a client has, on all connections of its process."""
        if not client.pid:
            return len(client.runs)
        return sum(len(other.runs) for other in self._clients.values() if other.pid == client.pid)
