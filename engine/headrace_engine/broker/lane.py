"""Those who wait for a lease, in the order in which they are served: clients take turns. Pure.

One client's own runs are served as they came, those that lost a worker before the others. However many one client has
waiting, another's first run waits for one turn of each client.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, islice
from typing import TypeVar

import msgspec

from headrace.wire.messages import Acquire

W = TypeVar("W")
Owner = int | bytes
"""Who takes turns: a process by its pid, or a connection of which no process is known."""

_PLACE_BYTES = 1024
_EPOCH_BYTES = 44
_LOOKED_AT = 16
"""Of one client's runs that can go to some workers only, how many are looked at in its turn."""


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A run that waits."""

    client: bytes
    question: Acquire
    since: float
    # The process that the client is, where that is known: it has one turn, however many connections it has.
    process: int = 0

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self.question.span_id

    @property
    def places(self) -> int:
        """How many places it takes: one for each KiB, as its names and what it avoids may be long."""
        question = self.question
        size = len(question.provider) + len(question.model) + _EPOCH_BYTES * len(question.avoid)
        return 1 + size // _PLACE_BYTES

    @property
    def owner(self) -> Owner:
        """Whose turn it is."""
        return self.process or self.client


class _Own:
    """One client's runs."""

    __slots__ = ("again", "first", "places")

    def __init__(self) -> None:
        self.first: dict[str, Waiting] = {}
        self.again: dict[str, Waiting] = {}
        self.places = 0

    def of(self, question: Acquire) -> dict[str, Waiting]:
        return self.again if question.avoid else self.first


class Line:
    """A lane's waiting runs."""

    def __init__(self) -> None:
        # In the order of their turns.
        self._clients: dict[Owner, _Own] = {}
        self._by_span: dict[str, Waiting] = {}
        self.places = 0
        """Those that are taken; a run takes one, unless it has long names or avoids many workers."""

    def __len__(self) -> int:
        return len(self._by_span)

    def find(self, span_id: str) -> Waiting | None:
        """Return the run with this id."""
        return self._by_span.get(span_id)

    def count(self, owner: Owner) -> int:
        """Return how many places one client's runs take."""
        own = self._clients.get(owner)
        return own.places if own is not None else 0

    def add(self, waiting: Waiting) -> None:
        """Put a run at the end of its client's."""
        own = self._clients.setdefault(waiting.owner, _Own())
        own.of(waiting.question)[waiting.span_id] = waiting
        self._by_span[waiting.span_id] = waiting
        places = waiting.places
        own.places += places
        self.places += places

    def remove(self, span_id: str) -> None:
        """Take a run out; unknown ones are fine."""
        waiting = self._by_span.pop(span_id, None)
        if waiting is None:
            return
        own = self._clients[waiting.owner]
        del own.of(waiting.question)[span_id]
        places = waiting.places
        own.places -= places
        self.places -= places
        if not own.first and not own.again:
            del self._clients[waiting.owner]

    def serve(self, choose: Callable[[Waiting], W | None]) -> tuple[Waiting, W] | None:
        """Take the next run out for which ``choose`` has something, and return both."""
        for client, own in self._clients.items():
            for waiting in chain(islice(own.again.values(), _LOOKED_AT), islice(own.first.values(), 1)):
                chosen = choose(waiting)
                if chosen is not None:
                    self._clients[client] = self._clients.pop(client)  # to the end
                    self.remove(waiting.span_id)
                    return waiting, chosen
        return None

    def overdue(self, before: float) -> list[Waiting]:
        """Return the runs that have waited since then or longer."""
        found: list[Waiting] = []
        for own in self._clients.values():
            for runs in (own.again, own.first):
                # The first is the oldest: while it may go on waiting, so may those behind it.
                for waiting in runs.values():
                    if waiting.since > before:
                        break
                    found.append(waiting)
        return found

    def clear(self) -> list[Waiting]:
        """Take all runs out, and return them."""
        waiting = list(self._by_span.values())
        self._clients.clear()
        self._by_span.clear()
        self.places = 0
        return waiting
