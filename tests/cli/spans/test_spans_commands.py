"""``headrace spans list``: which spans it shows, from which files, and how they fit a terminal."""

from __future__ import annotations

import json
import sqlite3
import time
from pathlib import Path

import pytest

from headrace.cli.main import main
from headrace.cli.shared.exit_codes import ExitCode
from headrace.spans.span import ContentToolCall, Rank
from headrace.spans.stored_media import NOT_KEPT
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, Usage
from tests.cli.conftest import Run
from tests.cli.spans.span_rows import NOON, Database, content, span

NO_USAGE = Usage()

WIDE = """\
TIME         SPAN         STATUS   MODEL                       MS   FIRST       TOKENS     COST $  TEXT
03-14 12:00  sp_6         ok       gpt-4o                    1250     310        25/40   0.000000  → get_weather({"location": "Toky…
03-14 12:00  sp_5         aborted  gpt-4o                    1250     310         10/3  <0.000001  Once upon
03-14 12:00  sp_4         ok       our-model                 1250       -        25/40          -  (policy)
03-14 12:00  sp_3         error    gpt-4o                    1250     310            -          -  RateLimitError: 429: too many
03-14 12:00  sp_2         ok       claude-sonnet-4-6         1250     310        25/40      12.50  Grüße aus 世界! Grüße aus 世界! …
03-14 12:00  sp_1         ok       gpt-4o                    1250     310        25/40   0.004500  Hello.
"""

NARROW = """\
TIME         SPAN         STATUS   MODEL               MS  TEXT
03-14 12:00  sp_6         ok       gpt-4o            1250  → get_weather({"loca…
03-14 12:00  sp_5         aborted  gpt-4o            1250  Once upon
03-14 12:00  sp_4         ok       our-model         1250  (policy)
03-14 12:00  sp_3         error    gpt-4o            1250  RateLimitError: 429:…
03-14 12:00  sp_2         ok       claude-sonnet…    1250  Grüße aus 世界! Grüß…
03-14 12:00  sp_1         ok       gpt-4o            1250  Hello.
"""


# list


def test_the_newest_spans_come_first_one_json_object_a_line(spans: Run, data: Path) -> None:
    Database(data).add(*(span(span_id=f"sp_{n}", started_at=NOON + n) for n in (2, 0, 1)))

    done = spans("list")

    assert (done.code, done.err) == (ExitCode.OK, "")
    assert done.ids == ["sp_2", "sp_1", "sp_0"]
    assert done.objects[0]["usage"] == {
        "input_tokens": 25,
        "output_tokens": 40,
        "total_tokens": 65,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "reasoning_tokens": 0,
        "source": "provider",
        "server_tool_requests": {},
    }
    assert done.objects[0]["content"] == {"messages": [{"role": "user", "content": "Hello?"}], "text": "Hello."}


def test_twenty_are_shown_unless_told_otherwise(spans: Run, data: Path) -> None:
    Database(data).add(*(span() for _ in range(30)))

    assert len(spans("list").lines) == 20
    assert len(spans("list", "--limit", "3").lines) == 3
    assert len(spans("list", "--limit", "0").lines) == 30


def some_spans(data: Path) -> None:
    database = Database(data)
    database.add(span(span_id="sp_1", model="gpt-4o"), cost=0.0045)
    database.add(
        span(
            span_id="sp_2",
            provider="anthropic",
            model="claude-sonnet-4-6",
            content=content(text="Grüße aus 世界! " * 9),
        ),
        cost=12.5,
    )
    database.add(
        span(span_id="sp_3", status="error", error_type="RateLimitError", error="429: too\nmany", usage=NO_USAGE),
        span(span_id="sp_4", model="our-model", content=b"", content_note="policy", first_chunk_seconds=None),
    )
    database.add(
        span(
            span_id="sp_5",
            status="aborted",
            usage=Usage(10, 3, 13, source="estimated"),
            content=content(text="Once\nupon"),
        ),
        cost=2e-7,
    )
    calls = [ContentToolCall("c", "get_weather", '{"location": "Tokyo"}')]
    database.add(span(span_id="sp_6", content=content(text="", tool_calls=calls)), cost=0.0)


