"""No command lets a model, a provider, an engine, a file or an argument steer the terminal: one test over all commands.

The commands are those of the parser. A new one fails the test until CASES says how to have it show hostile text.
"""

from __future__ import annotations

import contextlib
import csv
import inspect
import io
import json
import logging
import os
import sys
import types
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pyarrow.parquet
import pytest

from headrace import errors
from headrace.cli import config_command, reload_command, restart_command, run_command, status_command
from headrace.cli.config_report import SearchedFile, SettingsReport
from headrace.cli.main import command_parser, main
from headrace.cli.run_output import Output
from headrace.cli.shared.terminal import red
from headrace.cli.spans import spans_command
from headrace.errors import HeadraceError
from headrace.process.logs import log_in_program
from headrace.settings.found_file_rules import AllowedKey
from headrace.spans.span import Span, SpanContent, encode_content
from headrace.text.escaping import escaped
from headrace.types import StreamEvent, StreamResult, ToolCall
from headrace.wire.engine_status import SpanStatus, WorkerStatus
from headrace.wire.messages import Status
from tests.cli.spans.span_rows import NOON, Database
from tests.cli.spans.span_rows import span as usual_span
from tests.cli.test_standard_streams import commands
from tests.hostile_values import EVIL, FORBIDDEN, hostile, steering
from tests.repetition import repeated

Arguments = tuple[str, ...]

GIVEN = EVIL.replace("\0", "")
"""Hostile text that can be an argument."""
SPANS = [("list", "--table"), ("list", "--json"), ("list", "--status", "ok"), ("tail", "--table"), ("tail", "--json")]
SHOW = [("show", "sp_"), ("show", "sp_", "--json"), ("show", GIVEN)]
STATS = [
    ("stats", "--by", by, *form) for by in ("model", "provider", "user", "session", "tag") for form in [(), ("--json",)]
]
EXPORT = [("export",), ("export", "--format", "csv"), ("export", "-o", f"none/{GIVEN}")]
RUN = ("run", "hi", "--model", GIVEN)
STATUS = ("status", "--engine", "ipc:///tmp/hostile")
CASES: dict[Arguments, list[Arguments]] = {
    (): [(), ("--version",), (GIVEN,), (f"--{GIVEN}",)],
    ("run",): [
        RUN,
        (*RUN, "--json"),
        (*RUN, "--no-stream"),
        ("run", GIVEN),
        (*RUN, "--option", GIVEN),
        (*RUN, "--timeout", GIVEN),
    ],
    ("batch",): [
        ("batch", "rows.jsonl", "-o", "out.jsonl", "--dry-run"),
        ("batch", GIVEN, "-o", "out.jsonl"),
        ("batch", "rows.jsonl", "-o", f"/dev/null/{GIVEN}"),
        ("batch", "rows.jsonl", "-o", "out.jsonl", "--limit", GIVEN),
    ],
    ("batch status",): [("batch", "status", GIVEN), ("batch", "status", f"/dev/null/{GIVEN}", "--json")],
    ("serve",): [("serve",), ("serve", "--directory", f"/tmp/{GIVEN}"), ("serve", "--workers", GIVEN)],
    ("restart",): [
        ("restart",),
        ("restart", "--engine", "it"),
        ("restart", "--engine", GIVEN),
        ("restart", "--engine", f"ipc:///tmp/{GIVEN}"),
    ],
    ("reload",): [
        ("reload",),
        ("reload", "--engine", "it"),
        ("reload", "--engine", GIVEN),
        ("reload", "--engine", f"ipc:///tmp/{GIVEN}"),
    ],
    ("status",): [("status",), STATUS, (*STATUS, "--json"), ("status", "--engine", GIVEN)],
    ("logs",): [("logs",), ("logs", "--list"), ("logs", "--engine", GIVEN), ("logs", "--program", GIVEN)],
    ("simulate",): [("simulate", "--host", GIVEN), ("simulate", "--script", GIVEN), ("simulate", "--port", GIVEN)],
    ("record",): [
        ("record", GIVEN, "--host", GIVEN),
        ("record", GIVEN, "--openai", GIVEN),
        ("record", f"/dev/null/{GIVEN}"),
        ("record", "--port", GIVEN),
    ],
    ("config",): [("config",), ("config", GIVEN)],
    ("config", "show"): [("config", "show"), ("config", "show", "--json")],
    ("config", "allow"): [("config", "allow", "--list"), ("config", "allow", "--yes"), ("config", "allow", GIVEN)],
    ("spans",): [("spans",), ("spans", GIVEN)],
    ("spans", "list"): [("spans", *each) for each in SPANS if each[0] == "list"],
    ("spans", "tail"): [("spans", *each) for each in SPANS if each[0] == "tail"],
    ("spans", "show"): [("spans", *each) for each in SHOW],
    ("spans", "stats"): [("spans", *each) for each in STATS],
    ("spans", "export"): [("spans", *each) for each in EXPORT],
}
"""Arguments that make each command show hostile text. The engine, the database and the model are hostile."""

