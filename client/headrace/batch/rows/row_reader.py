"""RowReader: makes rows of single lines, dicts and texts. Pure: :mod:`headrace.batch.rows.row_source` reads files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_options import RowOptions


class RowReader:
    """Makes rows. Raises InvalidRequestError if the options are wrong, or do not fit together."""

    def __init__(self, options: RowOptions) -> None:
        raise NotImplementedError

    def read_line(self, number: int, line: bytes | str) -> Row | BadRow:
        """Return the row of a line of JSON: in OpenAI's form, in the short form, or a record for the prompt's template."""
        raise NotImplementedError

    def read_mapping(self, number: int, given: Mapping[str, Any]) -> Row | BadRow:
        """Return the row of a dict: what a line of JSON would hold. Its values may be messages, tools and types too."""
        raise NotImplementedError

    def read_record(self, number: int, record: Mapping[str, Any]) -> Row | BadRow:
        """Return the row of a record of a table: column → value.

        Raises InvalidRequestError for the first record if the template names a column that it does not have.
        """
        raise NotImplementedError

    def read_text(self, number: int, text: str) -> Row | BadRow:
        """Return the row of a text: the prompt itself, or the column ``text`` of the template."""
        raise NotImplementedError
