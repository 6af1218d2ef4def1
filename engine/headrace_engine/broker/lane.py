"""One lane of the queue: runs of one priority that wait for a lease, in the order in which they are served. Pure.

Clients take turns: however many runs one client has waiting, another client's first run waits for one turn of each
client. A client's own runs are served in the order in which they came, but its retries go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import TypeVar

from headrace_engine.broker.waiting_run import Owner, Wait, WaitingRun

W = TypeVar("W")

_LOOKED_AT = 16
"""In a client's turn, this many of its retries and of its first attempts are tried. The same number of runs that avoid workers is
compared by their deadlines."""


class _ClientRuns:
    """The waiting runs of one client."""

    __slots__ = ("first", "places", "retries")

    def __init__(self) -> None:
        self.first: dict[str, WaitingRun] = {}
        self.retries: dict[str, WaitingRun] = {}
        self.places = 0

    def group(self, run: WaitingRun) -> dict[str, WaitingRun]:
        """Return the group that a run belongs to."""
        return self.retries if run.question.is_retry else self.first


class Lane:
    """The waiting runs of one priority."""

    def __init__(self) -> None:
        # In the order of their turns.
        self._clients: dict[Owner, _ClientRuns] = {}
        # In the order in which they came.
        self._by_span: dict[str, WaitingRun] = {}
        self._avoiding: dict[str, WaitingRun] = {}
        self.places = 0
        """Places of the queue that are taken. See :attr:`WaitingRun.places`."""

    def __len__(self) -> int:
        return len(self._by_span)

    def find(self, span_id: str) -> WaitingRun | None:
        """Return the run with this id."""
        return self._by_span.get(span_id)

    def places_of(self, owner: Owner) -> int:
        """Return how many places the runs of one client take."""
        runs = self._clients.get(owner)
        return runs.places if runs is not None else 0

    def add(self, run: WaitingRun) -> None:
        """Put a run behind the other runs of its client."""
        runs = self._clients.setdefault(run.owner, _ClientRuns())
        runs.group(run)[run.span_id] = run
        self._by_span[run.span_id] = run
        if run.question.avoid:
            self._avoiding[run.span_id] = run
        places = run.places
        runs.places += places
        self.places += places

    def remove(self, span_id: str) -> None:
        """Take a run out. An unknown run does no harm."""
        run = self._by_span.pop(span_id, None)
        if run is None:
            return
        self._avoiding.pop(span_id, None)
        runs = self._clients[run.owner]
        del runs.group(run)[span_id]
        places = run.places
        runs.places -= places
        self.places -= places
        if not runs.first and not runs.retries:
            del self._clients[run.owner]

    def serve(self, choose: Callable[[WaitingRun], W | Wait]) -> tuple[WaitingRun, W] | None:
        """Take out the next run for which ``choose`` has a worker, and return both; ``None`` if all runs must wait."""
        for owner, runs in self._clients.items():
            for run in _looked_at(runs):
                chosen = choose(run)
                if not isinstance(chosen, Wait):
                    self._clients[owner] = self._clients.pop(owner)  # to the end
                    self.remove(run.span_id)
                    return run, chosen
                if not run.question.avoid:
                    break  # the run may use any worker: if it must wait, the client's other runs must wait too
        return None

    def next_to_give_up(self) -> Iterable[WaitingRun]:
        """Return the runs that may be the first to stop waiting: the oldest run, and the oldest runs that avoid workers.

        A worker that dies with thousands of runs leaves as many that avoid it. This is asked in each turn of the broker, so it
        returns a few of them; :attr:`avoids_more` says that there are more.
        """
        return chain(islice(self._by_span.values(), 1), islice(self._avoiding.values(), _LOOKED_AT))

    @property
    def avoids_more(self) -> bool:
        """Whether more runs avoid workers than :meth:`next_to_give_up` returns."""
        return len(self._avoiding) > _LOOKED_AT

    def waiting_for(self, seconds: float, now: float) -> Iterator[WaitingRun]:
        """Yield the runs that have waited for ``seconds`` or longer, the oldest first."""
        for run in self._by_span.values():
            if run.since + seconds > now:
                return
            yield run

    def clear(self) -> list[WaitingRun]:
        """Take all runs out, and return them."""
        runs = list(self._by_span.values())
        self._clients.clear()
        self._by_span.clear()
        self._avoiding.clear()
        self.places = 0
        return runs


def _looked_at(runs: _ClientRuns) -> Iterator[WaitingRun]:
    return chain(islice(runs.retries.values(), _LOOKED_AT), islice(runs.first.values(), _LOOKED_AT))
