"""What a worker's tracer promises, with a fake collector.

Written before it is seen, sent until acknowledged, never in the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.settings.settings import SpansConfig
from headrace.spans.span import Rank, Span, decode_span
from headrace.spans.spool_format import read_records
from headrace.text.secret_mask import SecretMask
from headrace.types import Message, Usage
from headrace.wire.codec import encode_request
from headrace.wire.messages import (
    Failed,
    Finished,
    Flushed,
    FlushRequest,
    Hello,
    Run,
    SpanAck,
    SpanBatch,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.spans.run_span import EndedRun
from headrace_workers.spans.tracer import FAILED, SEND_AT, OpenSpan, Tracer, TracerSettings

EPOCH = 7


class FakeTimer:
    """A timer that rings when the test says so."""

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class FakeLoop:
    """A loop in which the test ends each turn, and has timers ring."""

    def __init__(self) -> None:
        self.turn: list[Callable[[], None]] = []
        self.timers: list[FakeTimer] = []

    def call_soon(self, action: Callable[[], None]) -> None:
        self.turn.append(action)

    def call_later(self, _delay: float, action: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(action)
        self.timers.append(timer)
        return timer

    def end_turn(self) -> None:
        actions, self.turn = self.turn, []
        for action in actions:
            action()

    def ring(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            if not timer.is_cancelled:
                timer.action()


class FakeLink:
    """In place of the link to the collector: keeps what was sent while it is open."""

    def __init__(self) -> None:
        self.is_open = True
        self.sent: list[SpanBatch | Flushed] = []

    def send(self, messages: Sequence[SpanBatch | Flushed]) -> None:
        assert self.is_open
        self.sent += messages

    def close(self) -> None:
        self.is_open = False


class TracedWorker:
    """A tracer with a fake loop and a fake collector. The test is the runs, and the collector."""

    def __init__(self, slot: Path, loop: Any = None, **config: Any) -> None:
        self.slot = slot
        self.loop = FakeLoop()
        self.link = FakeLink()
        settings = TracerSettings(slot=slot, endpoint="ipc://collector", worker="w1", epoch=EPOCH)
        hello = Hello("worker", 1, 1)
        self.tracer = Tracer(settings, SpansConfig(**config), lambda: hello, cast("Any", loop or self.loop))
        self.tracer._link = cast("Any", self.link)
        self._count = 0

    def request(self, **fields: Any) -> RunRequest:
        given: dict[str, Any] = {"messages": [Message("user", "Hello")], "stream": True}
        return RunRequest(provider="openai", model="gpt-4o", **given | fields)

    def run(self, request: RunRequest) -> Run:
        self._count += 1
        return Run(f"sp_{self._count:016x}", 1, EPOCH, encode_request(request), 1, 1)

    def begin(self, **fields: Any) -> OpenSpan | None:
        request = self.request(**fields)
        return self.tracer.begin(self.run(request), request)

    def end(self, span: OpenSpan | None) -> None:
        assert span is not None
        self.tracer.end(span, lambda: ended_run(self.request()))

    def runs(self, count: int) -> None:
        for _ in range(count):
            self.end(self.begin())

    @property
    def spooled(self) -> list[Span]:
        """Return the spans on the disk."""
        paths = sorted((self.slot / "spool").glob("*.spool"))
        return [decode_span(record) for path in paths for record in read_records(path.read_bytes())]

    @property
    def batches(self) -> list[SpanBatch]:
        return [message for message in self.link.sent if isinstance(message, SpanBatch)]

    @property
    def sent(self) -> list[str]:
        """Return the ids of the spans that were sent, in their order."""
        return [decode_span(data).span_id for batch in self.batches for data in batch.spans]


def ended_run(request: RunRequest) -> EndedRun:
    return EndedRun(
        request=request,
        terminal=Finished("sp", 1, 0, 0, "stop", "stop", Usage(), [], "gpt-4o"),
        headers_at=None,
        content_at=None,
        status_code=200,
        request_id=None,
        response_id=None,
        maybe_billed=True,
        usage=Usage(),
        received=None,
        mask=SecretMask([]),
    )


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[TracedWorker]:
    made = TracedWorker(tmp_path)
    yield made
    made.tracer._spool.close()


class Starts:
    """A run that waits until its stub is on the disk."""

    def __init__(self, worker: TracedWorker) -> None:
        self._worker = worker
        self.spooled: list[Rank] | None = None

    def start_now(self) -> None:
        self.spooled = [span.rank for span in self._worker.spooled]


# Written before anybody can see it.


def test_a_run_starts_once_its_stub_is_on_the_disk(worker: TracedWorker) -> None:
    worker.begin()
    run = Starts(worker)
    worker.tracer.start(run)
    assert run.spooled is None

    worker.loop.end_turn()
    assert run.spooled == [Rank.STUB]


def test_the_runs_of_one_turn_are_written_together(worker: TracedWorker) -> None:
    for _ in range(3):
        worker.begin()
    assert len(worker.loop.turn) == 1
    worker.loop.end_turn()

    assert [span.rank for span in worker.spooled] == [Rank.STUB] * 3


def test_a_span_is_on_the_disk_after_its_commit_whether_or_not_there_is_a_collector(worker: TracedWorker) -> None:
    worker.link.is_open = False
    worker.runs(1)
    worker.tracer.commit()

    assert [span.rank for span in worker.spooled] == [Rank.WORKER]
    assert not worker.tracer.is_idle


def test_a_run_starts_though_its_stub_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file, where the folder should be")
    worker = TracedWorker(tmp_path)
    worker.begin()
    run = Starts(worker)
    worker.tracer.start(run)
    worker.loop.end_turn()

    assert run.spooled == []


# Sent until it is acknowledged.


def test_spans_wait_a_moment_for_others_and_leave_together(worker: TracedWorker) -> None:
    worker.runs(2)
    worker.tracer.commit()
    worker.runs(1)
    worker.tracer.commit()
    assert worker.sent == []

    worker.loop.ring()
    assert [len(batch.spans) for batch in worker.batches] == [3]


def test_many_spans_wait_no_longer(worker: TracedWorker) -> None:
    worker.runs(SEND_AT)
    worker.tracer.commit()

    assert len(worker.sent) == SEND_AT
    worker.loop.ring()
    assert len(worker.sent) == SEND_AT


def test_the_next_collector_gets_again_what_the_last_one_did_not_acknowledge(worker: TracedWorker) -> None:
    worker.runs(SEND_AT)
    worker.tracer.commit()
    worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
    worker.runs(SEND_AT)
    worker.tracer.commit()
    not_acknowledged = worker.sent[SEND_AT:]
    worker.link.sent.clear()

    worker.tracer.link_opened()

    assert worker.sent == not_acknowledged
    worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
    assert worker.tracer.is_idle


def test_acknowledged_spans_leave_the_disk_and_others_stay(worker: TracedWorker) -> None:
    worker.runs(SEND_AT)
    worker.tracer.commit()
    assert len(worker.spooled) == SEND_AT
    worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
    assert worker.spooled == []

    open_span = worker.begin()
    worker.tracer.commit()
    worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
    assert [span.rank for span in worker.spooled] == [Rank.STUB], "its run has not ended"
    worker.end(open_span)


# A flush.


def test_a_flush_is_answered_after_all_that_had_ended_before_it(worker: TracedWorker) -> None:
    worker.runs(3)
    worker.tracer.flush_asked(FlushRequest(11))

    batch, answer = worker.link.sent
    assert isinstance(batch, SpanBatch)
    assert len(batch.spans) == 3
    assert answer == Flushed(11, batch.sequence)


def test_a_flush_waits_while_the_collector_takes_no_further_batch(worker: TracedWorker) -> None:
    """At most eight batches are on their way."""
    for _ in range(9):
        worker.runs(SEND_AT)
        worker.tracer.commit()
    worker.tracer.flush_asked(FlushRequest(11))
    assert not any(isinstance(message, Flushed) for message in worker.link.sent)

    worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
    assert worker.link.sent[-1] == Flushed(11, worker.batches[-1].sequence)


def test_many_flushes_are_answered_with_the_last_one(worker: TracedWorker) -> None:
    worker.link.is_open = False
    worker.runs(1)
    for token in range(1000):
        worker.tracer.flush_asked(FlushRequest(token))
    worker.link.is_open = True
    worker.tracer._send()

    assert [message.token for message in worker.link.sent if isinstance(message, Flushed)] == [999]


def test_a_new_collector_is_not_answered_a_question_of_the_last_one(worker: TracedWorker) -> None:
    worker.link.is_open = False
    worker.tracer.flush_asked(FlushRequest(11))
    worker.link.is_open = True
    worker.tracer.link_opened()

    assert worker.link.sent == []


# Never in a run's way.


def test_a_run_that_is_not_to_be_traced_is_only_counted(worker: TracedWorker) -> None:
    assert worker.begin(send_trace=False) is None
    worker.loop.end_turn()
    assert worker.spooled == []

    worker.tracer.beat()
    assert [(batch.spans, batch.untraced) for batch in worker.batches] == [([], 1)]
    worker.tracer.beat()
    assert len(worker.batches) == 1, "nothing has changed"


def test_a_run_without_a_stub_is_counted_and_goes_on(worker: TracedWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Span:
        raise ValueError("a fault of ours")

    monkeypatch.setattr("headrace_workers.spans.tracer.begun_span", fail)
    assert worker.begin() is None

    worker.tracer.beat()
    assert worker.batches[-1].dropped == {FAILED: 1}


def test_a_run_of_which_no_span_can_be_made_keeps_its_stub(worker: TracedWorker) -> None:
    def fail() -> EndedRun:
        raise ValueError("a fault of ours")

    span = worker.begin()
    assert span is not None
    worker.tracer.end(span, fail)
    worker.tracer.flush_asked(FlushRequest(1))

    (data,) = worker.batches[0].spans
    assert decode_span(data).rank is Rank.STUB


@pytest.mark.parametrize(
    ("kind", "is_recorded"), [("invalid_request", True), ("duplicate_span_id", False), ("worker_stopping", False)]
)
def test_a_refused_run_has_a_span_unless_another_worker_may_have_the_run(
    worker: TracedWorker, kind: Any, is_recorded: bool
) -> None:
    run = worker.run(worker.request())
    worker.tracer.refuse(run, Failed(run.span_id, 1, 0, kind, "why"))
    worker.tracer.flush_asked(FlushRequest(1))

    assert worker.sent == ([run.span_id] if is_recorded else [])


def test_a_request_that_cannot_be_read_has_no_span(worker: TracedWorker) -> None:
    worker.tracer.refuse(Run("sp_1", 1, EPOCH, b"\xc1", 1, 1), Failed("sp_1", 1, 0, "invalid_request", "why"))

    assert worker.tracer.is_idle


def test_without_room_on_the_disk_and_in_memory_the_oldest_spans_are_dropped_and_counted(tmp_path: Path) -> None:
    worker = TracedWorker(tmp_path, memory_bytes=2000, spool_bytes=0)
    worker.link.is_open = False
    worker.runs(20)
    worker.tracer.commit()
    worker.link.is_open = True
    worker.tracer.link_opened()

    kept, dropped = len(worker.sent), worker.batches[-1].dropped
    assert 0 < kept < 20
    assert sum(dropped.values()) == 20 - kept
    assert worker.sent == [f"sp_{number:016x}" for number in range(21 - kept, 21)]


# The end of the worker.


def test_a_worker_that_ends_waits_until_the_collector_has_its_spans(tmp_path: Path) -> None:
    async def main() -> None:
        worker = TracedWorker(tmp_path, asyncio.get_running_loop())
        worker.runs(1)
        closing = asyncio.ensure_future(worker.tracer.close())
        await asyncio.sleep(0)
        assert len(worker.sent) == 1
        assert not closing.done()
        worker.tracer.acknowledged(SpanAck(worker.batches[-1].sequence))
        await closing
        assert worker.tracer.is_idle
        assert not worker.link.is_open

    asyncio.run(main())
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_worker_without_a_collector_leaves_its_spans_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_workers.spans.tracer.CLOSE_TIMEOUT", 0.01)

    async def main() -> None:
        worker = TracedWorker(tmp_path, asyncio.get_running_loop())
        worker.link.is_open = False
        worker.runs(1)
        await worker.tracer.close()

    asyncio.run(main())
    assert [span.rank for span in TracedWorker(tmp_path).spooled] == [Rank.WORKER]
