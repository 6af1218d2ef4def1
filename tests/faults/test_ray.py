"""A Ray cluster of two nodes: an actor is killed, no row is lost or called again, and all engines share one limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.batch.row import Row
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_reader import RowReader
from headrace.ray.stage_journal import row_key
from headrace.testing import RequestRecord, Script, SimulatedProvider
from tests.conftest import ROOT
from tests.faults.flows import most_within
from tests.faults.ray_cluster import RayCluster, running_cluster
from tests.redis_server import RedisServer, needs_redis
from tests.repetition import is_long, long_test, repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), needs_redis]

KILLS = repeated(1, 3)
ROWS, MORE = 400, 1000
PER_MINUTE = 800
"""All engines together. In the long form they would send more: two new ones 320 at once and 21 a second, each for itself."""
LIMITED_FOR = 40.0  # seconds
PROMPT = "Say {id}"
CONFIG = """
[budget]
url = "{url}"
engines = 2

[limits.openai]
requests_per_minute = {per_minute}

[engine]
workers = 1
"""


class _Line(msgspec.Struct):
    key: str


def recorded(journal: Path) -> set[str]:
    """Return the keys of all whole lines."""
    lines = [line for file in journal.glob("*.jsonl") for line in file.read_bytes().split(b"\n")[:-1]]
    return {msgspec.json.decode(line, type=_Line).key for line in lines}


def prompts() -> dict[str, str]:
    """Return the key in the journal → the prompt."""
    reader = RowReader(RowOptions(model="gpt-4o", prompt=PROMPT))
    rows = [reader.read_record(1, {"id": number}) for number in range(ROWS)]
    return {row_key(number, row.hash).hex(): f"Say {number}" for number, row in enumerate(rows) if isinstance(row, Row)}


def prompt_of(record: RequestRecord) -> str:
    return str(record.body["messages"][-1]["content"])


def wait_for_rows(journal: Path, lines: int) -> None:
    wait_until(lambda: len(recorded(journal)) >= lines, timeout=60, what=f"{lines} rows are recorded")


def kill_an_actor(journal: Path) -> set[str]:
    """Kill an actor that has written. Return what was recorded by then."""
    pids = [int(file.name.split("-")[-2]) for file in journal.glob("*.jsonl") if file.stat().st_size]
    os.kill(next(pid for pid in pids if Path(f"/proc/{pid}").exists()), signal.SIGKILL)
    return recorded(journal)


def engines_in(store: RedisServer) -> set[bytes]:
    """Return the engines that have told the store what they sent."""
    redis = pytest.importorskip("redis")
    with redis.Redis.from_url(store.url) as connection:
        fields = [field for key in connection.scan_iter() for field in connection.hkeys(key)]
    return {field for field in fields if field.startswith(b"e:")}


class Jobs:
    """The program that runs jobs on a cluster."""

    def __init__(self, cluster: RayCluster) -> None:
        command = [sys.executable, str(Path(__file__).parent / "ray_program.py"), cluster.address]
        self._process = subprocess.Popen(
            command, env=cluster.environment, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, **job: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job, default=str) + "\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until a job has ended."""
        assert self._process.stdout is not None
        assert "done\n" in iter(self._process.stdout.readline, "")  # Ray prints there too

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def running_jobs(folder: Path, config: str, provider: SimulatedProvider) -> Iterator[Jobs]:
    (folder / "headrace.toml").write_text(config)
    files = {"HEADRACE_CONFIG": str(folder / "headrace.toml"), "HEADRACE_DATA": str(folder / "data")}
    with running_cluster(provider.environment | files) as cluster:
        jobs = Jobs(cluster)
        try:
            yield jobs
        finally:
            jobs.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="rb") as name:
        yield Path(name)


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(Script(text="said", first_token_delay=0.3), process=True) as provider:
        yield provider


def use_up_the_limit(jobs: Jobs, folder: Path, provider: SimulatedProvider) -> None:
    """Ask new actors for more than the limit lets go within the minute."""
    count = len(provider.requests())
    jobs.start(rows=MORE, stage={"prompt": "Tell {id}"}, output=folder / "more.parquet")
    records = provider.wait_until(lambda records: len(records) > count, 60 * busyness())
    until = records[count].arrived_at + LIMITED_FOR
    wait_until(lambda: time.monotonic() > until, 2 * LIMITED_FOR, "the limit was kept for some seconds")


@pytest.mark.tries(KILLS)
def test_rows_survive_killed_actors_and_all_engines_share_a_limit(
    folder: Path, provider: SimulatedProvider, redis_server: RedisServer
) -> None:
    config = CONFIG.format(url=redis_server.url, per_minute=PER_MINUTE)
    with running_jobs(folder, config, provider) as jobs:
        stage = {"prompt": PROMPT, "id_column": "id", "journal": folder / "journal"}
        jobs.start(rows=ROWS, stage=stage, output=folder / "out.parquet")
        finished: list[tuple[set[str], Counter[str]]] = []
        engines: set[bytes] = set()
        for count in range(1, KILLS + 1):
            wait_for_rows(folder / "journal", ROWS * count // 5)
            engines |= engines_in(redis_server)
            keys = kill_an_actor(folder / "journal")
            finished.append((keys, Counter(map(prompt_of, provider.requests()))))
        jobs.wait()
        engines |= engines_in(redis_server)
        written = pq.read_table(folder / "out.parquet").to_pylist()
        counts = Counter(map(prompt_of, provider.requests()))
        if is_long():
            use_up_the_limit(jobs, folder, provider)
    times = [arrival.at for arrival in provider.arrivals()]

    assert sorted(row["id"] for row in written) == list(range(ROWS))
    assert {(row["answer"], row["error"]) for row in written} == {("said", None)}
    names = prompts()
    assert set(counts) == set(names.values())
    assert {counts[names[key]] for key in finished[0][0]} == {1}
    for keys, sent in finished:  # what was recorded by then was not sent once more
        assert [key for key in keys if counts[names[key]] != sent[names[key]]] == []
    assert len(engines) > 1  # the store knows the engine that was killed, and the one that went on
    late = busyness() - 1.0  # seconds: on a busy machine, a request reaches the provider so much later
    assert most_within(times, 60.0 - late) <= PER_MINUTE
    print(
        f"{counts.total()} requests for {ROWS} rows, of which {[len(keys) for keys, _ in finished]} were recorded at the kill; "
        f"fullest minute {most_within(times, 60.0)} of {len(times)} requests, the last {times[-1] - times[0]:.0f} s after the first"
    )


@long_test
def test_rows_that_ray_has_checkpointed_are_not_called_again(folder: Path, provider: SimulatedProvider) -> None:
    (folder / "in").mkdir()
    arguments: dict[str, Any] = {"files": folder / "in", "checkpoint": folder / "checkpoint", "output": folder / "out"}
    with running_jobs(folder, "", provider) as jobs:
        for count in (1, 2):
            pq.write_table(pa.table({"id": range(100 * count, 100 * count + 50)}), folder / "in" / f"{count}.parquet")
            jobs.start(stage={"prompt": PROMPT}, **arguments)
            jobs.wait()
            assert len(provider.requests()) == 50 * count
    assert len(set(map(prompt_of, provider.requests()))) == 100
    assert sorted(pq.read_table(folder / "out").column("id").to_pylist()) == [*range(100, 150), *range(200, 250)]
