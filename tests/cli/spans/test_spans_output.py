"""The output of `headrace spans show`, `stats` and `export`, for databases that tests have made."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pyarrow.parquet
import pytest

from headrace.cli.shared.exit_codes import ExitCode
from headrace.spans.reading.exported_span import FLAT
from headrace.spans.span import SpanAttempt
from headrace.types import Message, Usage
from tests.cli.conftest import Run
from tests.cli.spans.span_rows import NOON, Database, content, span, tool_run

NO_USAGE = Usage()


# show


def test_show_tells_the_whole_story(spans: Run, data: Path) -> None:
    Database(data).add(tool_run(), cost=0.000462)

    assert (
        spans("show", "sp_3f2a91c04b7e5d10").out
        == """\
sp_3f2a91c04b7e5d10  ok  openai/gpt-4o

system
  Be brief.

user
  Is it warmer
  than in Rome?
  (image image/png, 3 KiB)

assistant
  → get_weather({"location": "Rome"})  call_1

tool get_weather call_1
  {"temperature": 21}

reasoning
  I need Tokyo's weather too.

answer
  Let me look.
  → get_weather({"location": "Tokyo"})  call_2

facts
  finish reason  tool_calls
  model          gpt-4o-2024-08-06, requested as gpt-4o
  usage          25 tokens in (12 cached), 40 out (8 reasoning); as the provider counted
  cost           $0.000462
  started        2026-03-14 12:00:00.000+00:00
  time           1250 ms, first chunk after 310 ms, 4 ms until its last attempt, streamed
  trace          tr_00c0ffee00c0ffee below sp_0000000000000abc
  traceparent    00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
  user           user-7
  session        chat-1
  tags           demo, weather
  parameters     temperature=0.2
  tools          get_weather
  response id    chatcmpl-1

attempts
  1. w1: worker_failed, ended after 100 ms, killed, may have been billed
  2. w2: finished, HTTP 200, headers after 180 ms, first chunk after 210 ms, ended after 1150 ms, request req_1
