"""The queue for leases: a lane for each priority, the client of each run, and when the queue is full. Pure.

No client takes the last places of the queue. All connections of one process are one client in this.
"""

from __future__ import annotations

from collections.abc import Iterator

from headrace_engine.broker.lane import Lane
from headrace_engine.broker.waiting_run import Owner, WaitingRun

_FREE_SHARE = 9
"""A client may have this many times as many places as there are free places in the queue."""


class Lanes:
    """The waiting runs. ``max_places`` is how many places there are."""

    def __init__(self, max_places: int) -> None:
        self._max_places = max_places
        # In the order in which they are served.
        self._lanes = {"interactive": Lane(), "batch": Lane()}
        self._of_client: dict[bytes, set[str]] = {}

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    def __bool__(self) -> bool:
        return bool(self._of_client)

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def find(self, span_id: str) -> WaitingRun | None:
        """Return the run with this id."""
        if not self._of_client:
            return None
        for lane in self._lanes.values():
            if (run := lane.find(span_id)) is not None:
                return run
        return None

    def no_room(self, owner: Owner) -> str:
        """Return why there is no place for another run of this client; empty if there is one."""
        taken = sum(lane.places for lane in self._lanes.values())
        if taken >= self._max_places:
            return f"{len(self)} runs are waiting already"
        own = sum(lane.places_of(owner) for lane in self._lanes.values())
        if own >= _FREE_SHARE * (self._max_places - taken):
            return f"this client's waiting runs take {own} places already, of {taken} in all"
        return ""

    def add(self, run: WaitingRun) -> None:
        """A run waits from now on."""
        self._of_client.setdefault(run.client, set()).add(run.span_id)
        self._lanes[run.question.priority].add(run)

    def remove(self, span_id: str) -> None:
        """A run does not wait any more. An unknown run does no harm."""
        run = self.find(span_id)
        if run is not None:
            self._lanes[run.question.priority].remove(span_id)
            self.served(run)

    def served(self, run: WaitingRun) -> None:
        """Forget whose run this was: its lane has taken it out."""
        spans = self._of_client[run.client]
        spans.discard(run.span_id)
        if not spans:
            del self._of_client[run.client]

    def client_left(self, client: bytes) -> None:
        """A client is gone, and its runs do not wait any more."""
        for span_id in list(self._of_client.get(client, ())):
            self.remove(span_id)

    def waiting_for(self, seconds: float, now: float) -> list[WaitingRun]:
        """Return the runs that have waited for ``seconds`` or longer."""
        return [run for lane in self._lanes.values() for run in lane.waiting_for(seconds, now)]

    def next_to_give_up(self) -> Iterator[WaitingRun]:
        """Yield the runs that may be the first to stop waiting; not all, if :attr:`avoids_more`."""
        for lane in self._lanes.values():
            yield from lane.next_to_give_up()

    @property
    def avoids_more(self) -> bool:
        """Whether more runs avoid workers than :meth:`next_to_give_up` yields."""
        return any(lane.avoids_more for lane in self._lanes.values())

    def clear(self) -> list[WaitingRun]:
        """Take all runs out, and return them."""
        self._of_client.clear()
        return [run for lane in self._lanes.values() for run in lane.clear()]
