"""Promises of the sinks, on real database files and real connections.

What is sent, that none waits for another, and the end.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import msgspec
import pytest

from headrace import Client
from headrace.settings.settings import SinkConfig
from headrace.spans.span import Rank
from headrace.testing import SimulatedProvider
from headrace.wire.engine_status import SinkStatus
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.e2e.fake_sinks import FakeSink, Say, json_request, otlp_request
from tests.e2e.sink_runs import BUSY, Start, ids, only, runs, to_http, to_otlp
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import EXAMPLES, span, unsampled
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow


def test_spans_reach_an_opentelemetry_collector_once_and_in_order(slot: SlotWriter, start: Start) -> None:
    spans = runs(600)
    marks = slot.write(spans)
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake, headers={"x-team": "blue"}, service_name="shop"))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == ids(spans)
        assert [len(request.spans) for request in fake.received] == [256, 256, 88]
        assert {request.path for request in fake.received} == {"/v1/traces"}
        assert fake.received[0].headers["content-type"] == "application/x-protobuf"
        assert fake.received[0].headers["x-team"] == "blue"
        resource_spans = otlp_request(fake.received[0]).resource_spans[0]
        assert resource_spans.resource.attributes[0].value.string_value == "shop"
        wait_until(lambda: only(sinks) == SinkStatus("otlp", "ok", 600))


def test_requests_are_packed_if_asked_for(slot: SlotWriter, start: Start) -> None:
    slot.write(runs(10))
    with FakeSink() as fake:
        start(otlp=to_otlp(fake, compression="gzip"))
        wait_until(lambda: len(fake.taken()) == 10)

        assert fake.received[0].headers["content-encoding"] == "gzip"


def test_spans_that_come_later_are_sent_when_they_come(slot: SlotWriter, start: Start) -> None:
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        for number in range(1, 4):
            marks = slot.write([span(number)])
            sinks.wake()
            wait_until(partial(sinks.is_caught_up, marks))

        assert fake.taken() == ids(runs(3))


def test_what_the_callers_sampling_leaves_out_is_not_exported(slot: SlotWriter, start: Start) -> None:
    marks = slot.write([unsampled(), span(1)])
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == [span(1).span_id]
        assert only(sinks).delivered == 1


def test_a_span_api_gets_one_span_in_each_request(
    slot: SlotWriter, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SINK_KEY", "key-1234567")
    slot.write([EXAMPLES["chat_with_tools"], EXAMPLES["aborted"], EXAMPLES["failed"], EXAMPLES["embedding"]])
    with FakeSink() as fake:
        start(api=to_http(fake, api_key_env="SINK_KEY", content=True))
        wait_until(lambda: len(fake.taken()) == 4)

        sent = {json_request(request)["spanId"]: json_request(request) for request in fake.received}
        assert {request.path for request in fake.received} == {"/api/v1/spans"}
        assert {request.headers["authorization"] for request in fake.received} == {"Bearer key-1234567"}
        chat = sent["sp_0000000000000001"]
        assert chat["traceId"] == "tr_00000000000000a1"
        assert (chat["spanKind"], chat["status"], chat["latencyMs"]) == ("LLM", "SUCCESS", 1500)
        assert (chat["inputTokens"], chat["outputTokens"], chat["totalTokens"]) == (100, 20, 120)
        assert (chat["temperature"], chat["maxOutputTokens"], chat["topP"]) == (1, 200, 0.5)
        assert (chat["tags"], chat["userId"], chat["sessionId"]) == (["shop", "night"], "user-1", "session-1")
        assert chat["input"]["messages"][0] == {"role": "system", "content": "Be brief."}
        assert chat["output"] == "Let me see."
        assert chat["tools"][0]["name"] == "weather"
        assert chat["toolCalls"] == [{"id": "call_2", "name": "weather", "arguments": {"city": "Basel"}}]
        aborted = sent["sp_0000000000000002"]
        assert (aborted["status"], aborted["output"], aborted["tags"]) == (
            "SUCCESS",
            "Once",
            ["aborted", "usage_partial"],
        )
        failed = sent["sp_0000000000000003"]
        assert (failed["status"], failed["error"]) == ("ERROR", "429: slow down")
        assert sent["sp_0000000000000005"]["spanKind"] == "EMBEDDING"


@pytest.mark.parametrize("kind", ["otlp", "http", "jsonl"])
def test_prompts_and_answers_are_sent_only_by_leave(slot: SlotWriter, start: Start, tmp_path: Path, kind: str) -> None:
    slot.write([EXAMPLES["chat_with_tools"]])

    def sent(name: str, *, content: bool) -> bytes:
        with FakeSink() as fake:
            path = tmp_path / name
            config = {"type": kind, "url": fake.url, "path": str(path), "content": content}
            sinks = start(**{name: msgspec.convert(config, SinkConfig)})
            wait_until(lambda: only(sinks).delivered == 1)
            return path.read_bytes() if kind == "jsonl" else fake.received[0].body

    assert b"Let me see." in sent("with", content=True)
    without = sent("without", content=False)
    assert not [text for text in (b"Be brief", b"What is this", b"Let me see", b"Basel") if text in without]


def test_slow_failing_and_limiting_sinks_do_not_delay_a_fast_one(slot: SlotWriter, start: Start) -> None:
    spans = runs(400)
    marks = slot.write(spans)
    near = Say(delay=0.02)
    with FakeSink(after=near) as alone:
        before = time.monotonic()
        by_itself = start(alone=to_otlp(alone, batch_size=10))
        wait_until(lambda: by_itself.is_caught_up(marks))
        time_alone = time.monotonic() - before

    slow = FakeSink(after=Say(delay=0.5))
    failing = FakeSink([BUSY, BUSY, Say(hangs=True), BUSY])
    limiting = FakeSink([Say(429, {"Retry-After": "1"}), Say(), Say(429, {"Retry-After": "1"})])
    with slow, failing, limiting, FakeSink(after=near) as fast:
        before = time.monotonic()
        sinks = start(
            slow=to_otlp(slow, batch_size=100),
            failing=to_otlp(failing, batch_size=100, timeout=0.5),
            limiting=to_otlp(limiting, batch_size=100),
            fast=to_otlp(fast, batch_size=10),
        )
        wait_until(lambda: len(fast.taken()) == 400)
        time_beside = time.monotonic() - before
        wait_until(lambda: sinks.is_caught_up(marks), timeout=40)

        assert time_beside < 3 * time_alone * busyness()
        for fake in (slow, failing, limiting, fast):
            assert set(fake.taken()) == set(ids(spans))
        assert fast.taken() == ids(spans)
        for limited, following in zip(limiting.received, limiting.received[1:], strict=False):
            if limited.status == 429:
                assert following.time - limited.time >= 1


def test_a_span_api_that_fails_now_and_then_gets_every_span_at_least_once(slot: SlotWriter, start: Start) -> None:
    spans = runs(100)
    marks = slot.write(spans)
    asked: list[str] = []

    def answer(sent: list[str]) -> Say:
        asked.extend(sent)
        return BUSY if len(asked) % 13 == 5 else Say(201, body=b'{"id": 1}')

    with FakeSink(after=answer) as fake:
        sinks = start(api=to_http(fake))
        wait_until(lambda: sinks.is_caught_up(marks), timeout=40)

        assert set(fake.taken()) == set(ids(spans))
        assert len(fake.taken()) < 200


def test_closing_sends_what_is_left(slot: SlotWriter, start: Start) -> None:
    slot.write([*runs(5), span(6, rank=Rank.STUB)])
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))
        sinks.close(10.0)
        sinks.close(10.0)

        assert fake.taken() == ids(runs(6))


def test_closing_waits_no_longer_than_told_for_a_sink_that_hangs(slot: SlotWriter, start: Start) -> None:
    slot.write(runs(5))
    with FakeSink(after=Say(hangs=True)) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: fake.received)
        before = time.monotonic()
        sinks.close(0.2)

        assert time.monotonic() - before < 3 * busyness()


def test_closing_does_not_wait_for_a_sink_that_is_down(slot: SlotWriter, start: Start) -> None:
    slot.write(runs(5))
    with FakeSink(after=Say(401)) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: only(sinks).state == "open")
        before = time.monotonic()
        sinks.close(30.0)

        assert time.monotonic() - before < 10 * busyness()


def test_a_flush_of_a_client_means_that_every_sink_has_its_runs(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "spans.jsonl"
    with FakeSink() as collector, FakeSink() as api:
        tables = f'[sinks.api]\ntype = "http"\nurl = "{api.url}"\n[sinks.file]\ntype = "jsonl"\npath = "{lines}"\n'
        (tmp_path / "headrace.toml").write_text(tables)
        monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "headrace.toml"))
        monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with running_engine(provider, "--workers", "1") as address, Client(address) as client:
            done = {client.run_local(model="gpt-4o", messages=HELLO).span_id for _ in range(5)}
            flushed = client.flush(30.0)

            assert (flushed.delivered, flushed.pending, flushed.failed) == (5, 0, 0)
            assert set(collector.taken()) == set(api.taken()) == done
            assert {json.loads(line)["span_id"] for line in lines.read_text().splitlines()} == done
