"""What a log line promises, in both formats.

One record is one line, with its fields, without secrets, whatever a value is.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.process.log_lines import MAX_FIELD, MAX_FIELDS, MAX_TRACEBACK, LogLineFormatter
from headrace.process.logs import LogLineHandler
from headrace.process.masked_output import mask_output, masking
from headrace.settings.log_variables import LOG_FORMATS, LogFormat
from headrace.text.escaping import escaped

KEY = "sk-proj-9fQ2mZx7Lw4vTb81KcYd0R6s"
FORGED = "2026-11-28T08:21:49.314Z supervisor CRITICAL headrace: forged"
LINE_ENDS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029")
EVENT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z w1 WARNING headrace\.test: ")


def record(
    message: str = "worker is silent", *arguments: object, error: BaseException | None = None, **fields: object
) -> logging.LogRecord:
    facts = (type(error), error, error.__traceback__) if error is not None else None
    logger = logging.getLogger("headrace.test")
    return logger.makeRecord(logger.name, logging.WARNING, "file.py", 1, message, arguments, facts, extra=fields)


def raised(text: str) -> BaseException:
    try:
        raise ValueError(text)  # noqa: TRY301
    except ValueError as error:
        return error


def text_line(*parts: Any, **fields: Any) -> str:
    return LogLineFormatter("w1").format(record(*parts, **fields))


def json_line(*parts: Any, **fields: Any) -> dict[str, Any]:
    line = LogLineFormatter("w1", "json").format(record(*parts, **fields))
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_of_text_has_time_process_level_logger_message_and_fields() -> None:
    line = text_line(worker="w1", pid_of_worker=12, silence=1.5, why="it does not answer", is_late=True, code=None)

    assert EVENT.match(line)
    said = EVENT.sub("", line)
    assert (
        said
        == 'worker is silent worker=w1 pid_of_worker=12 silence=1.5 why="it does not answer" is_late=true code=null'
    )


def test_what_a_library_adds_to_every_record_is_no_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_mark(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = logging.LogRecord(*arguments, **named)
        record._made_at_ns = 1795989078915089256
        return record

    monkeypatch.setattr(logging, "_logRecordFactory", with_mark)

    assert text_line(worker="w1").endswith(" worker=w1")


def test_a_line_of_json_has_the_same_parts() -> None:
    found = json_line(worker="w1", silence=1.5, error=raised("no"))

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found.pop("pid") > 0
    assert "ValueError: no" in found.pop("exception")
    assert found == {
        "level": "WARNING",
        "logger": "headrace.test",
        "process": "w1",
        "message": "worker is silent",
        "fields": {"worker": "w1", "silence": 1.5},
    }


@pytest.mark.parametrize("end", LINE_ENDS)
def test_no_value_and_no_traceback_forges_a_line(end: str) -> None:
    evil = f"x{end}{FORGED}"
    line = text_line(f"failed {evil}", reason=evil, file=Path(evil), error=raised(evil), **{f"name{end}x": evil})

    first, *others = re.split("|".join(map(re.escape, sorted(LINE_ENDS, key=len, reverse=True))), line)
    assert EVENT.match(first)
    assert all(other.startswith("    ") for other in others)
    assert not any(other.strip().startswith("2026") and not other.startswith("    ") for other in others)
    found = json_line(f"failed {evil}", reason=evil, error=raised(evil))
    assert found["fields"] == {"reason": evil}


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


ODD_VALUES = [
    (Unshowable(), "(Unshowable that cannot be shown)"),
    (10**5000, "(int that cannot be shown)"),
    (2**80, str(2**80)),
    (float("nan"), "nan"),
    (b"bytes", "b'bytes'"),
    ([1, "a"], "[1, 'a']"),
    ({"a": object}, "{'a': <class 'object'>}"),
    ("\ud800", "\ufffd"),
    (ValueError("why"), "why"),
]


@pytest.mark.parametrize(("value", "shown"), ODD_VALUES, ids=[shown for _, shown in ODD_VALUES])
def test_a_value_of_any_type_is_shown(value: object, shown: str) -> None:
    assert json_line(value=value)["fields"] == {"value": shown}
    assert text_line(value=value)


def test_long_values_are_cut_and_many_fields_are_counted() -> None:
    found = json_line(value="x" * 1_000_000)
    assert found["fields"]["value"] == "x" * MAX_FIELD + "…"

    found = json_line(**{f"f{index}": index for index in range(MAX_FIELDS + 3)})
    assert len(found["fields"]) == MAX_FIELDS + 1
    assert found["fields"]["fields_left_out"] == 3

    found = json_line(error=raised("x" * 1_000_000))
    assert len(found["exception"]) < MAX_TRACEBACK + 100
    assert "characters left out" in found["exception"]


def test_arguments_that_do_not_fit_their_message_lose_no_line() -> None:
    assert json_line("%d of %s", "one")["message"] == "%d of %s"


ENCODED: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    lambda text: "".join(f"%25{byte:02x}" for byte in text.encode()),
    lambda text: "".join(f"&#{ord(letter)};" for letter in text),
]


@pytest.mark.parametrize("encoded", ENCODED)
@pytest.mark.parametrize("chosen", LOG_FORMATS)
def test_taking_a_secret_out_forges_no_line(encoded: Callable[[str], str], chosen: LogFormat) -> None:
    formatter = LogLineFormatter("w1", chosen)
    formatter.masked = masking([KEY])
    evil = f"{encoded(KEY)}{encoded(chr(10))}{encoded(FORGED)}"

    line = formatter.format(record(f"said {evil}", reason=evil, error=raised(evil)))

    assert KEY[:12] not in line
    assert encoded(KEY)[:40] not in line
    if chosen == "json":
        found = json.loads(line)
        assert KEY[:12] not in f"{found}"
    assert all(other.startswith("    ") for other in escaped(line).split("\n")[1:])


def test_a_key_at_the_place_where_a_value_is_cut_is_not_shown() -> None:
    formatter = LogLineFormatter("w1")
    formatter.masked = masking([KEY])
    for before in range(MAX_FIELD - len(KEY), MAX_FIELD):
        line = formatter.format(record(reason="x" * before + KEY + "y" * 100))
        assert KEY[:7] not in line, before


@pytest.mark.parametrize("chosen", LOG_FORMATS)
def test_an_engine_process_masks_its_log_in_both_formats(chosen: LogFormat, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.StringIO())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger(), "handlers", [LogLineHandler(written, "w1", chosen)])
    mask_output(masking([KEY]))

    logging.getLogger("headrace.test").error("key %s", KEY, extra={"reason": KEY}, exc_info=raised(KEY))
    error = raised(f"{KEY}\n{FORGED}")
    sys.excepthook(ValueError, error, error.__traceback__)

    said = written.getvalue()
    assert KEY[:12] not in said
    assert said.count("[key]") == 4
    assert said.count("process failed") == 1
    if chosen == "json":
        assert [json.loads(line)["level"] for line in said.splitlines()] == ["ERROR", "CRITICAL"]
    else:
        assert f"\n{FORGED}" not in said
