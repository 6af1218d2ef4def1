"""Spans and engines: what the end of an engine stores, what the next one finds, and what engines share."""

from __future__ import annotations

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from headrace import Client, FlushCounts
from headrace.spans.data_directory import slots
from headrace.spans.span import decode_content
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process, processes
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
    until,
)
from tests.repetition import repeated
from tests.waiting import busyness

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the engines of this test a data directory of their own."""
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


# Processes that die.


def test_a_collector_that_is_killed_again_and_again_loses_nothing_and_ends_no_engine(
    data: Path, provider: SimulatedProvider
) -> None:
    ids: set[str] = set()
    with (
        running_engine(provider, "--workers", "1") as engine,
        Client(engine, connect_timeout=PATIENCE) as client,
    ):
        for _ in range(repeated(2, 4)):
            for _ in range(25):
                ids.add(client.run_local(model=MODEL, messages=HELLO).span_id)
            kill(engine, "headrace_engine collector")
        until(data, lambda rows: rows.keys() >= ids)
        status_when(engine, lambda status: status.leases == 0)
        assert stored(data).keys() == ids

        for _ in range(5):  # as if it could not start
            kill(engine, "headrace_engine collector")
        ids.add(client.run_local(model=MODEL, messages=HELLO).span_id)
        until(data, lambda rows: rows.keys() >= ids)

    assert stored(data).keys() == ids
    assert {row.span.status for row in stored(data).values()} == {"ok"}


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let programs make the folders of their engines in one that is removed: a killed engine leaves its folder."""
    with tempfile.TemporaryDirectory(prefix="hr-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield


@pytest.mark.usefixtures("swept")
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
    with running_program(program) as process:
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
    with running_program(program) as process:  # the tests' own process has an engine already
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
    count = repeated(2, 3)
    names = [str(number) for number in range(count)]
    with ExitStack() as stack:
        running = [stack.enter_context(running_program(program)) for _ in range(count)]
        ids = {line_of(process) for process in running for _ in range(20)}
        assert [slot.name for slot in slots(data)] == names
        for process in running:
            process.communicate("")
            assert process.returncode == 0

    assert stored(data).keys() == ids
    with Client(connect_timeout=PATIENCE) as client:
        client.run_local(model=MODEL, messages=HELLO)
    assert [slot.name for slot in slots(data)] == names
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


def test_a_flush_starts_no_engine(data: Path) -> None:
    with running_program("import headrace; print(headrace.Client().flush())") as process:
        assert line_of(process) == repr(FlushCounts(0, 0, 0))

    assert not data.exists()
