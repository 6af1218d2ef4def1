"""``HEADRACE_LOG`` makes client, engine and workers say what they do, on standard error, and never holds anything up."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.cli.status_command import engine_status
from headrace.testing import SimulatedProvider
from tests.e2e.engines import running_engine
from tests.repetition import only_long, repeated
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

PROGRAM = """
import logging, sys
from headrace import Client
{setup}
with Client() as client:
    for _ in range({runs}):
        text = client.run_local(model="gpt-4o", messages=[{{"role": "user", "content": "Hello"}}]).text
print(text[:9])
"""
LINE = re.compile(r"^\S+Z (client|supervisor|broker|collector|w\d+) (DEBUG|INFO|WARNING) headrace\w*\.[\w.]+: \w.*$")


def run(
    level: str | None,
    setup: str = "",
    runs: int = 1,
    stderr: int = subprocess.PIPE,
    log_format: str | None = None,
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("HEADRACE_LOG", "HEADRACE_LOG_FORMAT")
    }
    if level is not None:
        environment["HEADRACE_LOG"] = level
    if log_format is not None:
        environment["HEADRACE_LOG_FORMAT"] = log_format
    command = [sys.executable, "-c", PROGRAM.format(setup=setup, runs=runs)]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=90, check=False
    )


def who_said(log: str) -> set[str]:
    """Return the processes that have lines in the log; anything else in it is an error."""
    found = [LINE.match(line) for line in log.splitlines()]
    assert all(found), log
    return {match[1] for match in found if match is not None}


@pytest.mark.parametrize("level", ["info", *only_long("DEBUG")])
def test_every_process_of_a_program_says_what_it_does(level: str, provider: SimulatedProvider) -> None:
    done = run(level)

    assert done.stdout == "The river\n"
    assert {"client", "supervisor", "broker", "w1"} <= who_said(done.stderr)
    assert ("run ends span_id=sp_" in done.stderr) == (level == "DEBUG")


def test_every_process_of_a_program_writes_json_if_asked(provider: SimulatedProvider) -> None:
    done = run("debug", log_format="json")

    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert {"client", "supervisor", "broker", "w1"} <= {line["process"] for line in lines}
    (ended,) = [line for line in lines if line["message"] == "run ends"]
    span_id = ended["fields"]["span_id"]
    of_run = {(line["process"], line["message"]) for line in lines if line["fields"].get("span_id") == span_id}
    in_worker = {("w1", "run begins"), ("w1", "provider answers"), ("w1", "run ends")}
    assert of_run == in_worker | {("client", "run has a worker"), ("client", "run ended")}
    assert len({line["pid"] for line in lines if line["process"] == "w1"}) == 1


@pytest.mark.parametrize("level", ["", *only_long(None, "WARNING")])  # test of the demo: no level is set
def test_a_program_that_does_not_ask_for_it_sees_nothing(level: str | None, provider: SimulatedProvider) -> None:
    done = run(level)

    assert (done.stdout, done.stderr) == ("The river\n", "")


@pytest.mark.parametrize("level", ["LOUD", "7"])
def test_a_level_that_is_none_is_refused_by_name(level: str, provider: SimulatedProvider) -> None:
    done = run(level)

    assert done.returncode != 0
    assert f"HEADRACE_LOG is '{level}'" in done.stderr
    assert "DEBUG, INFO, WARNING, ERROR, CRITICAL" in done.stderr


def test_a_format_that_is_none_is_refused_by_name(provider: SimulatedProvider) -> None:
    done = run("INFO", log_format="jsn")

    assert done.returncode != 0
    assert "HEADRACE_LOG_FORMAT is 'jsn'; did you mean json? It takes text, json" in done.stderr


def test_the_clients_lines_stand_once_where_the_program_configures_logging(provider: SimulatedProvider) -> None:
    done = run("INFO", setup="logging.basicConfig(level='INFO', format='own %(message)s')")

    assert done.stderr.count("engine started") == 1
    assert "own engine started" in done.stderr
    assert " broker INFO " in done.stderr


def test_a_log_that_nobody_reads_holds_up_no_run(provider: SimulatedProvider) -> None:
    read, write = os.pipe()
    size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)  # a page at least: where pages are larger, it takes more runs
    try:
        done = run("DEBUG", runs=max(repeated(60, 400), size // 100), stderr=write)
    finally:
        os.close(write)
        os.close(read)

    assert done.stdout == "The river\n"


def test_a_program_without_standard_error_has_its_runs(provider: SimulatedProvider) -> None:
    environment = {**os.environ, "HEADRACE_LOG": "INFO"}
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, PROGRAM.format(setup="", runs=1)]

    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=90, check=True)

    assert done.stdout == "The river\n"


def test_a_service_that_writes_json_writes_nothing_else(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_LOG_FORMAT", "json")
    log = tmp_path / "log"
    wrapper = ["sh", "-c", 'exec "$@" 2> "$0"', str(log)]
    with running_engine(provider, "--workers", "1", wrapper=wrapper) as address:
        (worker,) = engine_status(address, 30.0).workers
        os.kill(worker.pid, signal.SIGSTOP)
        wait_until(lambda: "process ended" in log.read_text(), 90.0, "the worker's end", log.read_text)
        lines = [json.loads(line) for line in log.read_text().splitlines()]

    (silent,) = [line for line in lines if line["message"] == "worker is silent"]
    assert (silent["process"], silent["fields"]["worker"]) == ("broker", "w1")
    hung = next(line for line in lines if line["message"] == "process is hung and is killed")
    assert (hung["process"], hung["fields"]["pid"]) == ("supervisor", worker.pid)


def test_a_service_logs_to_its_own_standard_error(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADRACE_LOG", "INFO")
    log = tmp_path / "log"
    with running_engine(provider, "--workers", "1", wrapper=["sh", "-c", 'exec "$@" 2> "$0"', str(log)]):
        wait_until(lambda: log.exists() and "worker serves" in log.read_text(), 30.0, "a worker's line")
        said = log.read_text()

    assert {"supervisor", "broker", "w1"} <= who_said(said)