"""
    )


def test_show_says_what_a_run_waited_for_and_whom_its_attempts_asked(spans: Run, data: Path) -> None:
    attempts = [
        SpanAttempt(1, "w1", NOON, NOON + 1, outcome="RateLimitError", provider="groq", model="llama-4"),
        SpanAttempt(2, "w2", NOON + 1, NOON + 2, outcome="beaten", is_hedge=True),
    ]
    for reason, said in (("limit", "for room in a limit"), ("breaker", "because the provider failed too often")):
        Database(data).add(span(span_id=f"sp_{reason}", queue_seconds=0.25, queue_reason=reason, attempts=attempts))
        shown = spans("show", f"sp_{reason}").out
        assert f"250 ms until its last attempt, waited last {said}" in shown
        assert "  1. w1 at groq/llama-4: RateLimitError, ended after 1000 ms\n" in shown
        assert "  2. w2 (hedge): beaten, ended after 1000 ms\n" in shown


def test_show_of_a_failed_run_without_content_says_why(spans: Run, data: Path) -> None:
    failed = {"status": "error", "error_type": "RunTimeoutError", "error": "idle for 2 s", "finish_reason": None}
    Database(data).add(span(span_id="sp_1", content=b"", content_note="redaction failed", usage=NO_USAGE, **failed))

    assert spans("show", "sp_1").lines[:8] == [
        "sp_1  error  openai/gpt-4o",
        "",
        "no content: redaction failed",
        "",
        "facts",
        "  error    RunTimeoutError: idle for 2 s",
        "  model    gpt-4o",
        "  usage    unknown",
    ]


def test_show_of_an_embedding_shows_its_inputs(spans: Run, data: Path) -> None:
    Database(data).add(
        span(span_id="sp_1", kind="embedding", content=content(messages=[], text="", inputs=["one", "two"]))
    )

    out = spans("show", "sp_1").out
    assert "input 1\n  one\n\ninput 2\n  two\n" in out
    assert "(2 texts embedded)" in spans("list", "--table").out


def test_show_takes_the_beginning_of_an_id(spans: Run, data: Path) -> None:
    Database(data).add(span(span_id="sp_1a2b"), span(span_id="sp_1a2c"), span(span_id="sp_2"))

    assert spans("show", "2").lines[0].startswith("sp_2 ")
    assert spans("show", "sp_1a2b").lines[0].startswith("sp_1a2b ")
    ambiguous = spans("show", "1a")
    assert (ambiguous.code, ambiguous.out) == (ExitCode.USAGE, "")
    assert "several spans begin with 1a: sp_1a2b, sp_1a2c\n" in ambiguous.err
    missing = spans("show", "tr_7")
    assert missing.code == ExitCode.FAILED
    assert "no span begins with tr_7" in missing.err
    assert "--trace tr_7" in missing.err


def test_messages_of_every_role_have_their_heading(spans: Run, data: Path) -> None:
    messages = [Message("developer", "Be terse."), Message("user", "Hi"), Message("assistant", "Yes?")]
    Database(data).add(span(span_id="sp_1", content=content(messages=messages, text="", refusal="I cannot.")))

    out = spans("show", "sp_1").out

    for heading, text in [("developer", "Be terse."), ("user", "Hi"), ("assistant", "Yes?"), ("refusal", "I cannot.")]:
        assert f"\n{heading}\n  {text}\n" in out


# stats


def test_stats_by_model_with_cost_latency_and_errors(spans: Run, data: Path) -> None:
    database = Database(data)
    database.add(
        *(span(duration_seconds=n / 100, first_chunk_seconds=n / 1000, started_at=NOON + n) for n in range(1, 101)),
        cost=0.0005,
    )
    database.add(span(status="aborted", duration_seconds=99, usage=Usage(10, 3, 13, source="estimated")), cost=0.0001)
    lost = {"status": "error", "usage": NO_USAGE, "duration_seconds": 99}
    database.add(*(span(error_type=name, **lost) for name in ("lost", "RateLimitError", "RateLimitError")))
    Database(data, 1).add(span(provider="ours", model="new"), span(provider="ours", model="new"))

    assert (
        spans("stats").out
        == """\
MODEL          RUNS  ERRORS  ABORTED  P50 MS   P95   P99  FIRST P50  P95  P99    IN   OUT    COST $
openai/gpt-4o   104       3        1     500   950   990         50   95   99  2510  4003  0.050100
ours/new          2       0        0    1250  1250  1250        310  310  310    50    80         -
total           106       3        1     510   970  1250         51   97  310  2560  4083  0.050100

errors
        2  RateLimitError
        1  lost

