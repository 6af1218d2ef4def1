"""What ``headrace batch`` notes of the rows that fail: their number by kind, and the first row of each kind. Pure."""

from __future__ import annotations

import msgspec

from headrace.batch.records.record_lines import error_code
from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.errors import HeadraceError


class FailedExample(msgspec.Struct, frozen=True):
    """The first row of a job that failed in one way. ``number``: its line. ``text``: why, for people."""

    number: int
    id: str
    text: str


class FailureNotes:
    """The first failed row of each kind of error, in this start of the job."""

    def __init__(self) -> None:
        self._examples: dict[str, FailedExample] = {}

    @property
    def examples(self) -> dict[str, FailedExample]:
        """Word for a kind of failure → its first row."""
        return dict(self._examples)

    def note(self, ended: FinishedRow | BadRow) -> None:
        """Note a row if it failed."""
        if isinstance(ended, BadRow):
            self._note(error_code(ended), ended, ended.text)
        elif isinstance(ended.result, HeadraceError):
            self._note(error_code(ended.result), ended.row, str(ended.result))

    def _note(self, kind: str, row: Row | BadRow, text: str) -> None:
        if kind not in self._examples:
            self._examples[kind] = FailedExample(row.number, row.id, text)
