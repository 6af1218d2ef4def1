"""When a batch job asks a provider again: pauses between polls, and after failures. Pure."""

from __future__ import annotations

import msgspec


class BatchTimes(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds between two questions about the same batch. Each pause is longer than the one before, up to a bound."""

    first_poll: float = 5.0
    longest_poll: float = 60.0
    poll_growth: float = 1.5
    first_retry: float = 2.0
    longest_retry: float = 300.0
    arrival: float = 60.0
    """A batch that may have been created must be in the provider's list within this time, if it was."""
    room: float = 60.0
    """The first pause after the provider has said that it has no room for a further batch."""
    longest_room: float = 900.0

    def until_poll(self, polls: int) -> float:
        """Return the pause after so many polls of a batch."""
        return self._grown(self.first_poll, self.poll_growth, polls, self.longest_poll)

    def until_retry(self, failures: int, retry_after: float | None = None) -> float:
        """Return the pause after so many failures in a row, from 1. ``retry_after``: what the provider asked for."""
        pause = self._grown(self.first_retry, 2.0, failures - 1, self.longest_retry)
        return pause if retry_after is None else max(retry_after, self.first_retry)

    def until_room(self, refusals: int) -> float:
        """Return the pause after so many refusals for want of room, from 1."""
        return self._grown(self.room, 2.0, refusals - 1, self.longest_room)

    @staticmethod
    def _grown(first: float, growth: float, times: int, most: float) -> float:
        # A large power would overflow.
        return min(first * growth ** min(times, 40), most)


USUAL_TIMES = BatchTimes()