def test_the_table_fits_a_wide_terminal(spans: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_spans(data)
    monkeypatch.setenv("COLUMNS", "132")

    assert spans("list", "--table").out == WIDE


def test_the_table_fits_a_usual_terminal(spans: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some_spans(data)
    monkeypatch.setenv("COLUMNS", "80")

    assert spans("list", "--table").out == NARROW


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(
    spans: Run, data: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    Database(data).add(span(model="m" * 99, content=content(text="long " * 99)), span(content=content(text="世" * 99)))
    monkeypatch.setenv("COLUMNS", str(width))

    head, wide, narrow = spans("list", "--table").lines
    assert len(head) <= len(narrow) == width
    assert len(wide) + wide.count("世") in {width - 1, width}  # the last column may be too narrow for a wide letter


def test_a_span_of_today_has_its_time_of_day(spans: Run, data: Path) -> None:
    now = time.time()
    Database(data).add(span(started_at=now))

    today = spans("list", "--table").lines[1].split()[0]

    assert today == time.strftime("%H:%M:%S", time.localtime(now))


def test_images_audio_and_files_are_named_with_their_size(spans: Run, data: Path) -> None:
    asked: list[Part] = [
        ImagePart("https://x.test/a.png"),
        AudioPart("A" * 4096, "audio/wav"),
        FilePart("report.pdf", "application/pdf", f"{NOT_KEPT}1048576 bytes)"),
        FilePart(file_id="file_1"),
        FilePart("a.txt", "text/plain", text="words"),
    ]
    made = ImagePart(data="A" * 8192, media_type="image/png")
    kept = content(text="", messages=[Message("user", asked)], media=[made])
    Database(data).add(span(span_id="sp_1", content=kept))

    shown = spans("show", "sp_1").out

    for words in (
        "(image https://x.test/a.png)",
        "(audio audio/wav, 3 KiB)",
        "(file report.pdf application/pdf, (not kept: 1048576 bytes))",
        "(file file_1)",
        "(file a.txt text/plain, 5 characters)",
        "(image image/png, 6 KiB)",
    ):
        assert words in shown
    assert "(image/png)" in spans("list", "--table").out


def test_what_a_model_said_cannot_steer_the_terminal(spans: Run, data: Path) -> None:
    evil = "a\x1b]0;title\x07b\x9b2Jc"
    Database(data).add(
        span(span_id="sp_1", model="gpt\x1b[1m", error=evil, status="error", content=content(evil, evil), tags=[evil])
    )

    for command in [("list", "--table"), ("show", "sp_1"), ("stats",), ("stats", "--by", "tag")]:
        out = spans(*command).out
        assert not {"\x1b", "\x07", "\x9b"} & set(out), command


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--status", "error"], ["sp_error"]),
        (["--model", "o3"], ["sp_model"]),
        (["--model", "o*"], ["sp_model"]),
        (["--provider", "groq"], ["sp_provider"]),
        (["--user", "u1"], ["sp_who"]),
        (["--session", "s1"], ["sp_who"]),
        (["--user", "u1", "--session", "s2"], []),
        (["--tag", "a"], ["sp_tags", "sp_tag"]),
        (["--tag", "a", "--tag", "b"], ["sp_tags"]),
        (["--trace", "tr_1"], ["sp_trace"]),
        (["--trace", "4bf92f3577b34da6a3ce929d0e0e4736"], ["sp_trace"]),
        (["--since", "2026-03-14T12:30"], ["sp_late"]),
        (["--until", "2026-03-14T11:59:00+00:00"], ["sp_early"]),
        (["--grep", "TOKYO"], ["sp_text"]),
        (["--grep", "grüße"], ["sp_text"]),
        (["--grep", 'a "b" c'], ["sp_text"]),
        (["--grep", "100%_"], ["sp_text"]),
        (["--grep", "role"], []),  # a name of a JSON field, not a word of the content
    ],
)
def test_filters_select_the_right_spans(spans: Run, data: Path, arguments: list[str], expected: list[str]) -> None:
    Database(data).add(
        span(span_id="sp_text", content=content('Tokyo, a "b" c', "GRÜSSE\n100%_")),
        span(
            span_id="sp_trace", trace_id="tr_1", traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        ),
        span(span_id="sp_tag", tags=["a"]),
        span(span_id="sp_tags", tags=["b", "a"]),
        span(span_id="sp_who", user_id="u1", session_id="s1"),
        span(span_id="sp_provider", provider="groq"),
        span(span_id="sp_model", model="o3"),
        span(span_id="sp_error", status="error"),
        span(span_id="sp_early", started_at=NOON - 3600),
        span(span_id="sp_late", started_at=NOON + 3600),
    )

    assert spans("list", *arguments).ids == expected


def test_since_takes_ages_and_dates(spans: Run, data: Path) -> None:
    now = time.time()
    Database(data).add(*(span(span_id=f"sp_{hours}", started_at=now - hours * 3600) for hours in (1, 3, 30)))

    assert spans("list", "--since", "2h").ids == ["sp_1"]
    assert spans("list", "--since", "1d").ids == ["sp_1", "sp_3"]
    assert spans("list", "--since", "1w", "--until", "90m").ids == ["sp_3", "sp_30"]
    wrong = spans("list", "--since", "yesterday")
    assert wrong.code == ExitCode.USAGE
    assert "give 10m, 2h, 3d or a date" in wrong.err


# Several files and slots


def test_spans_of_all_days_and_slots_are_shown_together(spans: Run, data: Path) -> None:
    Database(data, 0, "2026-03-13").add(span(span_id="sp_1", started_at=NOON - 86400))
    Database(data, 0, "2026-03-14").add(span(span_id="sp_2", started_at=NOON))
    Database(data, 0, "2026-03-14", 1).add(span(span_id="sp_4", started_at=NOON + 2))
    Database(data, 1, "2026-03-14").add(span(span_id="sp_3", started_at=NOON + 1))

    assert spans("list").ids == ["sp_4", "sp_3", "sp_2", "sp_1"]
    assert spans("export").ids == ["sp_1", "sp_2", "sp_3", "sp_4"]
    assert spans("list", "--limit", "2").ids == ["sp_4", "sp_3"]


def test_the_row_of_higher_rank_is_shown_and_then_the_newer(spans: Run, data: Path) -> None:
    Database(data, 0).add(
        span(span_id="sp_a", rank=Rank.WORKER, content=content(text="whole"), tags=["t"], started_at=NOON),
        span(span_id="sp_b", rank=Rank.CLIENT, content=content(text="older"), started_at=NOON),
        span(span_id="sp_c", rank=Rank.STUB, status="error", error_type="lost", started_at=NOON),
    )
    Database(data, 1).add(
        span(span_id="sp_a", rank=Rank.CLIENT, status="error", error_type="WorkerLostError", started_at=NOON + 1),
        span(span_id="sp_b", rank=Rank.CLIENT, content=content(text="newer"), started_at=NOON + 1),
        span(span_id="sp_c", rank=Rank.WORKER, content=content(text="whole"), started_at=NOON),
    )

    for command in ("list", "export"):
        found = {each["span_id"]: each["content"]["text"] for each in spans(command).objects}
        assert found == {"sp_a": "whole", "sp_b": "newer", "sp_c": "whole"}
        assert len(spans(command).lines) == 3
    assert spans("list", "--status", "error").ids == []  # a row of lower rank is not found either
    assert json.loads(spans("show", "sp_a", "--json").out)["rank"] == "worker"
    stats = json.loads(spans("stats", "--json").out)
    assert (stats["total"]["runs"], stats["total"]["errors"], stats["errors"]) == (3, 0, {})


def test_each_run_is_shown_once_among_very_many_rows(spans: Run, data: Path) -> None:
    both = [span(span_id=f"sp_{n:04}", started_at=NOON + n) for n in range(1500)]
    Database(data, 0).add(*both)
    Database(data, 1).add(*both)

    assert sorted(spans("list", "--limit", "0").ids) == [each.span_id for each in both]


def test_a_file_that_cannot_be_read_is_named_and_left_out(spans: Run, data: Path) -> None:
    Database(data).add(span(span_id="sp_1"))
    (data / "0" / "spans-2026-03-13.db").write_bytes(b"this is not a database" * 100)
    Database(data, 1).execute("PRAGMA user_version = 99")

    for command in ("list", "stats", "export"):
        done = spans(command)
        assert done.code == ExitCode.OK
        assert done.err.count("spans-2026-03-13.db is left out: ") == 1
        assert "its schema version is 99" in done.err
    assert spans("list").ids == ["sp_1"]


def test_a_file_damaged_in_the_middle_is_named_and_the_rows_before_are_shown(spans: Run, data: Path) -> None:
    database = Database(data)
    database.add(*(span(content=content(text="x" * 3000)) for _ in range(200)))
    database.close()
    whole = database.path.read_bytes()
    database.path.write_bytes(whole[: len(whole) // 2])
    Database(data, 1).add(span(span_id="sp_other", started_at=NOON + 3600))

    done = spans("list", "--limit", "0")

    assert done.code == ExitCode.OK
    assert done.ids[0] == "sp_other"
    assert done.err.count("is left out") == 1


def test_a_damaged_row_is_named_and_left_out(spans: Run, data: Path) -> None:
    database = Database(data)
    database.add(span(span_id="sp_1"), span(span_id="sp_2"))
    database.execute("UPDATE spans SET tags = '[broken' WHERE span_id = 'sp_2'")

    done = spans("list")

    assert done.ids == ["sp_1"]
    assert "spans-2026-03-14.db: row 2 is left out" in done.err


def test_a_database_that_is_just_being_created_is_not_an_error(spans: Run, data: Path) -> None:
    Database(data).add(span())
    sqlite3.connect(data / "0" / "spans-2026-03-15.db").execute("PRAGMA journal_mode = WAL").connection.close()

    assert (len(spans("list").lines), spans("list").err) == (1, "")


def test_files_of_another_time_are_not_searched(spans: Run, data: Path) -> None:
    Database(data, 0, "2026-03-10").add(span(span_id="sp_1", started_at=NOON - 4 * 86400))
    Database(data).add(span(span_id="sp_2", started_at=NOON))

    assert spans("list", "--since", "2026-03-14").ids == ["sp_2"]
    assert json.loads(spans("stats", "--json", "--until", "2026-03-11").out)["total"]["runs"] == 1


def test_an_engine_may_write_meanwhile(spans: Run, data: Path) -> None:
    database = Database(data)
    database.add(span(span_id="sp_1"))
    writing = sqlite3.connect(database.path, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")
    writing.execute("UPDATE spans SET status = 'error'")

    done = spans("list")

    writing.execute("ROLLBACK")
    writing.close()
    assert [each["status"] for each in done.objects] == ["ok"]


# Where the data is


def test_an_empty_store_says_what_to_do(spans: Run) -> None:
    for command in ("list", "stats", "export"):
        done = spans(command)
        assert done.code == ExitCode.OK
        assert "headrace run" in done.err
    assert spans("list").out == ""


def test_a_filter_without_a_match_says_so(spans: Run, data: Path) -> None:
    Database(data).add(span())

    done = spans("list", "--model", "none")

    assert (done.code, done.out) == (ExitCode.OK, "")
    assert done.err == f"no span in {data} meets the conditions\n"


def test_a_directory_that_does_not_exist_is_an_error(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["spans", "list", "--data", str(data / "none")]) == ExitCode.USAGE
    assert "the directory does not exist" in capfd.readouterr().err


@pytest.mark.parametrize("place", ["HEADRACE_DATA", "XDG_STATE_HOME", "settings"])
def test_the_data_directory_comes_from_the_settings(
    place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(data))
    match place:
        case "settings":
            (tmp_path / "headrace.toml").write_text(f'[spans]\ndirectory = "{data / "headrace"}"\n')
            monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "headrace.toml"))
        case "HEADRACE_DATA":
            monkeypatch.setenv(place, str(data / "headrace"))
    Database(data / "headrace").add(span(span_id="sp_1"))

    assert main(["spans", "list"]) == ExitCode.OK
    assert json.loads(capfd.readouterr().out)["span_id"] == "sp_1"
