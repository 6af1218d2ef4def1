"""KnownAnswers: answers that a batch job has already: of equal rows (``dedupe``), and of the file ``cache``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from headrace.batch.driver.answer_cache import Answer, AnswerCache
from headrace.batch.row import Row
from headrace.errors import HeadraceError
from headrace.runs.typed_answer import with_parsed
from headrace.schemas.response_type import ResponseType
from headrace.types import RunLocalResult

RECENT = 8192
"""Answers in memory. Answers of rows that are not recorded yet must be among them."""

Origin = Literal["run", "shared", "cache"]
"""Where an answer comes from: a run of the row itself, an equal row, or the file of answers."""


class KnownAnswers:
    """Answers by the hash of their rows.

    ``is_shared``: whether equal rows share answers. ``recorded``: returns the answer of a recorded row with this hash, None
    if there is none or no journal. ``cache``: the file of answers. ``response_type``: what answers from files are read into.
    """

    def __init__(
        self,
        *,
        is_shared: bool,
        recorded: Callable[[bytes], Answer | None] | None,
        cache: AnswerCache | None,
        response_type: ResponseType | None,
    ) -> None:
        self._recent: OrderedDict[bytes, Answer] | None = OrderedDict() if is_shared else None
        self._recorded = recorded if is_shared else None
        self._cache = cache
        self._response_type = response_type

    def find(self, rows: Sequence[Row]) -> dict[bytes, tuple[Origin, Answer]]:
        """Return the answers that are known, by hash. They cost nothing more."""
        found: dict[bytes, tuple[Origin, Answer]] = {}
        for row in rows:
            if (answer := self._of_equal_row(row.hash)) is not None:
                found[row.hash] = "shared", free(answer)
        if self._cache is not None:
            for known, answer in self._cache.find([row.hash for row in rows if row.hash not in found]).items():
                if (read := self._read(answer)) is not None:
                    found[known] = "cache", free(read)
        return found

    def learn(self, row: Row, answer: Answer) -> None:
        """Remember the answer of a row that was run."""
        recent = self._recent
        if recent is not None:
            recent[row.hash] = answer
            if len(recent) > RECENT:
                recent.popitem(last=False)

    def _of_equal_row(self, known: bytes) -> Answer | None:
        if self._recent is not None and (recent := self._recent.get(known)) is not None:
            return recent
        answer = None if self._recorded is None else self._recorded(known)
        return None if answer is None else self._read(answer)

    def _read(self, answer: Answer) -> Answer | None:
        """Return an answer from a file with its object. None if it does not fit: then the row is run."""
        if self._response_type is None or not isinstance(answer, RunLocalResult):
            return answer
        read: Any = with_parsed(answer, self._response_type)
        return None if isinstance(read, HeadraceError) else read


def free(answer: Answer) -> Answer:
    """Return an answer that was paid for already: it costs 0."""
    return msgspec.structs.replace(answer, cost=0.0)
