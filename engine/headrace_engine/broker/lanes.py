"""The queue for leases: lanes for each gate and priority, whose turn it is, and when the queue is full. Pure.

A *gate* stands before the runs that share limits of a provider (:mod:`headrace_engine.limits.gate`). Runs that nothing limits
have lanes of their own. The rules of the queue:

1. A gate whose runs must wait holds up no other gate. Gates take turns.
2. Interactive runs go before batch runs. But where both wait, one of ten leases goes to a batch run: at each gate, and, if
   places on workers are scarce, among gates that have only batch runs. A batch run that costs more than the interactive
   ones would find no room for ever, so these wait for it: for a tenth of the time at most.
3. No client takes the last places of the queue. All connections of one process are one client in this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import chain, islice
from typing import NamedTuple, TypeVar

from headrace.wire.messages import WaitWord
from headrace_engine.broker.lane import Lane
from headrace_engine.broker.waiting_run import Owner, Wait, WaitingRun
from headrace_engine.limits.gate import Gate, Priority

W = TypeVar("W")

_FREE_SHARE = 9
"""A client may have this many times as many places as there are free places in the queue."""
_BATCH_AFTER = 9
"""After so many leases of interactive runs, a batch run that waits is next."""
_HOLD_PART = 9
"""Interactive runs wait for a batch run that is due for one part of this many of the time that batch runs have waited."""
_HOLD_AFTER = 5.0
"""Seconds after which they do. Before, a batch run that is due goes when the gate has room for it."""
_LOOKED_AT = 16
"""So many runs that avoid workers are compared by their deadlines."""


class GateLanes:
    """The waiting runs of one gate; ``gate`` None: nothing limits them."""

    __slots__ = ("batch", "batch_waits_since", "gate", "interactive", "key", "since_batch")

    def __init__(self, gate: Gate | None) -> None:
        self.gate = gate
        self.key: Hashable = gate.key if gate is not None else None
        """The name of the gate when its first run came; ``None`` if there is no gate. A gate may get another name."""
        self.interactive = Lane(gate, "interactive")
        self.batch = Lane(gate, "batch")
        self.since_batch = 0
        """Leases of interactive runs since the last one of a batch run, while batch runs waited."""
        self.batch_waits_since = 0.0
        """When a batch run got a lease last, or the first one came after a time without any."""

    def __len__(self) -> int:
        return len(self.interactive) + len(self.batch)

    def lane(self, priority: Priority) -> Lane:
        """Return the lane of a priority."""
        return self.batch if priority == "batch" else self.interactive

    def stand_before(self, gate: Gate | None) -> None:
        """The gate is another object now. It has the same key."""
        self.gate = self.interactive.gate = self.batch.gate = gate
        self.look_again()

    def look_again(self) -> None:
        """Ask the gate again, even if nothing seems to have changed there."""
        self.interactive.look_again()
        self.batch.look_again()

    def is_closed(self, now: float) -> bool:
        """Return whether the gate need not be asked: nothing has changed there since the first runs had to wait."""
        gate = self.gate
        if gate is None:
            return False
        version = gate.version
        return self.interactive.is_closed(version, now) and self.batch.is_closed(version, now)

    @property
    def is_batch_due(self) -> bool:
        """Whether the next lease is for a batch run, if one waits."""
        return self.since_batch >= _BATCH_AFTER

    def waits_for_batch(self, now: float) -> bool:
        """Return whether interactive runs wait until a batch run, which is due, has room at the gate."""
        until = self.batch.until
        if not self.is_batch_due or until is None or self.batch.word != "limit":
            return False
        waited = now - self.batch_waits_since
        return waited >= _HOLD_AFTER and until - now <= waited / _HOLD_PART

    def in_turn(self) -> tuple[Lane, Lane]:
        """Return the lanes in the order in which they are served."""
        return (self.batch, self.interactive) if self.since_batch >= _BATCH_AFTER else (self.interactive, self.batch)

    def served(self, lane: Lane, now: float) -> None:
        """A run of this lane, which still counts, has got its lease.

        A batch run that is due asks its gate as an interactive run does: what is kept for these, they would take each time.
        """
        if lane is self.batch:
            self.since_batch = 0
            self.batch_waits_since = now
        elif self.batch:
            self.since_batch += 1
        asks_as: Priority = "interactive" if self.is_batch_due else "batch"
        if asks_as != self.batch.asks_as:
            self.batch.asks_as = asks_as
            self.batch.look_again()


class _Place(NamedTuple):
    """A run's place in the queue."""

    run: WaitingRun
    lanes: GateLanes
    lane: Lane
    size: int


