"""Jobs over the batch APIs of the simulated provider: all APIs, killed at any request, expired, cancelled, refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.batch.provider_batches.batch_status import live_batches, refuse_change
from headrace.errors import AuthenticationError, InvalidRequestError
from headrace.testing import SimulatedProvider
from headrace.testing.shared.request_log import RequestRecord
from tests.conftest import ROOT
from tests.e2e.provider_batch_job import JobSpec, run
from tests.repetition import repeated, times
from tests.waiting import wait_until

pytestmark = pytest.mark.slow  # every test starts a process of its own

CHAT_MODELS = ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-flash"]
MODELS = [*CHAT_MODELS, "openai-responses/gpt-5", "text-embedding-3-small", "gemini-embedding-001"]
"""A model for each batch API and each of its endpoints."""


@pytest.fixture
def provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider, provider.in_environment():
        yield provider


class Job:
    """A job, which can be started in this process, or in one of its own that is killed."""

    def __init__(self, provider: SimulatedProvider, folder: Path, models: list[str], rows: int, **changes: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.provider = provider
        self.output = folder / "out.jsonl"
        self.directory = folder / "out.jsonl.job"
        self.spec = JobSpec(output=str(self.output), models=models, rows=rows, **changes)

    def run(self, **changes: Any) -> None:
        """Run the job to its end."""
        run(msgspec.structs.replace(self.spec, **changes))

    def begin(self, **changes: Any) -> threading.Thread:
        """Run the job in a thread."""
        thread = threading.Thread(target=self.run, kwargs=changes)
        thread.start()
        return thread

    def kill_at(self, requests: int) -> None:
        """Start the job, and kill it when the provider has had so many requests in all; or let it end before."""
        with self.start() as process:
            wait_until(
                lambda: process.poll() is not None or len(self.provider.arrivals()) >= requests, what="a request"
            )
            process.send_signal(signal.SIGKILL)

    def start(self) -> subprocess.Popen[bytes]:
        """Start the job in a process of its own."""
        spec = msgspec.json.encode(self.spec).decode()
        environment = os.environ | self.provider.environment
        return subprocess.Popen([sys.executable, "-m", "tests.e2e.provider_batch_job", spec], cwd=ROOT, env=environment)

    def records(self) -> dict[str, Any]:
        """Return the records of all rows by id. Each row has one at most."""
        errors = self.output.with_name("out.errors.jsonl")
        lines = [line for path in (self.output, errors) if path.exists() for line in path.read_text().splitlines()]
        records = [json.loads(line) for line in lines]
        assert len({record["id"] for record in records}) == len(records)
        return {record["id"]: record for record in records}

    def errors(self) -> dict[str, Any]:
        """Return the errors of all rows that failed, by id."""
        return {name: record["error"] for name, record in self.records().items() if record.get("error")}

    def has_run_all_once(self) -> bool:
        """Return whether each row has a record, and the provider has run each once."""
        return len(self.records()) == self.spec.rows == len(self.runs()) and {*self.runs().values()} == {1}

    def runs(self) -> Counter[str]:
        """Return how often the provider has run each row, by its text. Embeddings of Google count for each text."""
        return Counter(text for record in self.provider.requests() for text in texts_run(record))


def texts_run(record: RequestRecord) -> list[str]:
    """Return the texts of rows that a request of the log has run."""
    is_background = record.method == "POST" and record.path == "/v1/responses"
    if record.status != 200 or (record.batch_id is None and not is_background):
        return []
    said = json.dumps(record.body)
    return [f"row {number}" for number in range(1, 100) if f'"row {number}"' in said]


def children_with(words: str) -> list[int]:
    """Return the children of this process that have these words in their command."""
    pids = [pid for path in Path("/proc/self/task").glob("*/children") for pid in path.read_text().split()]
    return [int(pid) for pid in pids if words.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]


def check_no_key(provider: SimulatedProvider, folder: Path) -> None:
    """Check that no file of a job has a key, and that others cannot read the rows."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".rows" for path in files)
    for path in files:
        assert provider.api_key.encode() not in path.read_bytes(), path
        assert path.parent == folder or path.stat().st_mode & 0o077 == 0, path


def batch_of(provider: SimulatedProvider) -> str:
    """Wait for a batch, and return its id."""
    return wait_until(provider.batches.all, what="a batch")[0].id


def test_each_batch_api_runs_all_rows_once(provider: SimulatedProvider, tmp_path: Path) -> None:
    refused = {"status": 400, "error_message": "too long for this model"}
    job = Job(provider, tmp_path, MODELS, 18, part_rows=2, scripts=dict.fromkeys((7, 8, 9), refused))
    job.run()
    records = job.records()
    assert len(records) == 18
    assert sorted(job.errors()) == ["r7", "r8", "r9"]
    for error in job.errors().values():  # as that of a live run
        assert (error["class"], error["status_code"]) == ("InvalidRequestError", 400)
        assert "too long for this model" in error["message"]
    assert len(job.runs()) == 15
    assert {*job.runs().values()} == {1}
    assert len(provider.batches.all()) == 12
    assert records["r1"]["text"]
    assert len(records["r5"]["embeddings"]) == len(records["r6"]["embeddings"]) == 2
    assert live_batches(job.directory) == []
    assert [path.name for path in (job.directory / "batches").iterdir()] == ["batches.log"]


