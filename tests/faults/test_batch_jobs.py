"""A batch job survives the death of any process: each row has one record, and no recorded row is sent again."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.batch_programs import BatchProgram, batch_line, write_rows
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.repetition import is_long, only_long, repeated, times
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROWS = repeated(100, 1500)
SLOW = {"text": "an answer of five words", "first_token_delay": 0.1}
LONG = "word " * 500
CONCURRENCY = ("--concurrency", "24")
VICTIMS = ("driver", "worker", "broker", "collector")
KILLS = [VICTIMS, *only_long(*([victim] * 20 for victim in VICTIMS))]


@contextmanager
def job_on(engine: FaultyEngine, folder: Path) -> Iterator[BatchProgram]:
    """Start a job on an engine; in the end, check what each job must have."""
    program = BatchProgram(folder, engine.provider, engine.address, *CONCURRENCY)
    ids = write_rows(program.input, ROWS, SLOW)
    try:
        program.start()
        yield program
        assert program.finish() == 0, program.said()
    finally:
        program.end()
    check_complete(program, ids)


def check_complete(program: BatchProgram, ids: list[str]) -> None:
    """Each row has one record, and no row was sent again that had one."""
    assert program.failures() == []
    assert sorted(line["custom_id"] for line in program.lines()) == ids
    assert program.faults_midway(len(ids)) > 0  # on a busy machine, the last fault may come after the last row
    assert program.sent_again() == []
    texts = {line["response"]["body"]["choices"][0]["message"]["content"] for line in program.lines()}
    assert texts in ({SLOW["text"]}, {LONG})


def moments(random: Random, count: int) -> list[int]:
    """Return random numbers of rows, ascending: a fault comes when so many are recorded."""
    return sorted(random.sample(range(1, ROWS - 40), count))


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param(victims, marks=pytest.mark.tries(len(victims)), id=f"{len({*victims})}-{victims[0]}")
        for victims in KILLS
    ],
)
def test_a_job_goes_on_whichever_process_is_killed(
    provider: SimulatedProvider, tmp_path: Path, victims: Sequence[str]
) -> None:
    with faulty_engine(provider, is_young=not is_long()) as engine, job_on(engine, tmp_path) as program:
        for count, victim in zip(moments(engine.random, len(victims)), victims, strict=True):
            program.wait_for(count)
            if victim == "driver":
                engine.signal(program.pid, signal.SIGKILL)
                program.kill()
                program.start()
            else:
                program.note()
                engine.signal(engine.some_worker() if victim == "worker" else victim, signal.SIGKILL)


@times(1, 20)
def test_a_job_goes_on_after_everything_was_killed(provider: SimulatedProvider, tmp_path: Path, times: int) -> None:
    program = BatchProgram(tmp_path, provider, None, *CONCURRENCY)
    ids = write_rows(program.input, ROWS, SLOW)
    try:
        for count in moments(Random(), times):
            program.start()
            program.wait_for(count)
            program.kill_everything()
        program.start()
        assert program.finish() == 0, program.said()
    finally:
        program.end()
    check_complete(program, ids)


@pytest.mark.tries(1)
def test_a_full_disk_ends_the_job_and_costs_no_recorded_row(
    provider: SimulatedProvider, tmp_path: Path, engine: str
) -> None:
    program = BatchProgram(tmp_path, provider, engine, *CONCURRENCY)
    ids = write_rows(program.input, 150, SLOW | {"text": LONG})
    provider.clear()
    try:
        # No file of this process may become larger: the same to it as a disk that is full.
        program.start(largest_file=200_000)
        assert program.finish() not in {0, 7}
        assert "not recorded" in program.said()
        program.note()
        assert 0 < len(program.lines()) < 150
        program.start()
        assert program.finish() == 0, program.said()
    finally:
        program.end()
    check_complete(program, ids)


@pytest.mark.tries(4)
def test_rows_that_cannot_end_well_are_reported_with_their_lines_and_the_rest_is_done(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    poison = {"id": "poison", "model": "gpt-4o", "span_id": "sp_0000000000badf0d", "prompt": "poison"}
    with faulty_engine(provider, is_young=True) as engine:
        program = BatchProgram(tmp_path, provider, engine.address, *CONCURRENCY)
        ids = write_rows(program.input, 40, SLOW)
        with program.input.open("a") as file:
            file.write('{"custom_id": "torn", "method"\n')
            file.write(batch_line("large", {"text": "x" * 51_000_000}))
            file.write(batch_line("no-model", {"status": 404, "error_message": "no such model"}, model="gpt-none"))
            file.write(batch_line("no-provider", SLOW, model="nobody/model"))
            file.write(json.dumps(poison | {"custom_options": {"simulate": {"first_token_delay": 60}}}) + "\n")
        try:
            program.start()
            kill_each_worker_of(engine, poison["span_id"], program)
            assert program.finish() == 7, program.said()
        finally:
            program.end()

    assert sorted(line["custom_id"] for line in program.lines()) == ids
    assert {line_of(record): record["error"]["code"] for record in program.failures()} == {
        41: "bad_row",
        42: "bad_row",
        43: "invalid_request",
        44: "bad_row",
        45: "poison",
    }


def line_of(record: dict[str, Any]) -> int:
    """Return the line of a row that failed, in either form of a record."""
    return int(record["headrace"]["line"] if "headrace" in record else record["line"])


def kill_each_worker_of(engine: FaultyEngine, span_id: str, program: BatchProgram) -> None:
    """Kill each worker that starts a run, until the job has ended."""
    killed: set[int] = set()

    def has_victim() -> bool:
        return not program.is_running or engine.workers_of_runs().get(span_id, 0) not in {0, *killed}

    while program.is_running:
        wait_until(has_victim, 30.0, "another worker of the run")
        if program.is_running:
            killed.add(engine.workers_of_runs()[span_id])
            engine.signal(engine.workers_of_runs()[span_id], signal.SIGKILL)
