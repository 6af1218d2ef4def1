"""One lane of the queue: runs of one gate and one priority that wait for a lease, in the order in which they are served. Pure.

Clients take turns: however many runs one client has waiting, another client's first run waits for one turn of each
client. Within a client its users take turns in the same way. The runs of one user are served in the order in which they
came, but the user's retries go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TypeVar

from headrace.wire.messages import WaitWord
from headrace_engine.broker.waiting_run import Owner, Wait, WaitCause, WaitingRun
from headrace_engine.limits.gate import Gate, Priority

W = TypeVar("W")

_LOOKED_AT = 16
"""In a client's turn, this many of each user's retries and of its first attempts are tried, and twice as many in all."""


class _UserRuns:
    """The waiting runs of one user of one client."""

    __slots__ = ("first", "retries")

    def __init__(self) -> None:
        self.first: dict[str, WaitingRun] = {}
        self.retries: dict[str, WaitingRun] = {}

    def group(self, run: WaitingRun) -> dict[str, WaitingRun]:
        """Return the group that a run belongs to."""
        return self.retries if run.question.is_retry else self.first

    def next(self) -> Iterator[WaitingRun]:
        """Yield the runs that are tried in the user's turn."""
        return chain(islice(self.retries.values(), _LOOKED_AT), islice(self.first.values(), _LOOKED_AT))


class _ClientRuns:
    """The waiting runs of one client."""

    __slots__ = ("count", "users", "word")

    def __init__(self) -> None:
        # In the order of their turns.
        self.users: dict[str, _UserRuns] = {}
        self.count = 0
        self.word: WaitWord = ""
        """What the client's next run waits for; empty if it waits for the same as its lane."""

    def next(self) -> Iterator[WaitingRun]:
        """Yield the runs that are tried in the client's turn."""
        if len(self.users) == 1:
            for user in self.users.values():
                return user.next()
        return islice(chain.from_iterable(user.next() for user in self.users.values()), 2 * _LOOKED_AT)

    def ahead_of(self, run: WaitingRun) -> int:
        """Return how many of the client's runs go before a new one, at most."""
        user = self.users.get(run.question.user)
        own = 0
        if user is not None:
            own = len(user.retries) + (0 if run.question.is_retry else len(user.first))
        others = len(self.users) - (user is not None)
        return min(self.count, own + (own + 1) * others)

    def add(self, run: WaitingRun) -> None:
        """Put a run behind the other runs of its user."""
        user = self.users.get(run.question.user)
        if user is None:
            user = self.users[run.question.user] = _UserRuns()
        user.group(run)[run.span_id] = run
        self.count += 1

    def remove(self, run: WaitingRun, *, is_served: bool) -> None:
        """Take a run out. ``is_served``: its user has had its turn."""
        name = run.question.user
        user = self.users[name]
        del user.group(run)[run.span_id]
        self.count -= 1
        if not user.first and not user.retries:
            del self.users[name]
        elif is_served and len(self.users) > 1:
            self.users[name] = self.users.pop(name)  # to the end


class Lane:
    """The waiting runs of one priority at one gate; ``gate`` None: nothing limits them."""

    __slots__ = ("_clients", "_count", "_seen", "asks_as", "gate", "until", "word")

    def __init__(self, gate: Gate | None = None, priority: Priority = "interactive") -> None:
        self.gate = gate
        self.asks_as: Priority = priority
        """The priority with which the gate is asked. A batch run that is due may use what is kept for interactive runs."""
        self.word: WaitWord = "workers"
        """What the lane's runs wait for, as far as was looked at."""
        self.until: float | None = None
        """When the gate may let a run go; ``None`` while the lane does not wait for that."""
        # In the order of their turns.
        self._clients: dict[Owner, _ClientRuns] = {}
        self._count = 0
        # The gate's version when it let the lane's first run not go; None if the lane is to be looked at in any case.
        self._seen: int | None = None

    def __len__(self) -> int:
        return self._count

    def add(self, run: WaitingRun) -> None:
        """Put a run behind the other runs of its user."""
        owner = run.owner
        runs = self._clients.get(owner)
        if runs is None:
            runs = self._clients[owner] = _ClientRuns()
        runs.add(run)
        self._count += 1
        if run.question.is_retry or self._count == 1:
            self._seen = None  # it may be the first one

    def is_closed(self, version: int, now: float) -> bool:
        """Return whether it is in vain to look for a run that may go: the first run waits for the gate, and nothing has changed there.

        ``version``: the gate's, now. An empty lane is closed too.
        """
        if not self._count:
            return True
        return self._seen == version and (self.until is None or now < self.until)

    def look_again(self) -> None:
        """Something else has changed than the gate."""
        self._seen = None

    def remove(self, run: WaitingRun) -> None:
        """Take out a run of this lane."""
        self._take_out(run, run.owner, is_served=False)

    def _take_out(self, run: WaitingRun, owner: Owner, *, is_served: bool) -> None:
        clients = self._clients
        runs = clients[owner]
        self._seen = None
        runs.remove(run, is_served=is_served)
        self._count -= 1
        if not runs.count:
            del clients[owner]
        elif is_served and len(clients) > 1:
            clients[owner] = clients.pop(owner)  # to the end

    def serve(self, choose: Callable[[WaitingRun], W | Wait]) -> tuple[WaitingRun, W, WaitWord] | None:
        """Take out the next run for which ``choose`` has a worker. Return both, and what the run waited for.

        ``None``: all runs must wait. If a run waits for the gate, the runs behind it wait too, however small they are:
        else a large run would never go.
        """
        self._seen = None
        is_first = True
        for owner, runs in self._clients.items():
            for run in runs.next():
                chosen = choose(run)
                if not isinstance(chosen, Wait):
                    word = runs.word or self.word
                    runs.word = ""
                    self._take_out(run, owner, is_served=True)
                    return run, chosen, word
                if chosen.cause is WaitCause.GATE:
                    runs.word = ""
                    self.word, self.until = chosen.word, chosen.until
                    if is_first and self.gate is not None:
                        self._seen = self.gate.version
                    return None
                is_first = False
                if not run.question.avoid:
                    runs.word = chosen.word
                    break  # the run may use any worker: if it must wait, the client's other runs must wait too
        self.until = None
        return None

    def ahead_of(self, run: WaitingRun) -> int:
        """Return how many runs go before a new run, at most: those of its user, as many of each other user of its client.

        And as many as these are of each other client.
        """
        runs = self._clients.get(run.owner)
        own = runs.ahead_of(run) if runs is not None else 0
        others = len(self._clients) - (runs is not None)
        return min(self._count, own + (own + 1) * others)

    def words(self) -> Iterator[tuple[WaitWord, int]]:
        """Yield, for each client, what its runs wait for, and how many there are."""
        for runs in self._clients.values():
            yield runs.word or self.word, runs.count
