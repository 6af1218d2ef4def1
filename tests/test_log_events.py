"""Each log event is a constant text with named fields, and docs/engine.md lists all of them.

Level, process and fields.
"""

from __future__ import annotations

import re

import msgspec

from headrace.process.log_lines import RESERVED
from tests.conftest import ROOT
from tests.log_events import log_calls

HEADING = "### Log events"
NONE = "\N{EN DASH}"


class Row(msgspec.Struct, frozen=True):
    """What the page says of one event."""

    level: str
    process: str
    fields: frozenset[str]
    meaning: str
    action: str


def rows() -> dict[str, Row]:
    """Return the table's rows by the event's text."""
    section = (ROOT / "docs" / "engine.md").read_text().partition(f"{HEADING}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = {
        text.strip("`"): Row(level, process, frozenset(re.findall(r"`(\w+)`", fields)), meaning, action)
        for text, level, process, fields, meaning, action in cells
    }
    assert len(found) == len(cells), "an event stands there twice"
    return found


def test_each_log_call_has_a_constant_text_in_lower_case_and_its_facts_as_fields() -> None:
    assert log_calls()
    for call in log_calls():
        assert call.problem == "", call.place
        assert re.fullmatch(r"[a-z][A-Za-z/ ]*", call.text), f"{call.place}: words only: what differs is a field"
        assert call.text.split(" ")[0] not in ("a", "an", "the"), call.place
        for field in call.fields:
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", field), call.place
            assert field not in RESERVED, f"{call.place}: logging raises KeyError for it"


def test_the_page_lists_each_event_from_info_on_with_its_level_process_and_fields() -> None:
    expected: dict[str, tuple[set[str], set[str], set[str]]] = {}
    for call in log_calls():
        if call.level != "DEBUG":
            levels, processes, fields = expected.setdefault(call.text, (set(), set(), set()))
            levels.add(call.level)
            processes.add(call.process)
            fields.update(call.fields)
    stated = rows()

    assert {text: (row.level, row.process, sorted(row.fields)) for text, row in stated.items()} == {
        text: (", ".join(sorted(levels)), ", ".join(sorted(processes)), sorted(fields))
        for text, (levels, processes, fields) in expected.items()
    }
    for text, row in stated.items():
        assert row.meaning, text
        assert row.action, text


def test_the_page_lists_its_events_in_the_order_of_processes_and_texts() -> None:
    stated = [(row.process, text) for text, row in rows().items()]

    assert stated == sorted(stated)
