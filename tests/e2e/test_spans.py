"""Spans, from a run to the store: every admitted run has one row, however it and whoever took part in it ended."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest

from headrace import (
    Client,
    FlushCounts,
    InvalidRequestError,
    LocalStream,
    RateLimitError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.cli.status_command import engine_status
from headrace.spans.data_directory import database_files, slots
from headrace.spans.span import Rank, decode_content
from headrace.spans.span_database import StoredSpan, from_row, open_for_reading
from headrace.testing import SimulatedProvider
from headrace.wire.messages import Status
from tests.conftest import HELLO, engine_process, processes, simulate
from tests.e2e.engines import running_engine
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MODEL = "gpt-4o"
PATIENCE = 45.0
"""Seconds for what takes one on a machine that has nothing else to do."""

Rows = dict[str, StoredSpan]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the engines of this test a data directory of their own."""
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def engine(data: Path, provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(provider, "--workers", "1") as address:
        yield address


def stored(data: Path) -> Rows:
    """Return what all slots hold, by id; there is one row for each."""
    found: list[StoredSpan] = []
    for slot in slots(data):
        for path in database_files(slot):
            with closing(open_for_reading(path)) as connection:
                found += [from_row(row) for row in connection.execute("SELECT * FROM spans")]
                assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    rows = {row.span.span_id: row for row in found}
    assert len(rows) == len(found)
    return rows


def until(data: Path, is_so: Callable[[Rows], bool], seconds: float = PATIENCE) -> Rows:
    """Wait until what is stored is as asked for; return it."""

    def ranks() -> dict[str, tuple[str, str]]:
        return {name: (row.span.rank.name, row.span.status) for name, row in stored(data).items()}

    wait_until(lambda: is_so(stored(data)), seconds, "what is to be stored", ranks)
    return stored(data)


@contextmanager
def started(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program, which is ended with the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def start(client: Client, **script: object) -> LocalStream:
    return client.run_local(
        model=MODEL,
        messages=HELLO,
        stream=True,
        custom_options=simulate(**({"repeat": 100_000, "pace": 0.01} | script)),
    )


def take(stream: LocalStream, count: int) -> str:
    iterator = iter(stream)
    return "".join(next(iterator) for _ in range(count))


# How runs end.


def test_a_run_that_finished_is_stored_with_all_that_its_caller_knows(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        result = client.run_local(
            model=MODEL, messages=HELLO, temperature=0.5, tags=["a"], user_id="u", session_id="s",
        )  # fmt: skip
        row = until(data, bool)[result.span_id]

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
        row = until(data, bool)[stream.span_id]

    assert (row.span.status, row.span.rank, row.span.streamed) == ("aborted", Rank.WORKER, True)
    assert decode_content(row.span.content).text.startswith(seen)
    assert row.span.first_chunk_seconds is not None


def test_a_run_that_the_provider_refused_is_stored_with_the_error(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        with pytest.raises(RateLimitError) as error:
            client.run_local(model=MODEL, messages=HELLO, custom_options=simulate(status=429))
        row = until(data, bool)[error.value.span_id]

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
        row = until(data, bool)[stream.span_id]

    assert (row.span.status, row.span.error_type) == ("error", "RunTimeoutError")
    assert decode_content(row.span.content).text == error.value.partial_text == "0 1 2 "


def test_a_run_that_wants_no_span_has_none_and_is_counted(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        client.run_local(model=MODEL, messages=HELLO, send_trace=False)
        result = client.run_local(model=MODEL, messages=HELLO)
        aborted = client.run_local(
            model=MODEL, messages=HELLO, stream=True, send_trace=False, custom_options=simulate(repeat=1000, pace=0.01)
        )
        take(aborted, 1)
        aborted.abort()
        aborted.result.result()
        rows = until(data, bool)
        client.flush(PATIENCE)
        status = status_when(engine, lambda status: status.spans is not None and status.spans.untraced == 2)

    assert list(rows) == [result.span_id]
    assert status.spans is not None
    assert (status.spans.stored, status.spans.directory) == (1, str(data / "0"))


def status_when(engine: str, is_so: Callable[[Status], bool]) -> Status:
    """Return the engine's status, once it is as asked for."""

    def status() -> Status:
        return engine_status(engine, PATIENCE)

    return wait_until(lambda: found if is_so(found := status()) else None, PATIENCE, "the status", status)


# Processes that die.


def kill(engine: str, marker: str) -> None:
    """Kill a process of an engine, which may have to come back first."""

    def is_killed() -> bool:
        with suppress(StopIteration):
            os.kill(engine_process(engine, marker), signal.SIGKILL)
            return True
        return False

    wait_until(is_killed, PATIENCE, f"a process {marker}")


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
        rows = until(data, lambda rows: {name: row.span.rank for name, row in rows.items()} == ranks)
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
    with started(program) as process:
        span_id, first = line_of(process).split()
        process.kill()

    row = until(data, lambda rows: span_id in rows and rows[span_id].span.rank == Rank.WORKER)[span_id]
    assert row.span.error_type == "client_lost"
    assert decode_content(row.span.content).text.startswith(first)


def test_a_collector_that_is_killed_again_and_again_loses_nothing(data: Path, engine: str) -> None:
    ids: set[str] = set()
    with Client(engine, connect_timeout=PATIENCE) as client:
        for _ in range(4):
            for _ in range(25):
                ids.add(client.run_local(model=MODEL, messages=HELLO).span_id)
            kill(engine, "headrace_engine collector")
        until(data, lambda rows: rows.keys() >= ids)
        status_when(engine, lambda status: status.leases == 0)

    assert stored(data).keys() == ids
    assert {row.span.status for row in stored(data).values()} == {"ok"}


def test_what_was_running_when_everything_was_killed_is_found_by_the_next_engine(
    data: Path, provider: SimulatedProvider
) -> None:
    program = (
        "import headrace, os\n"
        "client = headrace.Client(connect_timeout=45)\n"
        "hello = [{'role': 'user', 'content': 'Hello'}]\n"
        "for _ in range(10): print(client.run_local(model='gpt-4o', messages=hello).span_id, flush=True)\n"
        "streams = [client.run_local(model='gpt-4o', messages=hello, stream=True,\n"
        "    custom_options={'simulate': {'repeat': 100000, 'pace': 0.01}}) for _ in range(5)]\n"
        "for stream in streams: next(iter(stream)); print(stream.span_id, flush=True)\n"
        "streams[0].result.result()\n"
    )
    with started(program) as process:
        ids = [line_of(process) for _ in range(15)]
        below = descendants(process.pid)
        assert len(below) >= 4
        # The client last: a worker that sees it go has a last word.
        for pid in [*below, process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=PATIENCE) as client:
        ids.append(client.run_local(model=MODEL, messages=HELLO).span_id)
        rows = until(data, lambda rows: rows.keys() >= set(ids))
    assert rows.keys() == set(ids)
    assert [rows[span_id].span.status for span_id in ids] == ["ok"] * 10 + ["error"] * 5 + ["ok"]
    assert {rows[span_id].span.error_type for span_id in ids[10:15]} == {"lost"}
    assert sum(path.stat().st_size for path in data.glob("*/spool/*")) == 0


def descendants(pid: int) -> list[int]:
    known = list(processes())
    below = {pid}
    for _ in range(4):
        below |= {child for child, parent, _ in known if parent in below}
    return sorted(below - {pid})


# Ends.


def test_after_close_the_rows_of_a_programs_own_engine_are_there_at_once(
    data: Path, provider: SimulatedProvider
) -> None:
    program = (
        "import headrace\n"
        "hello = [{'role': 'user', 'content': 'Hello'}]\n"
        "with headrace.Client(connect_timeout=45) as client:\n"
        "    for _ in range(20): print(client.run_local(model='gpt-4o', messages=hello).span_id)\n"
        "    stream = client.run_local(model='gpt-4o', messages=hello, stream=True,\n"
        "        custom_options={'simulate': {'repeat': 100000, 'pace': 0.01}})\n"
        "    print(stream.span_id, next(iter(stream)))\n"
        "print('closed', flush=True)\n"
        "input()\n"
    )
    with started(program) as process:  # the tests' own process has an engine already
        ids = {line_of(process) for _ in range(20)}
        aborted, _, seen = line_of(process).partition(" ")
        assert line_of(process) == "closed"

        # At once; where the machine is busy, the client does not wait for the end of its engine for so long.
        rows = until(data, lambda rows: rows.keys() == ids | {aborted}, busyness() - 1.0)

    row = rows.pop(aborted)
    assert row.span.status == "aborted"
    assert decode_content(row.span.content).text.startswith(seen)
    assert {row.span.status for row in rows.values()} == {"ok"}


def test_an_engine_that_is_told_to_end_stores_what_its_streams_came_to(data: Path, provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "2") as address, Client(address, connect_timeout=PATIENCE) as client:
        streams = [start(client, repeat=30) for _ in range(8)]
        for stream in streams:
            next(iter(stream))
        os.kill(engine_process(address, "headrace_engine --directory"), signal.SIGTERM)
        assert [stream.result.result().finish_reason for stream in streams] == ["stop"] * 8

    assert not list(data.glob("0/*-wal"))
    rows = stored(data)
    assert rows.keys() == {stream.span_id for stream in streams}
    assert {row.span.status for row in rows.values()} == {"ok"}


# Engines.


def test_engines_of_one_user_keep_out_of_each_others_way(data: Path, provider: SimulatedProvider) -> None:
    program = (
        "import headrace, sys\n"
        "with headrace.Client(connect_timeout=45) as client:\n"
        "    for _ in range(20):\n"
        "        result = client.run_local(model='gpt-4o', messages=[{'role': 'user', 'content': 'Hello'}])\n"
        "        print(result.span_id, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with ExitStack() as stack:
        running = [stack.enter_context(started(program)) for _ in range(3)]
        ids = {line_of(process) for process in running for _ in range(20)}
        assert [slot.name for slot in slots(data)] == ["0", "1", "2"]
        for process in running:
            process.communicate("")
            assert process.returncode == 0

    assert stored(data).keys() == ids
    with Client(connect_timeout=PATIENCE) as client:
        client.run_local(model=MODEL, messages=HELLO)
    assert [slot.name for slot in slots(data)] == ["0", "1", "2"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in data.rglob("*") if path.is_file()} == {0o600}


def test_an_engine_whose_spans_cannot_be_kept_runs_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: SimulatedProvider
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=PATIENCE) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
        status = status_when(address, lambda status: len(status.processes) == 3)
        flushed = client.flush(PATIENCE)

    (collector,) = [process for process in status.processes if process.name == "collector"]
    assert (collector.state, collector.pid, "700" in collector.reason) == ("off", None, True)
    assert flushed == FlushCounts(0, 0, 1)
    assert list((tmp_path / "data").iterdir()) == []


def test_an_engine_keeps_no_spans_where_the_settings_say_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: SimulatedProvider
) -> None:
    (tmp_path / "headrace.toml").write_text("[spans]\nenabled = false\n")
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "headrace.toml"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=PATIENCE) as client:
        assert client.run_local(model=MODEL, messages=HELLO).text
        status = status_when(address, lambda status: len(status.processes) == 2)
        assert client.flush(PATIENCE) == FlushCounts(0, 0, 0)

    assert status.spans is None
    assert not data.exists()


def test_a_collector_that_cannot_start_does_not_end_the_engine(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        for _ in range(5):
            kill(engine, "headrace_engine collector")
        result = client.run_local(model=MODEL, messages=HELLO)
        assert result.span_id in until(data, bool)


# Flush.


def test_a_flush_has_everything_stored_and_says_how_much(data: Path, engine: str) -> None:
    with Client(engine, connect_timeout=PATIENCE) as client:
        ids = {client.run_local(model=MODEL, messages=HELLO).span_id for _ in range(30)}
        assert client.flush(PATIENCE) == FlushCounts(delivered=30, pending=0, failed=0)
        assert stored(data).keys() == ids

        async def main() -> FlushCounts:
            await client.arun_local(model=MODEL, messages=HELLO)
            return await client.aflush(timeout=10)

        assert asyncio.run(main()).delivered == 31


@pytest.mark.parametrize("timeout", [None, "5", True, -1, float("nan"), float("inf"), 2**70, 1e20])
def test_a_flush_takes_seconds_and_harms_no_run_beside_it(client: Client, timeout: object) -> None:
    with client.run_local(
        model=MODEL, messages=HELLO, custom_options=simulate(repeat=3, pace=0.05), stream=True
    ) as stream:
        with pytest.raises(InvalidRequestError, match=r"^timeout: takes "):
            client.flush(timeout)  # type: ignore[arg-type]

        assert "".join(stream) == "0 1 2 "
    assert client.flush(20).pending == 0


def test_a_flush_waits_for_the_sinks(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, provider: SimulatedProvider
) -> None:
    lines = tmp_path / "spans.jsonl"
    (tmp_path / "headrace.toml").write_text(f'[sinks.lines]\ntype = "jsonl"\npath = "{lines}"\n')
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "headrace.toml"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=PATIENCE) as client:
        ids = [client.run_local(model=MODEL, messages=HELLO).span_id for _ in range(10)]
        assert client.flush(20) == FlushCounts(delivered=10, pending=0, failed=0)
        written = [json.loads(line) for line in lines.read_text().splitlines()]
        status_when(
            address,
            lambda status: (
                status.spans is not None
                and [(sink.name, sink.state, sink.delivered) for sink in status.spans.sinks] == [("lines", "ok", 10)]
            ),
        )

    assert [line["span_id"] for line in written] == ids


def test_a_flush_starts_no_engine(data: Path) -> None:
    with started("import headrace; print(headrace.Client().flush())") as process:
        assert line_of(process) == repr(FlushCounts(0, 0, 0))

    assert not data.exists()


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