@pytest.mark.timeout(repeated(60, 600))
@times(1, 20)
def test_a_job_killed_at_any_requests_runs_no_row_twice(
    provider: SimulatedProvider, tmp_path: Path, times: int
) -> None:
    for turn in range(times):
        provider.clear()
        job = Job(provider, tmp_path / str(turn), CHAT_MODELS, 12, part_rows=2, is_uploaded=not turn % 2)
        for kill in sorted(random.sample(range(1, 30), 2)):
            job.kill_at(kill)
        job.run()
        assert job.errors() == {}
        assert job.has_run_all_once()


@pytest.mark.timeout(repeated(60, 600))
@times(1, 20)
def test_a_killed_job_starts_no_background_run_twice(provider: SimulatedProvider, tmp_path: Path, times: int) -> None:
    for turn in range(times):
        provider.clear()
        job = Job(provider, tmp_path / str(turn), ["gpt-4o"], 30, background="2h")
        job.kill_at(random.randrange(1, 60))
        job.run()
        assert len(job.records()) == 30
        assert {error["provider_code"] for error in job.errors().values()} <= {"maybe_sent"}
        assert len(job.errors()) <= 16
        assert max(job.runs().values()) == 1


def test_a_batch_whose_creation_was_not_answered_is_found_again(provider: SimulatedProvider, tmp_path: Path) -> None:
    job = Job(provider, tmp_path, [*CHAT_MODELS, "gemini-embedding-001"], 12, part_rows=2, is_uploaded=True)
    provider.batches.lose_replies(6)
    job.run()
    assert job.errors() == {}
    assert job.has_run_all_once()
    assert any("/upload/" in record.path for record in provider.requests())


def test_what_an_expired_batch_has_run_is_kept_and_the_rest_is_sent_again_on_request(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    provider.batches.pace(None)
    job = Job(provider, tmp_path, ["gpt-4o"], 6)
    thread = job.begin()
    batch = batch_of(provider)
    provider.batches.advance(2)
    provider.batches.end(batch, "expired")
    thread.join()
    assert [error["provider_code"] for error in job.errors().values()] == ["batch_expired"] * 4
    assert len(job.records()) == 6
    provider.batches.pace(0)
    job.run(retry_failed=True)
    assert job.errors() == {}
    assert job.has_run_all_once()


def test_a_stopped_job_leaves_its_batches_and_can_cancel_them_later(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    provider.batches.pace(None)
    job = Job(provider, tmp_path, CHAT_MODELS, 9)
    with job.start() as process:
        wait_until(
            lambda: [batch.state for batch in live_batches(job.directory)] == ["running"] * 3, what="all batches run"
        )
        process.kill()
    check_no_key(provider, tmp_path)
    with pytest.raises(InvalidRequestError, match="--cancel"):
        refuse_change(job.directory, "changed")

    provider.batches.advance(1)
    thread = job.begin(is_cancelling=True)
    wait_until(
        lambda: (
            all("cancel" in batch.state.lower() or batch.ending for batch in provider.batches.all())
            or all("cancel" in str(batch.state).lower() for batch in live_batches(job.directory))
        ),
        what="all batches are being cancelled",
    )
    while thread.is_alive():
        provider.batches.advance()
        thread.join(0.02)
    assert len(job.records()) == 3  # what was done by then is kept
    assert live_batches(job.directory) == []

    provider.batches.pace(0)
    job.run()
    assert job.errors() == {}
    assert job.has_run_all_once()


def test_rows_that_have_moved_in_the_input_get_their_own_answers(provider: SimulatedProvider, tmp_path: Path) -> None:
    provider.batches.pace(None)
    scripts = {number: {"text": f"answer {number}"} for number in range(1, 7)}
    job = Job(provider, tmp_path, ["gpt-4o"], 6, scripts=scripts)
    with job.start() as process:
        wait_until(lambda: [batch.state for batch in live_batches(job.directory)] == ["running"], what="the batch runs")
        process.kill()
    provider.batches.pace(0)
    job.run(is_reversed=True)
    assert {name: record["text"] for name, record in job.records().items()} == {
        f"r{number}": f"answer {number}" for number in range(1, 7)
    }
    assert job.has_run_all_once()


def test_the_batch_process_is_started_again_if_it_dies(provider: SimulatedProvider, tmp_path: Path) -> None:
    provider.batches.pace(None)
    job = Job(provider, tmp_path, ["gpt-4o"], 3)
    thread = job.begin()
    batch_of(provider)
    for process in children_with("headrace_workers.batches"):
        os.kill(process, signal.SIGKILL)
    provider.batches.pace(0)
    thread.join()
    assert job.errors() == {}
    assert job.has_run_all_once()


def test_a_row_that_the_provider_refuses_does_not_hold_back_the_others(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    job = Job(provider, tmp_path, ["gpt-4o"], 6)
    provider.batches.fail_next("invalid_json_line", "This line cannot be used.", 3)
    job.run()
    assert [*job.errors()] == ["r3"]
    assert "This line cannot be used." in job.errors()["r3"]["message"]
    assert len(job.records()) == 6
    assert set(job.runs().values()) == {1}
    assert len(provider.batches.all()) == 2


def test_a_refused_key_holds_back_only_its_provider_and_the_job_goes_on_with_another_key(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-refused")
    provider.refuse_key("sk-ant-refused")
    job = Job(provider, tmp_path, ["claude-sonnet-4-5", "gpt-4o"], 4)
    with pytest.raises(AuthenticationError, match="401"):
        job.run()
    assert sorted(job.records()) == ["r2", "r4"]
    provider.recover()
    job.run()
    assert job.errors() == {}
    assert job.has_run_all_once()