FILES = [SearchedFile(EVIL, state, EVIL) for state in ("read", "unusable")]
COMMANDS = list(commands(command_parser()))


class Terminal(io.StringIO):
    """A stream that looks like a terminal, or like a pipe."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self.binary = io.BytesIO()
        self.is_terminal = is_terminal

    @property
    def buffer(self) -> io.BytesIO:
        return self.binary

    def isatty(self) -> bool:
        return self.is_terminal

    def fileno(self) -> int:
        return 1

    def text(self) -> str:
        return self.getvalue() + self.binary.getvalue().decode()


Shown = Callable[..., tuple[str, str]]


@pytest.fixture
def shown(data: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Run a command in hostile surroundings; return its output and its notes."""
    _fill(data)
    monkeypatch.setenv("HEADRACE_DATA", str(data))
    monkeypatch.chdir(data.parent)
    hostile_rows = [{"id": EVIL, "prompt": EVIL, "model": EVIL}, {"id": f"2 {EVIL}", "prompt": 5}, {EVIL: EVIL}]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in hostile_rows) + EVIL)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")  # the live display of a batch job draws with controls of its own
    monkeypatch.setattr(status_command, "engine_status", lambda *_: hostile(Status))
    monkeypatch.setattr(spans_command, "follow", lambda new, show, _: [show(stored) for stored in new.look()])
    for name in ("execv", "execve", "execvp", "execvpe"):
        monkeypatch.setattr(os, name, _not_started)
    for asking in (restart_command, reload_command):
        monkeypatch.setattr(
            asking, "found_directory", lambda given: Path("/tmp/hostile") if given == "it" else _none(given)
        )
        monkeypatch.setattr(asking, "answer_of", lambda *_: types.SimpleNamespace(problem=EVIL, reload=True))
    monkeypatch.setattr(
        config_command, "report", lambda *_: msgspec.structs.replace(hostile(SettingsReport), files=FILES)
    )
    monkeypatch.setattr(
        config_command, "read_allowed_keys", lambda *_: {AllowedKey(*[EVIL] * len(AllowedKey.__struct_fields__))}
    )
    monkeypatch.setattr(config_command, "change_allowed_keys", lambda *_: None)
    monkeypatch.setattr(run_command, "_streamed", _hostile_run)
    monkeypatch.setattr(run_command, "_complete", _hostile_run)

    def show(arguments: Arguments, *, is_terminal: bool = False) -> tuple[str, str]:
        with monkeypatch.context() as patch:
            out, notes = Terminal(is_terminal), Terminal(is_terminal)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", notes)
            with contextlib.suppress(SystemExit):  # argparse exits like this
                main(arguments)
            assert sys.stdout is out
        return out.text(), notes.text()

    return show


def _fill(data: Path) -> None:
    database = Database(data)
    content = encode_content(hostile(SpanContent))
    for number, state in enumerate(("ok", "error", "aborted")):
        whole: Span = hostile(Span)
        database.add(
            msgspec.structs.replace(
                whole, span_id=f"sp_{number}{EVIL}", status=state, content=content, started_at=NOON, ended_at=NOON
            )
        )
    database.close()
    (data / "0" / "spans-2026-\x1b[1m\x9b\u202e.db").write_bytes(b"no database")
    (data / "logs").mkdir()
    (data / "logs" / "engine-20261129T070000Z-7-0123ab.log").write_text(f"{EVIL}\n{EVIL}", "utf-8")


