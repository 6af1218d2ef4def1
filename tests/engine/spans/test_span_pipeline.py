"""What the collector promises of the spans that it is given: stored once, or kept by the sender.

And an account that adds up.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigurationError
from headrace.pricing.prices import Price
from headrace.settings.settings import Settings, SinkConfig, SpansConfig
from headrace.spans.redaction import POLICY
from headrace.spans.span import Rank, Span, SpanContent, encode_content, encode_span
from headrace.types import Usage
from headrace.wire.engine_status import UNUSABLE
from headrace.wire.messages import PeerRole
from headrace_engine.spans.span_pipeline import UNREADABLE, SpanPipeline
from headrace_engine.spans.storage.store import StoreError
from tests.engine.spans.test_span_store import kept, rows, span
from tests.engine.spans.test_spool_recovery import locked, spool
from tests.waiting import wait_until


def said(*spans: Span, role: PeerRole = "worker") -> list[tuple[bytes, PeerRole]]:
    return [(encode_span(one), role) for one in spans]


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    return tmp_path / "0"


@pytest.fixture
def pipeline(slot: Path) -> Iterator[SpanPipeline]:
    made = SpanPipeline(slot, Settings())
    yield made
    made.close(0.0)


def break_store(pipeline: SpanPipeline, monkeypatch: pytest.MonkeyPatch, error: StoreError) -> None:
    def fail(*_: object) -> Any:
        raise error

    for name in ("write", "check", "marks"):
        monkeypatch.setattr(pipeline._store, name, fail)


# What is stored.


def test_spans_are_stored_and_a_repeated_one_is_stored_once(pipeline: SpanPipeline, slot: Path) -> None:
    assert pipeline.keep(said(span("sp_1"), span("sp_2")))
    assert pipeline.keep(said(span("sp_2"), span("sp_3")))

    assert sorted(kept(slot)) == ["sp_1", "sp_2", "sp_3"]
    assert pipeline.stored == 3


def test_bytes_that_are_not_a_span_are_counted_and_affect_no_other_span(pipeline: SpanPipeline, slot: Path) -> None:
    garbage: list[tuple[bytes, PeerRole]] = [(b"\xc1", "worker")]
    assert pipeline.keep([*garbage, *said(span("sp_1")), *garbage])

    assert sorted(kept(slot)) == ["sp_1"]
    assert pipeline.totals.dropped() == {UNREADABLE: 2}


def test_a_client_cannot_overrule_what_the_worker_said(pipeline: SpanPipeline, slot: Path) -> None:
    pipeline.keep(said(span("sp_1", status="ok")))
    pipeline.keep(said(span("sp_1", rank=Rank.WORKER, status="error"), role="client"))

    assert kept(slot)["sp_1"].status == "ok"


def test_a_run_has_its_cost(slot: Path) -> None:
    pipeline = SpanPipeline(slot, Settings(prices={"gpt-4o": Price(input=1.0, output=10.0)}))
    pipeline.keep(said(span("sp_1", usage=Usage(100, 20, 120, source="provider"))))
    pipeline.close(0.0)

    (row,) = rows(slot)
    assert row.cost == pytest.approx((100 * 1.0 + 20 * 10.0) / 1e6)


def test_the_content_of_a_client_is_left_out_where_no_content_is_kept(slot: Path) -> None:
    """A worker leaves it out itself."""
    pipeline = SpanPipeline(slot, Settings(spans=SpansConfig(content="none")))
    content = encode_content(SpanContent(text="a secret"))
    pipeline.keep(said(span("sp_1", content=content), role="client"))
    pipeline.close(0.0)

    stored = kept(slot)["sp_1"]
    assert (stored.content, stored.content_note) == (b"", POLICY)


def test_a_redaction_hook_that_does_not_exist_is_an_error_at_the_start(slot: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"spans\.redact"):
        SpanPipeline(slot, Settings(spans=SpansConfig(redact="no_such_module:hook")))


# A store that fails.


def test_spans_that_cannot_be_stored_stay_with_their_sender(
    pipeline: SpanPipeline, slot: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        break_store(pipeline, patch, StoreError("no space left on device", is_full=True))
        assert not pipeline.keep(said(span("sp_1")))
        assert not pipeline.keep(said(span("sp_1")))
    assert (pipeline.state, pipeline.stored) == ("disk full", 0)
    assert "no space left" in pipeline.error
    assert len(caplog.records) == 1, "logged once"

    assert pipeline.keep(said(span("sp_1")))
    assert (pipeline.state, pipeline.error, pipeline.stored) == ("ok", "", 1)


def test_no_call_raises_while_the_store_fails(pipeline: SpanPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    break_store(pipeline, monkeypatch, StoreError("input/output error", is_full=False))
    pipeline.start()
    pipeline.check()

    assert pipeline.marks() is None
    assert pipeline.status(waiting=3).state == "failing"


# Spools of dead workers.


def test_the_spans_of_an_ended_worker_are_stored_and_counted(pipeline: SpanPipeline, slot: Path) -> None:
    spool(slot, "w1-a-1", span("sp_1"), span("sp_2"), tail=b"torn")
    assert pipeline.has_leavings()
    for _ in pipeline.recover():
        pass

    assert not pipeline.has_leavings()
    assert (pipeline.recovered, pipeline.stored) == (2, 2)
    assert pipeline.totals.dropped() == {"torn": 1}


def test_a_spool_that_cannot_be_stored_now_stays_for_the_next_time(
    pipeline: SpanPipeline, slot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spool(slot, "w1-a-1", span("sp_1"))
    with monkeypatch.context() as patch:
        break_store(pipeline, patch, StoreError("no space left on device", is_full=True))
        for _ in pipeline.recover():
            pass
    assert path.exists()
    assert pipeline.state == "disk full"

    for _ in pipeline.recover():
        pass
    assert not path.exists()
    assert sorted(kept(slot)) == ["sp_1"]


def test_a_worker_beside_the_known_ones_is_noticed(pipeline: SpanPipeline, slot: Path) -> None:
    with locked(spool(slot, "w1-a-1", span("sp_1"))):
        assert pipeline.has_writers_beside([0xB])
        assert not pipeline.has_writers_beside([0xA, 0xB])
    assert not pipeline.has_writers_beside([]), "it has ended"


# The account.


def test_without_sinks_everything_that_is_stored_is_delivered(pipeline: SpanPipeline) -> None:
    pipeline.keep([*said(span("sp_1"), span("sp_2")), (b"\xc1", "worker")])
    marks = pipeline.marks()

    assert marks is not None
    assert pipeline.is_delivered(marks)
    assert pipeline.counts(waiting=4) == (2, 4, 1)


def test_a_sink_that_delivers_leaves_nothing_pending(slot: Path, tmp_path: Path) -> None:
    sink = SinkConfig(type="jsonl", path=str(tmp_path / "spans.jsonl"))
    pipeline = SpanPipeline(slot, Settings(sinks={"file": sink}))
    pipeline.start()
    pipeline.keep(said(span("sp_1"), span("sp_2")))
    marks = pipeline.marks()
    assert marks is not None
    pipeline.close(10.0)

    assert len((tmp_path / "spans.jsonl").read_text().splitlines()) == 2
    assert pipeline.is_delivered(marks)


def test_a_sink_that_cannot_work_has_failed_for_every_span(slot: Path) -> None:
    """A flush must not wait for it."""
    sink = SinkConfig(type="http", url="http://127.0.0.1:1", api_key_env="HEADRACE_NO_SUCH_KEY")
    pipeline = SpanPipeline(slot, Settings(sinks={"api": sink}))
    pipeline.start()
    pipeline.keep(said(span("sp_1"), span("sp_2")))
    wait_until(lambda: pipeline.status(waiting=0).sinks[0].state == UNUSABLE)
    counts = pipeline.counts(waiting=0)
    pipeline.close(0.0)

    assert counts == (0, 0, 2)


def test_the_status_says_what_is_stored_and_what_is_lost(pipeline: SpanPipeline, slot: Path) -> None:
    pipeline.keep([*said(span("sp_1")), (b"\xc1", "worker")])
    status = pipeline.status(waiting=5)

    assert (status.directory, status.state, status.stored, status.waiting) == (str(slot), "ok", 1, 5)
    assert (status.dropped, status.error) == ({UNREADABLE: 1}, "")
