"""Rows of an iterator are copied to a file beside the journal: without keys, and only if they can be written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace import InvalidRequestError
from headrace.batch.from_python.python_rows import SpooledRows
from headrace.batch.row import BadRow
from headrace.batch.rows.row_options import RowOptions

OPTIONS = RowOptions(model="gpt-4o")


def test_a_key_in_a_row_is_refused_and_not_written(tmp_path: Path) -> None:
    rows = SpooledRows(iter([{"prompt": "Hello", "provider_api_key": "sk-secret"}]), OPTIONS, tmp_path / "input")
    (row,) = rows
    assert isinstance(row, BadRow)
    assert row.argument == "provider_api_key"
    assert b"sk-secret" not in (tmp_path / "input").read_bytes()


@pytest.mark.parametrize("item", ["\ud800", {1: {2: object}}, {"prompt": {("a", "b"): 1}}])
def test_an_item_that_cannot_be_written_is_named(tmp_path: Path, item: Any) -> None:
    with pytest.raises(InvalidRequestError, match="row 2 "):
        SpooledRows(iter(["Hello", item]), OPTIONS, tmp_path / "input")
