"""Writes the record of a row that has ended: one line of JSON, in the form in which the row was written. Pure.

A row in OpenAI's form gets a line as the output and error files of OpenAI's Batch API have them, from whatever provider the
answer came. All other rows get a short line: ``{"id", "text", …}``, or ``{"id", "line", "error"}``.
"""

from __future__ import annotations

from headrace.batch.row import BadRow, FinishedRow, Row
from headrace.errors import HeadraceError


def success_line(finished: FinishedRow, now: float) -> bytes:
    """Return the record of a row with a result, with its newline. ``now``: seconds since the epoch.

    Raises TypeError if the row has an error instead of a result.
    """
    raise NotImplementedError


def failure_line(row: Row | BadRow, error: HeadraceError | None = None) -> bytes:
    """Return the record of a row that failed, with its newline. A BadRow needs no error: it says its problem itself.

    ``error``: why a Row has no result. Raises TypeError if it is missing for a Row.
    """
    raise NotImplementedError


def error_code(error: HeadraceError | BadRow) -> str:
    """Return the word for a failure that records have and summaries count by, such as ``rate_limit`` or ``bad_row``."""
    raise NotImplementedError
