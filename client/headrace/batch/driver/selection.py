"""Selection: which rows of the input a batch job runs (``limit``, ``sample``). It does no I/O, and draws the same rows each time."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from random import Random

from headrace.errors import InvalidRequestError


class Selection:
    """The numbers of the rows that a job runs.

    ``limit``: the first rows, so many. ``sample``: so many rows, drawn at random from them. The same input and the same
    ``sample`` give the same rows, so that a job can be started again. ``total``: rows of the input; None: not known.

    Raises InvalidRequestError if ``sample`` is given and ``total`` is not known.
    """

    def __init__(self, limit: int | None, sample: int | None, total: int | None) -> None:
        end = limit if total is None or (limit is not None and limit < total) else total
        self._drawn: array[int] | None = None
        if sample is not None:
            if total is None or end is None:
                raise InvalidRequestError("needs an input that is counted first: give path too", "sample")
            if sample < end:
                # Not for secrets: the same seed draws the same rows.
                drawn = Random(end).sample(range(1, end + 1), sample)  # noqa: S311
                self._drawn = array("Q", sorted(drawn))
                end = self._drawn[-1] if self._drawn else 0
        self.last = end
        """The number of the last row of the selection; None: the input's last one."""
        self.is_whole = self._drawn is None and (limit is None or end == total)
        """Whether each row of the input belongs to it."""
        self.size = len(self._drawn) if self._drawn is not None else (end if total is not None else None)
        """How many rows it has; None: not known."""

    def __contains__(self, number: int) -> bool:
        if self.last is not None and number > self.last:
            return False
        if self._drawn is None:
            return True
        place = bisect_left(self._drawn, number)
        return place < len(self._drawn) and self._drawn[place] == number
