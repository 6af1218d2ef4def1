"""The rows and the codes of docs/reference/batch-files.md are as the page says."""

from __future__ import annotations

import re

import pytest

from headrace.batch.records.record_facts import BAD_ROW, CODES
from headrace.batch.row import Row
from headrace.batch.rows.row_hash import NOT_SHAPING
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_reader import RowReader
from tests.conftest import ROOT
from tests.documentation import code_block

PAGE = "docs/reference/batch-files.md"


@pytest.mark.parametrize(("heading", "form"), [("Rows in OpenAI's form", "openai"), ("Short rows", "short")])
def test_each_row_of_the_page_is_a_row(heading: str, form: str) -> None:
    reader = RowReader(RowOptions(model="gpt-4o"))
    lines = code_block("json", PAGE, heading).text.splitlines()
    rows = [reader.read_line(number, line) for number, line in enumerate(lines, 1)]

    assert len(rows) == 3
    assert all(isinstance(row, Row) and row.form == form for row in rows)


def test_the_page_has_each_code_with_its_error() -> None:
    text = (ROOT / PAGE).read_text("utf-8")
    listed = re.findall(r"^\| `([a-z_]+)` \| (?:any other )?`(\w+Error)` \|$", text, re.MULTILINE)

    assert dict(listed) == {code: error.__name__ for error, code in CODES.items()}
    assert f"| `{BAD_ROW}` |" in text


def test_the_page_names_each_argument_that_does_not_count_as_a_change() -> None:
    text = (ROOT / PAGE).read_text("utf-8").split("## When a row counts as changed")[1].split("## ")[0]

    assert {name for name in NOT_SHAPING if f"`{name}`" not in text} == {"provider_api_key"}
