"""A worker writes spans before anybody sees the run, sends them until acknowledged, and delays no stream."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.spans.span import BEATEN, CLIENT_LOST, LOST, Rank, decode_content
from headrace.testing import SimulatedProvider
from headrace.wire.messages import Abort, Aborted, Failed, Finished
from tests.waiting import busyness, wait_until
from tests.workers.spans.span_worker import EPOCH, FakeCollector, SpanWorker, collector_for, span_worker


@pytest.fixture
def worker(provider: SimulatedProvider) -> Iterator[SpanWorker]:
    with span_worker(provider) as running:
        yield running


@pytest.fixture
def collector(worker: SpanWorker) -> Iterator[FakeCollector]:
    with collector_for(worker) as running:
        yield running


def test_a_span_is_in_the_spool_when_the_client_hears_of_the_end(worker: SpanWorker) -> None:
    for _ in range(5):
        span_id = worker.run(simulate={"text": "Hello there"}, queued=0.5)
        assert isinstance(worker.terminal(span_id), Finished)

        span = worker.spooled[-1]
        assert (span.span_id, span.rank, span.status, span.queue_seconds) == (span_id, Rank.WORKER, "ok", 0.5)
        assert decode_content(span.content).text == worker.texts[span_id] == "Hello there"


def test_the_span_of_a_hedge_and_of_the_attempt_that_it_beat_are_of_one_run(worker: SpanWorker) -> None:
    first = worker.run(simulate={"silent": True})
    hedge = worker.run(told={"attempt": 2, "span_of": first, "waited_for": "limit"}, simulate={"text": "quick"})
    assert isinstance(worker.terminal(hedge), Finished)
    worker.tell(Abort(first, 1, is_beaten=True))
    assert isinstance(worker.terminal(first), Aborted)

    answered, beaten = worker.spooled[-2:]
    assert (answered.span_id, answered.rank, answered.queue_reason) == (first, Rank.WORKER, "limit")
    assert (beaten.span_id, beaten.rank) == (first, Rank.STUB)
    assert [(one.number, one.is_hedge, one.outcome) for span in (answered, beaten) for one in span.attempts] == [
        (2, True, "ok"),
        (1, False, BEATEN),
    ]


def test_a_stub_is_in_the_spool_when_the_provider_sees_the_request(
    worker: SpanWorker, provider: SimulatedProvider
) -> None:
    span_id = worker.run(simulate={"silent": True})
    wait_until(provider.requests, what="the request")

    (stub,) = worker.spooled
    assert (stub.span_id, stub.rank, stub.error_type) == (span_id, Rank.STUB, LOST)
    assert stub.attempts[0].worker == "w1"


def test_a_killed_worker_leaves_its_spans_and_stubs(worker: SpanWorker) -> None:
    ended = worker.run(simulate={"text": "all"})
    worker.terminal(ended)
    running = worker.run(simulate={"text": "some", "stall_after": 1})
    worker.text(running)
    worker.process.kill()
    worker.process.wait()

    best = {span.span_id: span.rank for span in sorted(worker.spooled, key=lambda span: span.rank)}
    assert best == {ended: Rank.WORKER, running: Rank.STUB}


def test_a_span_comes_to_the_collector_and_leaves_the_spool_once_it_is_acknowledged(
    worker: SpanWorker, collector: FakeCollector
) -> None:
    span_id = worker.run()
    worker.terminal(span_id)
    (span,) = wait_until(lambda: collector.spans, what="the span")
    assert (span.span_id, span.status) == (span_id, "ok")
    assert [(hello.role, hello.name) for hello in collector.hellos] == [("worker", "w1")]
    assert worker.spooled, "not acknowledged yet"

    collector.acknowledge()
    wait_until(lambda: not worker.spooled, what="the spool's end")


def test_a_new_collector_gets_the_unacknowledged_spans(worker: SpanWorker) -> None:
    with collector_for(worker) as first:
        acknowledged = worker.run()
        worker.terminal(acknowledged)
        wait_until(lambda: first.spans, what="the first span")
        first.acknowledge()
        wait_until(lambda: not worker.spooled, what="the spool's end")
        lost = worker.run()
        worker.terminal(lost)
        wait_until(lambda: len(first.spans) == 2, what="the second span")

    with collector_for(worker) as second:
        after = worker.run()
        worker.terminal(after)
        wait_until(lambda: {span.span_id for span in second.spans} == {lost, after}, what="both spans")
        assert len(second.hellos) == 1


def test_spans_from_before_the_first_collector_are_sent_to_it(worker: SpanWorker) -> None:
    ended = {worker.run(simulate={"text": "x" * 2000}) for _ in range(300)}
    for span_id in ended:
        worker.terminal(span_id)

    with collector_for(worker) as collector:

        def have_come() -> bool:
            collector.acknowledge()
            return {span.span_id for span in collector.spans} == ended

        wait_until(have_come, what="all spans")
        assert all(len(batch.spans) <= 256 for batch in collector.batches)


def test_a_flush_is_answered_after_all_that_had_ended(worker: SpanWorker, collector: FakeCollector) -> None:
    for _ in range(3):
        worker.terminal(worker.run())
    wait_until(lambda: collector.spans, what="a first span")
    worker.terminal(worker.run())
    collector.ask_flush(9)

    def is_answered() -> bool:
        collector.poll()
        return bool(collector.flushed)

    wait_until(is_answered, what="the answer")
    assert collector.flushed[0].token == 9
    assert collector.flushed[0].sequence == collector.batches[-1].sequence
    assert len(collector.spans) == 4


def test_a_flood_of_flushes_is_answered_together_and_stops_no_stream(
    worker: SpanWorker, collector: FakeCollector
) -> None:
    """Else each request would wait for the spans before it, and be answered in a frame of its own."""

    def is_stuck() -> bool:
        worker.terminal(worker.run())
        collector.poll()
        return len(collector.batches) >= 8  # none is acknowledged, so no more batches are sent

    wait_until(is_stuck, what="as many batches as may be open")
    worker.terminal(worker.run())
    for start in range(1, 50_000, 1000):
        collector.ask_flush(*range(start, start + 1000))
    worker.terminal(worker.run())

    def is_answered() -> bool:
        collector.acknowledge()
        return bool(collector.flushed) and collector.flushed[-1].token == 50_000

    wait_until(is_answered, what="the answer to the last")
    assert len(collector.flushed) <= 64
    assert [said.token for said in collector.flushed] == sorted(said.token for said in collector.flushed)


def test_an_aborted_run_has_what_was_received(worker: SpanWorker, collector: FakeCollector) -> None:
    span_id = worker.run(simulate={"repeat": 50, "pace": 0.01})
    seen = worker.text(span_id)
    worker.tell(Abort(span_id, 1))
    assert isinstance(worker.terminal(span_id), Aborted)

    (span,) = wait_until(lambda: collector.spans, what="the span")
    assert (span.status, span.usage.source) == ("aborted", "estimated")
    assert decode_content(span.content).text.startswith(seen)
    assert span.attempts[0].maybe_billed


def test_a_run_that_is_aborted_before_its_stub_is_written_is_never_sent(
    worker: SpanWorker, collector: FakeCollector, provider: SimulatedProvider
) -> None:
    span_id = worker.run(is_aborted=True)
    assert isinstance(worker.terminal(span_id), Aborted)

    (span,) = wait_until(lambda: collector.spans, what="the span")
    assert (span.status, span.attempts[0].maybe_billed) == ("aborted", False)
    assert provider.requests() == []


def test_a_run_whose_client_went_away_has_what_was_received(worker: SpanWorker, collector: FakeCollector) -> None:
    span_id = worker.run(simulate={"repeat": 50, "stall_after": 3})
    seen = worker.text(span_id)
    worker.leave()

    (span,) = wait_until(lambda: collector.spans, what="the span")
    assert (span.status, span.error_type) == ("aborted", CLIENT_LOST)
    assert decode_content(span.content).text.startswith(seen)


def test_a_run_that_could_not_be_begun_has_its_span(worker: SpanWorker, collector: FakeCollector) -> None:
    span_id = worker.run(provider="nobody")
    assert isinstance(worker.terminal(span_id), Failed)

    (span,) = wait_until(lambda: collector.spans, what="the span")
    assert (span.span_id, span.error_type) == (span_id, "InvalidRequestError")
    assert decode_content(span.content).messages[0].text == "Hello"


def test_a_run_that_wants_no_span_is_only_counted(worker: SpanWorker, collector: FakeCollector) -> None:
    for _ in range(2):
        worker.terminal(worker.run(send_trace=False))

    def is_told() -> bool:
        collector.poll()
        return bool(collector.batches) and collector.batches[-1].untraced == 2

    wait_until(is_told, what="the count")
    assert collector.spans == []
    assert worker.spooled == []


def test_no_key_is_written(worker: SpanWorker, collector: FakeCollector) -> None:
    span_id = worker.run(simulate={"status": 401, "error_message": "no such key: sk-of-the-caller"})
    worker.terminal(span_id)

    wait_until(lambda: collector.spans, what="the span")
    written = b"".join(path.read_bytes() for path in (worker.slot / "spool").iterdir())
    assert b"sk-of-the-caller" not in written
    assert b"no such key" in written


@pytest.mark.slow
def test_a_worker_that_ends_waits_until_the_collector_has_its_spans(
    worker: SpanWorker, collector: FakeCollector
) -> None:
    worker.terminal(worker.run())
    worker.process.send_signal(signal.SIGTERM)

    def is_gone() -> bool:
        collector.acknowledge()
        return worker.process.poll() is not None

    wait_until(is_gone, what="the worker's end")
    assert len(collector.spans) == 1
    assert list((worker.slot / "spool").iterdir()) == []


@pytest.mark.slow
def test_a_worker_without_a_collector_ends_soon_and_leaves_its_spans(worker: SpanWorker) -> None:
    span_id = worker.run()
    worker.terminal(span_id)
    worker.process.send_signal(signal.SIGTERM)

    assert worker.process.wait(15 * busyness()) == 0
    assert span_id in {span.span_id for span in worker.spooled}


def test_a_disk_that_cannot_be_written_changes_nothing_for_the_client(provider: SimulatedProvider) -> None:
    with span_worker(provider) as worker, collector_for(worker) as collector:
        (worker.slot / "spool").write_text("no directory")
        span_id = worker.run(simulate={"text": "Hello"})
        assert isinstance(worker.terminal(span_id), Finished)
        assert [span.span_id for span in wait_until(lambda: collector.spans, what="the span")] == [span_id]

        (worker.slot / "spool").unlink()

        def is_spooled() -> bool:
            worker.terminal(worker.run())
            return bool(worker.spooled)

        wait_until(is_spooled, what="a span in the spool")


@pytest.mark.slow
def test_spans_without_room_in_memory_and_spool_are_counted(provider: SimulatedProvider, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text("[spans]\nmemory_bytes = 100_000\nspool_bytes = 1_000_000\n")
    with span_worker(provider, HEADRACE_CONFIG=str(config)) as worker:
        ended = {worker.run(simulate={"text": "x" * 20_000}) for _ in range(150)}
        for span_id in ended:
            assert isinstance(worker.terminal(span_id), Finished)
        assert sum(path.stat().st_size for path in (worker.slot / "spool").iterdir()) < 1_100_000

        with collector_for(worker) as collector:

            def have_come() -> bool:
                collector.acknowledge()
                dropped = sum(collector.batches[-1].dropped.values()) if collector.batches else 0
                return dropped > 0 and len({span.span_id for span in collector.spans}) + dropped == len(ended)

            wait_until(have_come, what="each span or its count")


def test_a_redaction_hook_decides_before_anything_is_written(provider: SimulatedProvider, tmp_path: Path) -> None:
    (tmp_path / "hooks_of_a_worker.py").write_text(
        "def hide(content):\n    return {**content, 'messages': [], 'text': content['text'].replace('secret', '[...]')}\n"
    )
    config = tmp_path / "headrace.toml"
    config.write_text('[spans]\nredact = "hooks_of_a_worker:hide"\n')
    environ = {"HEADRACE_CONFIG": str(config), "PYTHONPATH": str(tmp_path)}
    with span_worker(provider, **environ) as worker:
        span_id = worker.run(simulate={"text": "a secret word"})
        worker.terminal(span_id)

        content = decode_content(worker.spooled[-1].content)
        assert (content.text, content.messages) == ("a [...] word", [])
        assert worker.texts[span_id] == "a secret word"


def test_a_hook_that_cannot_be_loaded_is_an_error_at_the_start(provider: SimulatedProvider, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text('[spans]\nredact = "no_such_module_x:hide"\n')
    with span_worker(provider, HEADRACE_CONFIG=str(config)) as worker:
        assert worker.process.wait(15 * busyness()) == 2


def test_a_stopped_collector_does_not_delay_a_stream(worker: SpanWorker, collector: FakeCollector) -> None:
    worker.terminal(worker.run())
    wait_until(lambda: collector.spans, what="the first span")

    began = time.monotonic()
    for _ in range(40):
        worker.terminal(worker.run(simulate={"text": "x" * 1000}))
    assert time.monotonic() - began < 15.0 * busyness()
    assert len(collector.batches) < 20, "it has acknowledged nothing"
    assert worker.process.poll() is None
    assert worker.directory.joinpath(f"w1-{EPOCH:x}").exists()
