"""One bad span does not stop a sink: what cannot be sent is set aside, counted and shown, and all behind it goes on."""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import msgspec
import pytest

from headrace.cli.main import main
from headrace.settings.settings import SinkConfig
from headrace.spans.data_directory import database_files
from headrace.spans.span import ContentToolCall, Span, SpanContent, encode_content
from headrace.types import Usage
from headrace_engine.spans.sinks import semconv
from headrace_engine.spans.sinks.runner import Sinks
from headrace_engine.spans.sinks.unsent_spans import SetAsideMark, UnsentSpans
from tests.e2e.fake_sinks import FakeSink, Say, json_request, otlp_request, partial_success
from tests.e2e.sink_runs import Start, ids, only, runs, to_http, to_otlp
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import span
from tests.waiting import wait_until

DEEP = "[" * 3000
"""Arguments of a tool call, as a model may write them."""

BAD: dict[str, Callable[[], Span]] = {
    "max_output_tokens over 64 bits": lambda: span(900, parameters={"max_output_tokens": 2**63}),
    "a number over any float": lambda: span(900, parameters={"temperature": 10**400, "max_output_tokens": -(2**200)}),
    "usage over 64 bits": lambda: span(900, usage=Usage(2**64 - 1, 2**64 - 1, 2**64 - 1, source="provider")),
    "absurd times": lambda: span(900, started_at=1e300, ended_at=-1e300, duration_seconds=float("inf")),
    "no times": lambda: span(900, started_at=float("nan"), ended_at=float("nan"), duration_seconds=float("nan")),
    "an id that is none": lambda: span(900, span_id="sp_not hex", trace_id="é", parent_span_id="sp_"),
    "an id of zeros": lambda: span(900, span_id="sp_0000000000000000", trace_id="tr_0000000000000000"),
    "an id that is too long": lambda: span(900, span_id="sp_" + "a" * 40, trace_id="tr_" + "b" * 99),
    "no id at all": lambda: span(900, span_id="", trace_id="", parent_span_id=""),
    "nested arguments": lambda: span(
        900, content=encode_content(SpanContent(tool_calls=[ContentToolCall("c", "f", DEEP)], text="x"))
    ),
    "arguments of many digits": lambda: span(
        900, content=encode_content(SpanContent(tool_calls=[ContentToolCall("c", "f", '{"a": ' + "9" * 400 + "}")]))
    ),
    "content that is none": lambda: span(900, content=b"\xff{["),
    "options of other types": lambda: span(900, parameters={"custom_options": 5, "response_format": 7, "top_p": "x"}),
}


@pytest.mark.parametrize("kind", ["otlp", "http", "jsonl"])
def test_no_span_stops_a_sink(kind: str, slot: SlotWriter, start: Start, tmp_path: Path) -> None:
    bad = [msgspec.structs.replace(make(), response_model=name) for name, make in BAD.items()]
    bad = [each if each.span_id != "sp_0000000000000384" else msgspec.structs.replace(each, span_id=f"sp_{number:016x}")
           for number, each in enumerate(bad, 0x900)]  # fmt: skip
    marks = slot.write([*runs(3), *bad, *runs(3, first=700)])
    path = tmp_path / "out.jsonl"
    with FakeSink() as fake:
        configs = {
            "otlp": to_otlp(fake, content=True, batch_size=5),
            "http": to_http(fake, content=True),
            "jsonl": msgspec.convert({"type": "jsonl", "path": str(path), "content": True}, SinkConfig),
        }
        sinks = start(sink=configs[kind])
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: only(sinks).delivered == 6 + len(bad))

        senders: dict[str, Callable[[], list[str]]] = {
            "otlp": lambda: [one for each in fake.received for one in _names(otlp_request(each))],
            "http": lambda: [json_request(each)["model"] for each in fake.received],
            "jsonl": lambda: [json.loads(line)["response_model"] for line in path.read_text().splitlines()],
        }
        sent = senders[kind]()
        assert len(sent) == 6 + len(bad)
        assert kind == "http" or set(BAD) <= set(sent)
        assert (only(sinks).failed, only(sinks).state) == (0, "ok")


def _names(request: Any) -> list[str]:
    spans = request.resource_spans[0].scope_spans[0].spans
    assert all(len(one.span_id) == 8 and len(one.trace_id) == 16 for one in spans)
    return [each.value.string_value for one in spans for each in one.attributes if each.key == "gen_ai.response.model"]


def test_what_cannot_be_encoded_is_set_aside_and_stays_so_after_a_restart(
    slot: SlotWriter, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    spans = runs(40)
    bad = {spans[0].span_id, spans[17].span_id}
    describe = semconv.describe

    def broken(stored: Any, version: Any) -> Any:
        if stored.span.span_id in bad:
            raise OverflowError("Python int too large")
        return describe(stored, version)

    monkeypatch.setattr("headrace_engine.spans.sinks.otlp.describe", broken)
    marks = slot.write(spans)
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake, batch_size=10))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: (only(sinks).delivered, only(sinks).failed, only(sinks).aside) == (38, 2, 2))

        assert fake.taken() == [one for one in ids(spans) if one not in bad]
        assert only(sinks).error == "cannot be encoded: OverflowError"
        assert [record for record in caplog.records if record.levelno >= logging.WARNING][1:] == []
        sinks.close(1.0)

        again = Sinks(slot.slot, {"otlp": to_otlp(fake)})
        again.start()
        more = slot.write(runs(2, first=500))
        again.wake()
        wait_until(lambda: again.is_caught_up(more))
        wait_until(lambda: (only(again).delivered, only(again).aside) == (2, 2))
        again.close(1.0)
        assert not bad & set(fake.taken())


