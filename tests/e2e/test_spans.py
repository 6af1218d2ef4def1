"""Spans, from a run to the store: every admitted run has one row, however it and whoever took part in it ended."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import (
    Client,
    FlushCounts,
    InvalidRequestError,
    RateLimitError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.cli.status_command import engine_status
from headrace.spans.span import Rank, decode_content
from headrace.testing import SimulatedProvider
from headrace.wire.messages import Status
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import start
from tests.e2e.spans_of_runs import (
    MODEL,
    PATIENCE,
    kill,
    line_of,
    running_program,
    status_when,
    stored,
    stored_span,
    take,
    until,
)
from tests.waiting import busyness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the engine of these tests a data directory of its own, and a sink that writes lines."""
    folder = tmp_path_factory.mktemp("spans")
    (folder / "headrace.toml").write_text(f'[sinks.lines]\ntype = "jsonl"\npath = "{folder / "spans.jsonl"}"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADRACE_DATA", str(folder / "data"))
        patch.setenv("HEADRACE_CONFIG", str(folder / "headrace.toml"))
        yield folder / "data"


@pytest.fixture(scope="module")
def shared_engine(data: Path, session_provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(session_provider, "--workers", "1") as address:
        yield address


@pytest.fixture
def engine(shared_engine: str, provider: SimulatedProvider) -> str:
    """Return the engine of all these tests; its provider knows of no earlier request."""
    return shared_engine


# How runs end.


def test_a_run_that_finished_is_stored_with_all_that_its_caller_knows(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        result = client.run_local(
            model=MODEL, messages=HELLO, temperature=0.5, tags=["a"], user_id="u", session_id="s",
        )  # fmt: skip
        row = stored_span(data, result.span_id)

    span = row.span
    assert (span.status, span.rank, span.provider, span.trace_id) == ("ok", Rank.WORKER, "openai", result.trace_id)
    assert (span.usage, row.cost, span.finish_reason) == (result.usage, result.cost, result.finish_reason)
    assert row.cost is not None
    assert row.cost > 0
    assert (span.tags, span.user_id, span.session_id, span.parameters) == (["a"], "u", "s", {"temperature": 0.5})
    content = decode_content(span.content)
    assert (content.text, content.messages[0].text) == (result.text, "Hello")
    assert abs(span.ended_at - time.time()) < 30
    assert 0 < span.queue_seconds <= span.duration_seconds < 30
    assert [(attempt.number, attempt.worker, attempt.outcome) for attempt in span.attempts] == [(1, "w1", "ok")]


def test_an_aborted_stream_is_stored_with_what_its_caller_saw(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        stream = start(client)
        seen = take(stream, 5)
        stream.abort()
        assert stream.result.result().aborted
        row = stored_span(data, stream.span_id)

    assert (row.span.status, row.span.rank, row.span.streamed) == ("aborted", Rank.WORKER, True)
    assert decode_content(row.span.content).text.startswith(seen)
    assert row.span.first_chunk_seconds is not None


def test_a_run_that_the_provider_refused_is_stored_with_the_error(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        with pytest.raises(RateLimitError) as error:
            client.run_local(model=MODEL, messages=HELLO, custom_options=simulate(status=429))
        row = stored_span(data, error.value.span_id)

    assert (row.span.status, row.span.error_type) == ("error", "RateLimitError")
    assert (row.span.attempts[0].status_code, row.cost) == (429, None)


def test_a_run_that_ran_out_of_time_is_stored_with_its_text(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        stream = client.run_local(
            model=MODEL, messages=HELLO, stream=True, idle_timeout_ms=1000,
            custom_options=simulate(repeat=10, stall_after=3),
        )  # fmt: skip
        with pytest.raises(RunTimeoutError) as error:
            list(stream)
        row = stored_span(data, stream.span_id)

    assert (row.span.status, row.span.error_type) == ("error", "RunTimeoutError")
    assert decode_content(row.span.content).text == error.value.partial_text == "0 1 2 "


def test_a_run_that_wants_no_span_has_none_and_is_counted(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        client.flush(PATIENCE)
        ids, before = stored(data).keys(), status_when(engine, lambda status: status.spans is not None).spans
        assert before is not None
        client.run_local(model=MODEL, messages=HELLO, send_trace=False)
        result = client.run_local(model=MODEL, messages=HELLO)
        aborted = client.run_local(
            model=MODEL, messages=HELLO, stream=True, send_trace=False, custom_options=simulate(repeat=1000, pace=0.01)
        )
        take(aborted, 1)
        aborted.abort()
        aborted.result.result()
        stored_span(data, result.span_id)
        client.flush(PATIENCE)
        untraced = before.untraced + 2
        status = status_when(engine, lambda status: status.spans is not None and status.spans.untraced == untraced)

    assert stored(data).keys() - ids == {result.span_id}
    assert status.spans is not None
    assert (status.spans.stored, status.spans.directory) == (before.stored + 1, str(data / "0"))


# Processes that die.


def test_a_lost_worker_leaves_the_text_that_its_caller_saw(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        stream = start(client)
        iterator = iter(stream)
        seen = next(iterator)
        kill(engine, "-m headrace_workers")
        with pytest.raises(WorkerLostError) as error:
            seen += "".join(iterator)
        again = client.run_local(model=MODEL, messages=HELLO)
        ranks = {stream.span_id: Rank.CLIENT, again.span_id: Rank.WORKER}
        rows = until(data, lambda rows: {name: row.span.rank for name, row in rows.items() if name in ranks} == ranks)
        row = rows[stream.span_id]

    assert (row.span.status, row.span.error_type) == ("error", "WorkerLostError")
    assert decode_content(row.span.content).text == error.value.partial_text
    assert error.value.partial_text.startswith(seen)
    assert row.span.attempts[0].maybe_billed
    assert (row.span.trace_id, rows[again.span_id].span.status) == (stream.trace_id, "ok")


def test_a_run_that_moved_on_has_both_attempts_in_one_row(data: Path, engine: str, provider: SimulatedProvider) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        stream = start(client, repeat=3, first_token_delay=busyness())
        provider.wait_until(len)  # a run that no worker has had yet makes no attempt
        kill(engine, "-m headrace_workers")
        assert stream.result.result().attempts == 2
        row = until(
            data, lambda rows: stream.span_id in rows and len(rows[stream.span_id].span.attempts) == 2
        )[stream.span_id]  # fmt: skip

    assert (row.span.status, row.span.rank) == ("ok", Rank.WORKER)
    assert [(attempt.number, attempt.outcome) for attempt in row.span.attempts] == [(1, "lost"), (2, "ok")]


def test_a_client_that_is_killed_leaves_its_run_on_record(data: Path, engine: str, provider: SimulatedProvider) -> None:
    program = (
        "from headrace import Client\n"
        f"stream = Client({engine!r}, connect_timeout=45).run_local(model='gpt-4o', messages=[{{'role': 'user', 'content': 'Hello'}}],\n"
        "    stream=True, custom_options={'simulate': {'repeat': 100000, 'pace': 0.01}})\n"
        "iterator = iter(stream)\n"
        "print(stream.span_id, next(iterator), flush=True)\n"
        "list(iterator)"
    )
    with running_program(program) as process:
        span_id, first = line_of(process).split()
        process.kill()

    row = until(data, lambda rows: span_id in rows and rows[span_id].span.rank == Rank.WORKER)[span_id]
    assert row.span.error_type == "client_lost"
    assert decode_content(row.span.content).text.startswith(first)


# Flush.


def test_a_flush_has_everything_stored_and_says_how_much(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        before, earlier = client.flush(PATIENCE), stored(data).keys()
        ids = {client.run_local(model=MODEL, messages=HELLO).span_id for _ in range(30)}
        assert client.flush(PATIENCE) == FlushCounts(delivered=before.delivered + 30, pending=0, failed=before.failed)
        assert stored(data).keys() - earlier == ids

        async def main() -> FlushCounts:
            await client.arun_local(model=MODEL, messages=HELLO)
            return await client.aflush(timeout=10)

        assert asyncio.run(main()).delivered == before.delivered + 31


@pytest.mark.parametrize("timeout", [None, "5", True, -1, float("nan"), float("inf"), 2**70, 1e20])
def test_a_flush_takes_seconds_and_harms_no_run_beside_it(engine: str, timeout: object) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        with start(client, repeat=3, pace=0.05) as stream:
            with pytest.raises(InvalidRequestError, match=r"^timeout: takes "):
                client.flush(timeout)  # type: ignore[arg-type]

            assert "".join(stream) == "0 1 2 "
        assert client.flush(20).pending == 0


def test_a_flush_waits_for_the_sinks(data: Path, engine: str) -> None:
    def delivered(status: Status) -> list[tuple[str, str, int]]:
        sinks = status.spans.sinks if status.spans is not None else []
        return [(sink.name, sink.state, sink.delivered) for sink in sinks]

    with Client(engine, connect_timeout=PATIENCE) as client:
        before = client.flush(PATIENCE)
        [(_, _, earlier)] = delivered(engine_status(engine, PATIENCE))
        ids = [client.run_local(model=MODEL, messages=HELLO).span_id for _ in range(10)]
        assert client.flush(20) == FlushCounts(delivered=before.delivered + 10, pending=0, failed=before.failed)
        written = [json.loads(line) for line in data.with_name("spans.jsonl").read_text().splitlines()]
        status_when(engine, lambda status: delivered(status) == [("lines", "ok", earlier + 10)])

    assert [line["span_id"] for line in written][-10:] == ids


# Traces of others.


def test_a_run_hangs_in_the_trace_of_its_caller(data: Path, engine: str) -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    context = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False, trace.TraceFlags(1))
    with Client(engine, connect_timeout=PATIENCE) as client:
        with trace.use_span(trace.NonRecordingSpan(context)):
            inside = client.run_local(model=MODEL, messages=HELLO)
        outside = client.run_local(model=MODEL, messages=HELLO)
        client.flush(PATIENCE)

    rows = stored(data)
    assert rows[inside.span_id].span.traceparent == "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert rows[outside.span_id].span.traceparent is None
