"""Promises of the sinks towards servers that misbehave as told."""

from __future__ import annotations

import logging
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from headrace.wire.engine_status import SinkStatus
from headrace_engine.spans.sinks import otlp
from tests.e2e.fake_sinks import FakeSink, Say, partial_success
from tests.e2e.sink_runs import BUSY, Start, ids, only, runs, to_http, to_otlp
from tests.e2e.span_slots import SlotWriter
from tests.engine.spans.span_examples import span
from tests.waiting import busyness, wait_until


@pytest.mark.slow
def test_a_server_that_is_busy_gets_everything_in_the_end(slot: SlotWriter, start: Start) -> None:
    spans = runs(100)
    marks = slot.write(spans)
    with FakeSink([BUSY, Say(500), Say(408)]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == ids(spans)
        assert [request.status for request in fake.received] == [503, 500, 408, 200]
        wait_until(lambda: only(sinks) == SinkStatus("otlp", "ok", 100))


@pytest.mark.slow
@pytest.mark.parametrize("as_date", [False, True])
def test_a_server_that_limits_the_rate_is_not_asked_earlier_than_it_says(
    slot: SlotWriter, start: Start, as_date: bool
) -> None:
    slot.write(runs(5))
    seconds = 3.0 * busyness()
    date, earliest = formatdate(time.time() + seconds, usegmt=True), time.monotonic() + seconds - 1.0
    wait = date if as_date else "2"
    with FakeSink([Say(429, {"Retry-After": wait})]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: only(sinks).state == "retrying")
        sinks.wake()
        wait_until(lambda: len(fake.taken()) == 5)

        first, second = fake.received
        assert second.time >= (earliest if as_date else first.time + 1.8)  # a date has whole seconds


def test_what_a_partial_success_refuses_is_counted_and_not_sent_again(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(10))
    with FakeSink([partial_success(3, "too old")]) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert len(fake.received) == 1
        wait_until(lambda: only(sinks) == SinkStatus("otlp", "ok", 7, 0, 3, "too old"))


@pytest.mark.parametrize("status", [400, 422])
def test_a_span_that_is_refused_as_malformed_is_set_aside_alone(slot: SlotWriter, start: Start, status: int) -> None:
    spans = runs(64)
    bad = {spans[0].span_id, spans[33].span_id, spans[63].span_id}
    marks = slot.write(spans)

    def answer(sent: list[str]) -> Say:
        return Say(status, body=b"what is this?") if bad & set(sent) else Say(200)

    with FakeSink(after=answer) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == [one for one in ids(spans) if one not in bad]
        wait_until(lambda: (only(sinks).delivered, only(sinks).failed, only(sinks).aside) == (61, 3, 3))
        assert only(sinks).error.endswith(": what is this?")
        assert len(fake.received) < 64
        assert {each[1] for each in slot.execute("SELECT * FROM set_aside")} == bad


def test_too_large_requests_are_halved_until_only_what_is_too_large_alone_is_given_up(
    slot: SlotWriter, start: Start
) -> None:
    spans = runs(64)
    huge = spans[20].span_id
    marks = slot.write(spans)

    def answer(sent: list[str]) -> Say:
        return Say(413) if len(sent) > 16 or huge in sent else Say(200)

    with FakeSink(after=answer) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == [one for one in ids(spans) if one != huge]
        wait_until(lambda: only(sinks).failed == 1)


def test_a_server_that_hangs_is_left_and_asked_again(slot: SlotWriter, start: Start) -> None:
    spans = runs(5)
    slot.write(spans)
    is_seen = threading.Event()
    # Until it was seen: the first pause between two tries may be of no length.
    with FakeSink(after=lambda _: Say(hangs=not is_seen.is_set())) as fake:
        sinks = start(otlp=to_otlp(fake, timeout=0.2))
        wait_until(lambda: only(sinks).error == "no answer within 0.2 s")
        is_seen.set()
        wait_until(lambda: len(fake.taken()) >= 5)  # again, where an answer took longer than it may

        assert fake.received[0].spans == fake.received[1].spans == ids(spans)


def test_an_answer_without_end_is_a_success_all_the_same(slot: SlotWriter, start: Start) -> None:
    marks = slot.write(runs(20))
    with FakeSink([Say(endless=True)]) as fake:
        sinks = start(otlp=to_otlp(fake, batch_size=10))
        wait_until(lambda: sinks.is_caught_up(marks))

        assert fake.taken() == ids(runs(20))


def test_a_server_that_is_down_gets_everything_when_it_is_up(slot: SlotWriter, start: Start) -> None:
    with FakeSink() as gone:
        port = int(gone.url.rpartition(":")[2])
        config = to_otlp(gone)
    slot.write(runs(5))
    sinks = start(otlp=config)
    wait_until(lambda: only(sinks).state == "retrying")
    assert "refused" in only(sinks).error
    assert only(sinks).pending == 5

    with FakeSink(port=port) as fake:
        wait_until(lambda: fake.taken() == ids(runs(5)))


@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_what_an_operator_can_mend_keeps_the_spans_and_is_asked_seldom(
    slot: SlotWriter, start: Start, status: int
) -> None:
    slot.write(runs(5))
    with FakeSink(after=Say(status)) as fake:
        sinks = start(otlp=to_otlp(fake))
        wait_until(lambda: only(sinks).state == "open" and only(sinks).pending == 5)
        for number in range(6, 26):
            slot.write([span(number)])
            sinks.wake()
        wait_until(lambda: only(sinks).pending == 25)

        assert len(fake.received) == 1
        assert f"HTTP {status}" in only(sinks).error
        assert only(sinks).failed == 0


def test_no_secret_is_in_the_status_or_the_log(
    slot: SlotWriter, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SINK_KEY", "key-1234567")
    slot.write(runs(1))
    echo = Say(401, body=b"bad: Bearer key-1234567, s3cret-value")
    with caplog.at_level(logging.DEBUG), FakeSink(after=echo) as fake:
        header = {"x-other": "s3cret-value"}
        sinks = start(
            otlp=to_otlp(fake, api_key_env="SINK_KEY", headers=header),
            illegal=to_otlp(fake, headers={"x-other": "s3cret-value\n"}),
            foreign=to_otlp(fake, headers={"x-other": "s3cret-valüe→"}),
        )
        wait_until(lambda: all(status.error for status in sinks.statuses()))

        shown = repr(sinks.statuses()) + caplog.text
        assert fake.received
        assert "key-1234567" not in shown
        assert "s3cret" not in shown


def test_a_sink_that_cannot_work_says_what_to_do_and_disturbs_no_other(
    slot: SlotWriter, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(otlp, "HAS_PROTOBUF", False)
    marks = slot.write(runs(3))
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake), keyless=to_http(fake, api_key_env="NO_SUCH_KEY"), api=to_http(fake))
        wait_until(lambda: sinks.is_caught_up(marks) and all(status.state for status in sinks.statuses()))

        def waits() -> list[tuple[str, int]]:
            return [(status.state, status.pending) for status in sinks.statuses()]

        wait_until(lambda: waits() == [("failed", 3), ("failed", 3), ("ok", 0)])
        assert "pip install 'headrace[otlp]'" in sinks.statuses()[0].error
        assert "NO_SUCH_KEY" in sinks.statuses()[1].error
        assert sorted(fake.taken()) == ids(runs(3))


def test_a_sink_that_cannot_even_be_made_says_so(
    slot: SlotWriter, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))
    slot.write(runs(3))
    with FakeSink() as fake:
        sinks = start(otlp=to_otlp(fake))

        wait_until(lambda: (only(sinks).state, only(sinks).pending) == ("failed", 3))