def test_rows_without_number_that_make_no_sense_are_passed_over_one_by_one(slot: SlotWriter) -> None:
    slot.write(runs(1200))
    slot.execute("UPDATE spans SET tags = '['")
    slot.write(runs(1, first=5000))
    unsent = UnsentSpans(slot.slot, "otlp")
    batch = unsent.next(1, 0.0, is_last=True)

    assert batch is not None
    assert [stored.span.span_id for stored in batch.spans] == ids(runs(1, first=5000))
    assert (len(unsent.take_damaged()), unsent.aside()) == (1200, 1200)
    unsent.close()


def test_marks_that_cannot_be_written_cost_no_more_the_more_there_are(
    slot: SlotWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk: each waits, once, for the next time."""
    (path,) = slot.write(runs(1))
    unsent = UnsentSpans(slot.slot, "otlp")
    assert unsent.next(1, 0.0, is_last=True) is not None
    file = unsent._files[path]
    with monkeypatch.context() as patch:
        patch.setattr(file, "_write", Mock(side_effect=sqlite3.OperationalError("disk is full")))
        began = time.process_time()
        for number in range(20_000):
            file.move(
                1, [SetAsideMark(f"sp_{number}", number, "why"), SetAsideMark(f"sp_{number // 2}", number // 2, "why")]
            )
        assert time.process_time() - began < 5.0
    file.move(1)

    assert unsent.aside() == 20_000
    unsent.close()


def test_a_row_that_makes_no_sense_is_set_aside(slot: SlotWriter, start: Start) -> None:
    spans = runs(30)
    slot.write(spans)
    for number, damage in enumerate(
        [
            "attempts = '[broken'",
            "started_at = 'never'",
            "rank = 99",
            "error = x'00ff'",
            "model = x'ff'",
            "parameters = '5'",
        ]
    ):
        slot.execute(f"UPDATE spans SET {damage} WHERE seq = {4 * number + 1}")
    slot.execute("UPDATE spans SET tags = '[' WHERE seq > 24 AND seq < 28")
    slot.execute("UPDATE spans SET error = CAST(x'ff' AS TEXT) WHERE seq = 28")
    marks = slot.write(runs(1, first=800))
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake, batch_size=2))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: (only(sinks).delivered, only(sinks).failed, only(sinks).aside) == (22, 9, 9))

    assert only(sinks).error.startswith("damaged in the store: ")


def test_only_damaged_rows_are_passed_over_too(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(5))
    slot.execute("UPDATE spans SET tags = '['")
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake, batch_size=2))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: only(sinks).aside == 5)
        assert fake.received == []


def test_what_one_partial_success_refuses_alone_is_set_aside(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(1))
    with FakeSink([partial_success(1, "too \x1b[1mold")]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: (only(sinks).failed, only(sinks).aside) == (1, 1))


def test_a_better_record_that_is_taken_is_set_aside_no_longer(slot: SlotWriter, start: Start) -> None:
    slot.write(runs(1))
    with FakeSink([Say(400)]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: only(sinks).aside == 1)
        slot.write(runs(1))
        sinks.wake()
        wait_until(lambda: (only(sinks).delivered, only(sinks).aside) == (1, 0))


def test_a_mistake_about_one_span_holds_up_no_other(
    slot: SlotWriter, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = runs(4)
    marks = slot.write(spans)
    post = "headrace_engine.spans.sinks.http_json.HttpJsonSink.send"
    with FakeSink() as fake:
        from headrace_engine.spans.sinks.http_json import HttpJsonSink

        send = HttpJsonSink.send

        def broken(sink: HttpJsonSink, some: Any, tries: int) -> Any:
            if spans[1].span_id in [one.span.span_id for one in some]:
                raise KeyError("a mistake of ours")
            return send(sink, some, tries)

        monkeypatch.setattr(post, broken)
        sinks = start(api=to_http(fake))
        wait_until(lambda: sinks.is_caught_up(marks), 30.0)

        assert sorted(fake.taken()) == [one for one in ids(spans) if one != spans[1].span_id]
        wait_until(lambda: only(sinks).aside == 1)


def test_commands_say_what_is_set_aside(
    slot: SlotWriter, start: Start, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spans = runs(3)
    marks = slot.write(spans)
    with FakeSink(after=lambda sent: Say(413) if spans[1].span_id in sent else Say()) as fake:
        sinks = start(phoenix=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: only(sinks).aside == 1)

    main(["spans", "list", "--data", str(tmp_path)])
    said = capsys.readouterr().err
    main(["spans", "show", spans[1].span_id, "--data", str(tmp_path)])
    shown = capsys.readouterr().out
    main(["spans", "show", spans[1].span_id, "--json", "--data", str(tmp_path)])
    fields = json.loads(capsys.readouterr().out)

    assert f"sink phoenix has set aside span {spans[1].span_id} (HTTP 413 " in said
    assert "set aside by sinks\n  phoenix: HTTP 413 " in shown
    assert list(fields["set_aside"]) == ["phoenix"]


def test_a_file_of_an_earlier_version_gets_its_table_when_it_needs_one(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(2))
    slot.execute("DROP TABLE set_aside")
    with FakeSink(after=lambda sent: Say(400) if runs(1)[0].span_id in sent else Say()) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))
        wait_until(lambda: (only(sinks).delivered, only(sinks).aside) == (1, 1))
    (path,) = database_files(slot.slot)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM set_aside").fetchone() == (1,)
