"""Selection: which rows of the input a batch job runs (``limit``, ``sample``). It does no I/O, and draws the same rows each time."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice
from random import Random

from headrace.errors import InvalidRequestError


class Selection:
    """The rows that a job runs, by their numbers.

    ``limit``: the first rows, so many. ``sample``: so many rows, drawn at random from them. The same numbers give the same
    rows, so that a job can be started again. ``numbers``: of all rows of the input, ascending; None: not known.

    Raises InvalidRequestError if ``sample`` is given and the numbers are not known.
    """

    def __init__(self, limit: int | None, sample: int | None, numbers: Iterable[int] | None) -> None:
        self.first = limit
        """Only so many rows from the beginning; None: no such limit. Needed if the numbers are not known."""
        self.numbers: array[int] | None = None
        """The numbers of the rows, ascending. None: all rows, or the first ones."""
        if sample is not None and numbers is None:
            raise InvalidRequestError(
                "needs an input whose rows can be counted first: a list, or a job with path", "sample"
            )
        if numbers is not None and (limit is not None or sample is not None):
            kept = array("Q", islice(numbers, limit))
            self.numbers = kept if sample is None or sample >= len(kept) else _drawn(kept, sample)

    @property
    def is_whole(self) -> bool:
        """Whether each row of the input belongs to it."""
        return self.first is None and self.numbers is None

    def __contains__(self, number: object) -> bool:
        """Return whether a row belongs to it. The numbers of all rows must be known."""
        if self.numbers is None or not isinstance(number, int):
            return self.numbers is None
        place = bisect_left(self.numbers, number)
        return place < len(self.numbers) and self.numbers[place] == number

    def among(self, numbers: Iterable[int]) -> Iterator[int]:
        """Yield those of ``numbers`` that belong to it. They must ascend."""
        if self.numbers is None:
            yield from islice(numbers, self.first)
            return
        place = 0
        for number in numbers:
            place = bisect_left(self.numbers, number, place)
            if place == len(self.numbers):
                return
            if self.numbers[place] == number:
                yield number


def _drawn(numbers: array[int], count: int) -> array[int]:
    # Not for secrets: the same number of rows draws the same ones.
    places = sorted(Random(len(numbers)).sample(range(len(numbers)), count))  # noqa: S311
    return array("Q", [numbers[place] for place in places])