class Lanes:
    """The waiting runs. ``max_places`` is how many places there are."""

    def __init__(self, max_places: int) -> None:
        self._max_places = max_places
        self._taken = 0
        self._taken_by: dict[Owner, int] = {}
        # Gates with waiting runs by their keys, in the order of their turns.
        self._gates: dict[Hashable, GateLanes] = {}
        self._unlimited = GateLanes(None)
        # In the order in which the runs came.
        self._places: dict[str, _Place] = {}
        self._avoiding: dict[str, WaitingRun] = {}
        self._of_client: dict[bytes, set[str]] = {}
        # Leases of interactive runs since the last one at a gate with only batch runs.
        self._since_batch = 0

    def __len__(self) -> int:
        return len(self._places)

    def __bool__(self) -> bool:
        return bool(self._places)

    def find(self, span_id: str) -> WaitingRun | None:
        """Return the run with this id."""
        place = self._places.get(span_id)
        return place.run if place is not None else None

    def lane_of(self, span_id: str) -> Lane | None:
        """Return the lane of the run with this id."""
        place = self._places.get(span_id)
        return place.lane if place is not None else None

    def waits_for_batch(self, span_id: str, now: float) -> float | None:
        """Return until when an interactive run waits for a batch run that is due; ``None`` if it does not."""
        place = self._places.get(span_id)
        if place is None or place.lane is not place.lanes.interactive or not place.lanes.waits_for_batch(now):
            return None
        return place.lanes.batch.until

    def no_room(self, owner: Owner) -> str:
        """Return why there is no place for another run of this client; empty if there is one."""
        free = self._max_places - self._taken
        if free <= 0:
            return f"{len(self)} runs are waiting already"
        own = self._taken_by.get(owner, 0)
        if own >= _FREE_SHARE * free:
            return f"this client's waiting runs take {own} places already, of {self._taken} in all"
        return ""

    def add(self, run: WaitingRun, gate: Gate | None = None) -> None:
        """A run waits at a gate from now on."""
        size, owner, span_id = run.places, run.owner, run.span_id
        self._taken += size
        self._taken_by[owner] = self._taken_by.get(owner, 0) + size
        self._of_client.setdefault(run.client, set()).add(span_id)
        if run.question.avoid:
            self._avoiding[span_id] = run
        self._put(run, gate, size)

    def _put(self, run: WaitingRun, gate: Gate | None, size: int) -> None:
        key = gate.key if gate is not None else None
        lanes = self._gates.get(key)
        if lanes is None:
            lanes = self._gates[key] = self._unlimited if gate is None else GateLanes(gate)
        lane = lanes.lane(run.question.priority)
        if lane is lanes.batch and not lane:
            lanes.batch_waits_since = run.since
        lane.add(run)
        self._places[run.span_id] = _Place(run, lanes, lane, size)

    def remove(self, span_id: str) -> None:
        """A run does not wait any more. An unknown run does no harm."""
        place = self._places.get(span_id)
        if place is not None:
            place.lane.remove(place.run)
            self._forget(place)

    def _forget(self, place: _Place) -> None:
        """Forget a run that its lane has taken out."""
        run, lanes, _, size = place
        owner, span_id = run.owner, run.span_id
        del self._places[span_id]
        if not lanes:
            del self._gates[lanes.key]
        self._taken -= size
        left = self._taken_by[owner] - size
        if left:
            self._taken_by[owner] = left
        else:
            del self._taken_by[owner]
        if run.question.avoid:
            del self._avoiding[span_id]
        spans = self._of_client[run.client]
        spans.discard(span_id)
        if not spans:
            del self._of_client[run.client]

    def client_left(self, client: bytes) -> None:
        """A client is gone, and its runs do not wait any more."""
        for span_id in list(self._of_client.get(client, ())):
            self.remove(span_id)

    # Turns.

    def serve(
        self,
        choice: Callable[[Lane], Callable[[WaitingRun], W | Wait]],
        held: set[Lane],
        gates: list[GateLanes] | None = None,
        now: float = 0.0,
    ) -> tuple[WaitingRun, W, Gate | None, WaitWord] | None:
        """Take out the next run for which there is a worker; ``choice`` finds one for a run of a lane.

        Return the run, the worker, the gate, and what the run waited for. ``None`` if all runs must wait. ``held`` gets the
        lanes that cannot go on: give the same set again until a place on a worker or a share of a gate becomes free.
        ``gates``: those that may let a run go, from :meth:`open`; ``None``: any. The list is kept in the order of turns.
        """
        for lanes, lane in self._in_turn(list(self._gates.values()) if gates is None else gates):
            if not lane or lane in held:
                continue
            served = lane.serve(choice(lane))
            if served is not None:
                run, worker, word = served
                self._served(run, lanes, now)
                if gates is not None and len(gates) > 1:
                    gates.remove(lanes)
                    gates.append(lanes)
                return run, worker, lane.gate, word
            held.add(lane)
            if lane is lanes.batch and lanes.waits_for_batch(now):
                lanes.interactive.word, lanes.interactive.until = lane.word, lane.until
                held.add(lanes.interactive)
        return None

    def open(self, now: float) -> list[GateLanes]:
        """Return the gates that may let a run go, in the order of their turns: give the list to :meth:`serve`."""
        return [lanes for lanes in self._gates.values() if not lanes.is_closed(now)]

    def look_again(self) -> None:
        """Ask all gates again: the limits are other ones."""
        for lanes in self._gates.values():
            lanes.look_again()

    def _in_turn(self, gates: list[GateLanes]) -> Iterable[tuple[GateLanes, Lane]]:
        """Return the lanes in the order in which they are served. A lane may come twice, and may be empty."""
        if len(gates) == 1:
            return [(gates[0], lane) for lane in gates[0].in_turn()]
        only_batch = [(lanes, lanes.batch) for lanes in gates if not lanes.interactive]
        others = [
            (lanes, lane) for lanes in gates if lanes.interactive for lane in lanes.in_turn()[: 1 + lanes.is_batch_due]
        ]
        rest = [(lanes, lanes.batch) for lanes in gates]
        return [*only_batch, *others, *rest] if self._since_batch >= _BATCH_AFTER else [*others, *rest]

    def _served(self, run: WaitingRun, lanes: GateLanes, now: float) -> None:
        """A run has got its lease: its gate has had its turn."""
        place = self._places[run.span_id]
        lanes.served(place.lane, now)
        if place.lane is lanes.interactive:
            self._since_batch += 1
        elif not lanes.interactive:
            self._since_batch = 0
        if len(self._gates) > 1:
            self._gates[lanes.key] = self._gates.pop(lanes.key)  # to the end
        self._forget(place)

    def no_worker_has_room(self) -> None:
        """Note that all runs wait for places on workers."""
        for lanes in self._gates.values():
            lanes.interactive.word = lanes.batch.word = "workers"
            lanes.interactive.until = lanes.batch.until = None
            lanes.look_again()

    def regroup(self, gate_of: Callable[[WaitingRun], Gate | None]) -> None:
        """Put each run to the gate before which it stands now. Its place in the queue stays."""
        self.look_again()
        moving: list[tuple[_Place, Gate | None]] = []
        for place in self._places.values():
            gate = gate_of(place.run)
            if (gate.key if gate is not None else None) != place.lanes.key:
                moving.append((place, gate))
            elif gate is not place.lanes.gate:
                place.lanes.stand_before(gate)
        for (run, lanes, lane, size), gate in moving:
            lane.remove(run)
            if not lanes:
                del self._gates[lanes.key]
            self._put(run, gate, size)

    # Time.

    def next_until(self) -> float | None:
        """Return when the first gate may let a run go."""
        first: float | None = None
        for lanes in self._gates.values():
            if lanes.gate is not None:
                for lane in (lanes.interactive, lanes.batch):
                    # An empty lane keeps the time of its last run.
                    if lane and lane.until is not None and (first is None or lane.until < first):
                        first = lane.until
        return first

    def waiting_for(self, seconds: float, now: float, *, has_workers: bool) -> Iterator[WaitingRun]:
        """Yield the runs that have waited for ``seconds`` or longer, the oldest first; for ``has_workers`` see below."""
        runs = self._avoiding.values() if has_workers else (place.run for place in self._places.values())
        for run in runs:
            if run.since + seconds > now:
                return
            yield run

    def next_to_give_up(self, *, has_workers: bool = False) -> list[WaitingRun]:
        """Return the runs that may be the first to stop waiting: the oldest run, and the oldest runs that avoid workers.

        ``has_workers``: only runs that avoid workers may stop waiting for one. A worker that dies with thousands of runs
        leaves as many that avoid it. This is asked in each turn of the broker, so it returns a few of them;
        :attr:`avoids_more` says that there are more.
        """
        avoiding = list(islice(self._avoiding.values(), _LOOKED_AT)) if self._avoiding else []
        oldest = [] if has_workers else [place.run for place in islice(self._places.values(), 1)]
        return oldest + avoiding

    @property
    def avoids_more(self) -> bool:
        """Whether more runs avoid workers than :meth:`next_to_give_up` returns."""
        return len(self._avoiding) > _LOOKED_AT

    # The queue as a whole.

    def ahead_of(self, run: WaitingRun, gate: Gate | None) -> int:
        """Return how many runs of its gate go before a new run, at most."""
        lanes = self._gates.get(gate.key if gate is not None else None)
        if lanes is None:
            return 0
        ahead = lanes.lane(run.question.priority).ahead_of(run)
        if run.question.priority == "batch":
            return ahead + min(len(lanes.interactive), _BATCH_AFTER * (ahead + 1))
        return ahead + min(len(lanes.batch), ahead // _BATCH_AFTER)

    def waiting_at_gates(self) -> dict[Hashable, int]:
        """Return how many runs wait at each gate, by its key."""
        return {key: len(lanes) for key, lanes in self._gates.items() if key is not None}

    def words(self) -> dict[str, int]:
        """Return how many runs wait for what: a word of ``WaitWord`` → a number."""
        counts: dict[str, int] = {}
        for lanes in self._gates.values():
            for word, count in chain(lanes.interactive.words(), lanes.batch.words()):
                counts[word] = counts.get(word, 0) + count
        return counts

    def clear(self) -> list[WaitingRun]:
        """Take all runs out, and return them in the order in which they came."""
        runs = [place.run for place in self._places.values()]
        for run in runs:
            self.remove(run.span_id)
        return runs