Cost unknown, and not in the sums: ours/new (2).
To set the price of a model, add it to [prices] in headrace.toml.
"""
    )
    (ours,) = [each for each in json.loads(spans("stats", "--json").out)["groups"] if each["model"] == "ours/new"]
    assert (ours["runs"], ours["runs_without_price"], ours["cost"]) == (2, 2, None)
    assert ours["duration_seconds"] == {"p50": 1.25, "p95": 1.25, "p99": 1.25}


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("provider", {"openai": 3, "groq": 1}),
        ("user", {"u": 1, "": 3}),
        ("session", {"s": 1, "": 3}),
        ("tag", {"a": 2, "b": 1}),
        ("day", {"2026-03-13": 1, "2026-03-14": 3}),
    ],
)
def test_stats_by_others(spans: Run, data: Path, by: str, expected: dict[str, int]) -> None:
    Database(data).add(
        span(user_id="u", session_id="s"),
        span(tags=["a", "b"]),
        span(tags=["a"], provider="groq"),
        span(started_at=NOON - 86400),
    )

    stats = json.loads(spans("stats", "--by", by, "--json").out)

    assert {each[by]: each["runs"] for each in stats["groups"]} == expected
    assert stats["total"]["runs"] == 4


def test_stats_take_the_filters(spans: Run, data: Path) -> None:
    Database(data).add(span(tags=["a"], content=content(text="Tokyo")), span())

    for arguments in (["--tag", "a"], ["--grep", "tokyo"]):
        assert json.loads(spans("stats", "--json", *arguments).out)["total"]["runs"] == 1


# export


def test_jsonl_has_everything_oldest_first(spans: Run, data: Path, tmp_path: Path) -> None:
    Database(data).add(span(span_id="sp_2"), tool_run(), cost=0.25)

    done = spans("export", "-o", str(tmp_path / "out.jsonl"))

    assert (done.code, done.out, done.err) == (ExitCode.OK, "", f"2 spans in {tmp_path / 'out.jsonl'}\n")
    assert (tmp_path / "out.jsonl").stat().st_mode & 0o777 == 0o600
    first, second = (json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert (first["span_id"], second["span_id"]) == ("sp_3f2a91c04b7e5d10", "sp_2")
    assert (first["cost"], first["rank"], first["attempts"][0]["maybe_billed"]) == (0.25, "worker", True)
    assert first == json.loads(spans("show", "3f2a", "--json").out)


def test_csv_has_a_head_and_quotes_odd_texts(spans: Run, data: Path) -> None:
    Database(data).add(span(content=content('"a",\nb;', "Grüße\r\n"), tags=["x", "y"]), tool_run(), cost=0.25)

    rows = list(csv.reader(io.StringIO(spans("export", "--format", "csv").out, newline="")))

    assert tuple(rows[0]) == FLAT
    tooled, plain = (dict(zip(rows[0], row, strict=True)) for row in rows[1:])
    assert plain["text"] == "Grüße\r\n"
    assert json.loads(plain["messages"]) == [{"role": "user", "content": '"a",\nb;'}]
    assert (json.loads(plain["tags"]), plain["cost"], plain["error"]) == (["x", "y"], "0.25", "")
    assert (tooled["started_at"], tooled["streamed"]) == ("2026-03-14T12:00:00.000000+00:00", "true")
    assert json.loads(tooled["tool_calls"])[0]["name"] == "get_weather"


def test_parquet_has_types(spans: Run, data: Path, tmp_path: Path) -> None:
    Database(data).add(tool_run(), cost=0.25)
    Database(data, 1).add(*(span(tags=["x"]) for _ in range(2500)))

    assert spans("export", "-o", str(tmp_path / "out.parquet")).code == ExitCode.OK

    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert (table.num_rows, tuple(table.column_names)) == (2501, FLAT)
    first = table.slice(0, 1).to_pylist()[0]
    assert (first["cost"], first["input_tokens"], first["tags"]) == (0.25, 25, ["demo", "weather"])
    assert first["started_at"].timestamp() == NOON
    assert table["cost"].null_count == 2500


def test_without_pyarrow_it_says_what_to_install(
    spans: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database(data).add(span())
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    done = spans("export", "-o", str(tmp_path / "out.parquet"))

    assert done.code == ExitCode.USAGE
    assert "pip install 'headrace[parquet]'" in done.err
    assert list(tmp_path.glob("*out*")) == []


def test_an_export_that_cannot_be_written_leaves_the_old_file(spans: Run, data: Path, tmp_path: Path) -> None:
    Database(data).add(span())

    done = spans("export", "-o", str(tmp_path / "none" / "out.jsonl"))

    assert done.code == ExitCode.FAILED
    assert "No such file or directory" in done.err


def test_an_export_into_a_pipe_with_a_name_leaves_it_a_pipe(spans: Run, data: Path, tmp_path: Path) -> None:
    Database(data).add(span(span_id="sp_1"))
    named = tmp_path / "pipe"
    os.mkfifo(named)
    reader = os.open(named, os.O_RDONLY | os.O_NONBLOCK)

    done = spans("export", "-o", str(named))

    exported = os.read(reader, 65536)
    os.close(reader)
    assert (done.code, named.is_fifo(), json.loads(exported)["span_id"]) == (ExitCode.OK, True, "sp_1")


def test_an_export_through_a_link_does_not_change_the_target(spans: Run, data: Path, tmp_path: Path) -> None:
    Database(data).add(span(span_id="sp_1"))
    precious, out = tmp_path / "precious", tmp_path / "out.jsonl"
    precious.write_text("mine")
    out.symlink_to(precious)

    assert spans("export", "-o", str(out)).code == ExitCode.OK

    assert precious.read_text() == "mine"
    assert (out.is_symlink(), json.loads(out.read_text())["span_id"]) == (False, "sp_1")
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == ["out.jsonl"]


def test_a_failed_export_removes_only_its_own_file(
    spans: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database(data).add(span(span_id="sp_1"))
    monkeypatch.setattr("headrace.cli.spans.span_export.secrets.token_hex", lambda _: "0")
    others = tmp_path / f".out.jsonl.{os.getpid()}.0"
    others.write_text("mine")

    done = spans("export", "-o", str(tmp_path / "out.jsonl"))

    assert (done.code, others.read_text()) == (ExitCode.FAILED, "mine")
    others.unlink()
    (tmp_path / "out.jsonl").mkdir()
    assert spans("export", "-o", str(tmp_path / "out.jsonl")).code == ExitCode.FAILED
    assert not list(tmp_path.glob(".out*"))


def test_a_file_that_takes_the_place_of_a_pipe_is_not_truncated(
    spans: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Database(data).add(span(span_id="sp_1"))
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    monkeypatch.setattr(Path, "is_file", lambda path: path != out)

    done = spans("export", "-o", str(out))

    assert (done.code, out.read_text()) == (ExitCode.FAILED, "mine")


def test_an_export_takes_the_filters(spans: Run, data: Path) -> None:
    Database(data).add(span(span_id="sp_1", model="o3"), span())

    assert spans("export", "--model", "o3").ids == ["sp_1"]


def test_a_sum_without_any_known_value_is_unknown_and_not_zero(spans: Run, data: Path) -> None:
    lost = {"status": "error", "error_type": "RateLimitError", "usage": Usage(), "first_chunk_seconds": None}
    new = {"provider": "ours", "model": "new"}
    free = {"provider": "ours", "model": "free"}
    database = Database(data)
    database.add(span(**new), span(**new), span(**new, **lost))
    database.add(span(provider="ours", model="broken", **lost), span(**free, **lost))
    database.add(span(**free), cost=0.0)

    out = spans("stats").lines
    groups = {each["model"]: each for each in json.loads(spans("stats", "--json").out)["groups"]}

    assert groups["ours/new"]["cost"] is None, "two without a price and one that failed: no cost is known"
    assert (groups["ours/new"]["runs_without_price"], groups["ours/new"]["runs_without_usage"]) == (2, 1)
    assert groups["ours/new"]["input_tokens"] == 50
    assert (groups["ours/free"]["cost"], groups["ours/free"]["runs_without_usage"]) == (0.0, 1)
    broken = groups["ours/broken"]
    assert (broken["input_tokens"], broken["output_tokens"], broken["cost"]) == (None, None, None)
    nothing = {"p50": None, "p95": None, "p99": None}
    assert (broken["duration_seconds"], broken["first_chunk_seconds"]) == (nothing, nothing)
    assert {line.split()[0]: line.split()[-3:] for line in out[1:5]} == {
        "ours/new": ["50", "80", "-"],
        "ours/free": ["25", "40", "0.000000"],
        "ours/broken": ["-", "-", "-"],
        "total": ["75", "120", "0.000000"],
    }
    assert next(line for line in out if line.startswith("ours/broken")).split()[4:] == ["-"] * 9


@pytest.mark.parametrize("by", ["model", "provider", "user", "session", "tag", "day"])
def test_no_grouping_makes_an_unknown_cost_zero(spans: Run, data: Path, by: str) -> None:
    Database(data).add(
        span(user_id="u", session_id="s", tags=["t"]),
        span(user_id="u", session_id="s", tags=["t"], status="error", usage=Usage()),
    )
    stats = json.loads(spans("stats", "--json", "--by", by).out)
    assert [group["cost"] for group in [*stats["groups"], stats["total"]]] == [None, None]
    assert all(line.endswith(" -") for line in spans("stats", "--by", by).lines[1:3])