def _none(given: str) -> Path:
    raise errors.EngineUnavailableError(given, EVIL)


def _not_started(*_: object) -> None:
    raise OSError(5, EVIL, EVIL)


def _hostile_run(_client: object, _arguments: object, output: Output) -> StreamResult:
    for kind in get_args(StreamEvent):
        output.event(hostile(kind))
    result: StreamResult = hostile(StreamResult)
    if not output.__class__.__name__.startswith("Json"):
        output.answer(result)
    return result


@pytest.mark.parametrize("is_terminal", [False, True], ids=["pipe", "terminal"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_lets_text_steer_the_terminal(command: Arguments, is_terminal: bool, shown: Shown) -> None:
    assert command in CASES, "a new command: say in CASES what has it show text from elsewhere"
    for arguments in CASES[command]:
        out, notes = shown(arguments, is_terminal=is_terminal)
        # A program that reads a pipe gets a model's text unchanged: see docs/guides/spans.md.
        is_raw = command == ("run",) and not is_terminal and "--json" not in arguments
        assert is_raw or steering(out) == set(), arguments
        assert steering(notes) == set(), arguments
        assert "Traceback" not in notes, arguments
        # On a terminal, the notes contain the model's reasoning, with its line ends.
        assert (command == ("run",) and is_terminal) or "\nforged" not in notes, arguments


def test_a_pipe_gets_the_exact_text_of_a_model(shown: Shown) -> None:
    assert EVIL in shown(RUN)[0]


@pytest.mark.parametrize("command", [each for each in COMMANDS if each], ids=" ".join)
def test_no_setting_and_no_variable_steers_the_terminal(
    command: Arguments, shown: Shown, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status_command, "engine_status", _refused)
    quoted = json.dumps(EVIL.replace("\x7f", ""))
    for variable, value in [
        ("HEADRACE_ENGINE", EVIL.replace("\0", "")),
        ("HEADRACE_CONFIG", str(tmp_path / EVIL.replace("\0", "").replace("/", ""))),
        ("HEADRACE_LOG", EVIL.replace("\0", "")),
        ("HEADRACE_DATA", EVIL.replace("\0", "")),
    ]:
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            for arguments in CASES[command][: repeated(3, 10)]:
                out, notes = shown(arguments)
                assert steering(notes) == set(), (variable, arguments)
                assert command == ("run",) or steering(out) == set(), (variable, arguments)
    for number, line in enumerate(
        [
            f"[engine]\n{quoted} = 1",
            f"[{quoted}]",
            f"[providers.{quoted}]\napi = {quoted}",
            "[engine]\nworkers = '\x1b[1m'",
        ]
    ):
        path = tmp_path / f"{number}.toml"
        path.write_text(line + "\n")
        monkeypatch.setenv("HEADRACE_CONFIG", str(path))
        for arguments in CASES[command][:2]:
            assert steering(shown(arguments)[1]) == set(), line


def _refused(address: str, _timeout: float) -> Status:
    raise errors.EngineUnavailableError(address, EVIL)


FACTS: dict[str, Any] = {
    "ours": 1,
    "theirs": 2,
    "limit": 7.0,
    "retry_after": 7.0,
    "status_code": 500,
    "count": 2,
    "changed": 2,
    "new": 1,
    "missing": 1,
    "duplicates": ((EVIL, (1, 2)),),
    "examples": (("changed", EVIL, 3),),
    "settings": ((EVIL, EVIL, EVIL),),
}
"""What an error is made with where it takes no text."""


def all_errors(kind: type[HeadraceError] = HeadraceError) -> Iterator[HeadraceError]:
    for each in kind.__subclasses__():
        if getattr(errors, each.__name__, None) is each:  # not what a module keeps to itself, if it was imported
            yield from all_errors(each)
    has_facts = isinstance(kind.__init__, types.FunctionType)
    names = inspect.getfullargspec(kind.__init__).args[1:] if has_facts else ["reason"]
    yield kind(*(FACTS.get(name, EVIL) for name in names))


@pytest.mark.parametrize("error", list(all_errors()), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_no_error_steers_the_terminal(
    error: HeadraceError, form: Arguments, shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> StreamResult:
        raise error

    monkeypatch.setattr(run_command, "_streamed", fail)
    out, notes = shown((*RUN, *form))

    assert steering(out) == steering(notes) == set()
    assert steering(str(error)) == set(), "a traceback in the caller's program shows it"
    if form:
        assert json.loads(out)["message"] == str(error)


def test_a_traceback_does_not_steer_the_terminal(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> StreamResult:
        raise AssertionError(EVIL)

    monkeypatch.setattr(run_command, "_streamed", fail)
    _, notes = shown(RUN)

    assert "AssertionError: =evil" in notes
    assert steering(notes) == set()


def test_json_says_the_same_with_its_escapes(shown: Shown) -> None:
    for arguments in [("list", "--json"), ("export",), ("show", "sp_0", "--json")]:
        text = shown(("spans", *arguments))[0]
        spans = [json.loads(text)] if arguments[0] == "show" else [json.loads(line) for line in text.splitlines()]
        assert {span["content"]["text"] for span in spans} == {EVIL}
        assert {span["response_model"] for span in spans} == {EVIL}
    events = [json.loads(line) for line in shown((*RUN, "--json"))[0].splitlines()]
    assert {event["text"] for event in events if "text" in event} == {EVIL}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1e300, 1e300])
def test_absurd_numbers_of_an_engine_are_shown(number: float, shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = WorkerStatus("w1", 2**63, "running", -1, number)
    absurd = Status(2**63, "1", number, -1, 2**64 - 1, 0, 0, 0, [worker], [], SpanStatus("/d", age=number))
    monkeypatch.setattr(status_command, "engine_status", lambda *_: absurd)

    out, notes = shown(STATUS)
    assert "WORKER" in out
    assert notes == ""
    json.loads(shown((*STATUS, "--json"))[0], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_number_that_json_cannot_write_gives_valid_json(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    call = ToolCall("c", "f", {"x": [float("inf"), float("nan")]})

    def say(*_: object) -> StreamResult:
        result: StreamResult = msgspec.structs.replace(hostile(StreamResult), tool_calls=[call], latency_ms=1.0)
        return result

    monkeypatch.setattr(run_command, "_streamed", say)
    line = shown((*RUN, "--json"))[0].splitlines()[-1]

    said = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert said["tool_calls"][0]["arguments"] == {"x": [1.7e308, 0.0]}


def test_only_the_program_itself_can_colour_its_output(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "xterm")
    for arguments in [("spans", "list", "--table"), ("spans", "show", "sp_0"), ("spans", "stats"), STATUS, RUN]:
        out, notes = shown(arguments, is_terminal=True)
        for styled in ("\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[32m", "\x1b[0m"):
            out, notes = out.replace(styled, ""), notes.replace(styled, "")
        assert steering(out + notes) == set(), arguments

    def say(*_: object) -> StreamResult:
        print(red(EVIL, sys.stdout))  # like a command that forgets to escape it
        raise KeyboardInterrupt

    monkeypatch.setattr(run_command, "_streamed", say)
    assert shown(RUN, is_terminal=True)[0].count("\x1b") == 2


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1",
        "@A1",
        "\t=1",
        "\r=1",
        "\r\n=1",
        "\n=1",
        "  =1",
        "=cmd|' /C calc'!A0",
        "\uff1d1",
        "\xa0=1",
        "- a list",
    ],
)
def test_no_cell_of_csv_is_a_formula(text: str, data: Path, shown: Shown) -> None:
    database = Database(data, number=1)
    fields: dict[str, Any] = {"error": text, "model": text, "user_id": text, "response_id": text, "tags": [text]}
    database.add(usual_span(span_id="sp_formula", content=encode_content(SpanContent(text=text)), **fields), cost=-0.5)
    database.close()

    rows = csv.DictReader(io.StringIO(shown(("spans", "export", "--format", "csv"))[0], newline=""))
    (row,) = [each for each in rows if each["span_id"] == "sp_formula"]

    for name, cell in row.items():
        assert name == "cost" or not cell.lstrip().startswith(("=", "+", "-", "@", "\uff1d")), name
        assert not cell.startswith(("\t", "\r", "\n")), name
    assert row["cost"] == "-0.5", "a number stays one"
    assert row["text"] == f"'{escaped(text)}"


def test_parquet_has_the_exact_text(data: Path, shown: Shown, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    shown(("spans", "export", "-o", str(path)))

    assert set(pyarrow.parquet.read_table(path)["text"].to_pylist()) == {EVIL}


def test_a_log_line_is_one_line_without_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("headrace")
    monkeypatch.setenv("HEADRACE_LOG", "debug")
    before, root = list(logger.handlers), logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    try:
        log_in_program()
        try:
            raise ValueError(EVIL)  # noqa: TRY301
        except ValueError:
            logger.exception("it failed: %s", EVIL, extra={"reason": EVIL, "file": Path(EVIL)})
    finally:
        logger.handlers = before
    said = capsys.readouterr().err

    assert "it failed: =evil" in said
    assert steering(said) == set()
    assert "\nforged" not in said


SHOWN_CONTROLS = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Signs of Arabic, Syriac and Kaithi. Unicode calls them format controls, but they are visible."""


def test_all_that_unicode_calls_a_control_is_escaped() -> None:
    """Also the controls of newer Unicode versions, if Python knows them."""
    for code in range(sys.maxunicode + 1):
        letter = chr(code)
        if unicodedata.category(letter) in ("Cc", "Cf", "Cs", "Zl", "Zp") and letter not in SHOWN_CONTROLS:
            assert (escaped(letter) == letter) == (letter in "\t\n\u200c\u200d"), f"U+{code:04X}"


@pytest.mark.parametrize("around", ["{}", "a{}", "❤{}", "a\u0301{}b"])
def test_invisible_characters_cannot_carry_bytes_and_marks_cannot_cover_lines(around: str) -> None:
    for unseen in ("\ufe00\ufe0f", "\u200c\u200d", "\u200d\ufe0f", "\u180b\u180c", "\ufe0f\u200d"):
        shown = escaped(around.format(unseen * 500))
        left = [letter for letter in shown if letter in unseen]
        assert len(left) <= 2, unseen
        assert json.loads(f'"{shown}"') == around.format(unseen * 500)
    for mark in "\u0301\u0489\u20dd\u0e47\u064b\u0f74":
        shown = escaped(around.format(mark * 500))
        assert shown.count(mark) <= 9
        assert json.loads(f'"{shown}"') == around.format(mark * 500)
        assert escaped(shown) == shown


def test_the_time_to_escape_a_text_grows_with_its_length_only() -> None:
    length = repeated(100_000, 300_000)
    for text in (
        "a\u0301\u0301" * (length // 3),
        "\u200d" * length,
        "\u0301\u200d\ufe0f" * (length // 3),
        "\x1b" * length,
        "x" * (10 * length),
        "\r" * length,
        "\r\n" * length,
        "世" * (3 * length),
    ):
        assert len(escaped(text)) >= len(text)


def test_a_text_without_control_characters_is_not_changed() -> None:
    for text in (
        "",
        "plain",
        "Grüße\tüber\n世界 👋🏽 👨‍👩‍👧 می‌خواهم क्ष‍ ❤️\r\n",
        "👩🏽\u200d❤\ufe0f\u200d💋 1\ufe0f\u20e3 e\u0302\u0323\u0301 שָׁ֑ น้ำที่",
        "\\u001b",
    ):
        assert escaped(text) == escaped(escaped(text)) == text
    assert json.loads(f'"{escaped("".join(FORBIDDEN))}"') == "".join(FORBIDDEN)
    assert escaped("\udc9b") == "\\udc9b", "a byte of a file's name that is no UTF-8"
