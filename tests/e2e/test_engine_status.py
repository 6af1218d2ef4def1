"""What ``client.status()`` and ``client.engine_log`` promise: they start no engine, and tell the truth about every engine."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace import Client, EngineStatus, EngineUnavailableError, InvalidRequestError
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, is_setting, simulate
from tests.e2e.engines import running_engine
from tests.waiting import wait_until


def test_the_status_of_a_programs_own_engine_has_its_processes_and_its_runs(client: Client) -> None:
    with client.run_local(
        model="gpt-4o", messages=HELLO, stream=True, custom_options=simulate(repeat=5, stall_after=2)
    ) as run:
        run.started()
        wait_until(lambda: client.status().spans is not None, what="the report of the collector")

        status = client.status()

    assert (status.address, status.is_running, status.reason) == ("embedded", True, "")
    assert {worker.state for worker in status.workers} == {"ok"}
    assert status.runs == sum(worker.runs for worker in status.workers) >= 1
    assert status.spans is not None
    assert status.spans.state == "ok"
    assert EngineStatus.from_dict(json.loads(json.dumps(status.to_dict()))) == status


def test_a_task_may_ask_for_the_status(client: Client) -> None:
    client.run_local(model="gpt-4o", messages=HELLO)

    assert asyncio.run(client.astatus()).is_running


PROGRAM = """
import json, multiprocessing, os, signal, sys, time
from headrace import Client, EngineUnavailableError

HELLO = [{"role": "user", "content": "Hello"}]
client = Client()

def told(label):
    status = client.status(30.0)
    print(json.dumps([label, status.is_running, status.reason, str(client.engine_log)]), flush=True)
    return status

def child():
    told("child")

told("before")
client.run_local(model="gpt-4o", messages=HELLO)
status = told("running")
if "fork" in sys.argv:
    forked = multiprocessing.get_context("fork").Process(target=child)
    forked.start()
    forked.join()
supervisor = int(open(f"/proc/{status.broker_pid}/stat").read().rsplit(")", 1)[1].split()[1])
os.kill(supervisor, signal.SIGKILL)
until = time.monotonic() + 30
while client.status(30.0).is_running and time.monotonic() < until:
    time.sleep(0.01)
told("killed")
for _ in range(2):
    try:
        client.run_local(model="gpt-4o", messages=HELLO)
    except EngineUnavailableError as error:  # it was sent to the broker that was ending
        assert "was ended by signal 9; its log is" in str(error)
told("again")
client.close()
try:
    client.status()
except EngineUnavailableError as error:
    print(json.dumps(["closed", False, str(error), str(client.engine_log)]))
"""


@pytest.fixture
def environment(provider: SimulatedProvider, tmp_path: Path) -> dict[str, str]:
    """The environment of a program that keeps its data for itself."""
    clean = {name: value for name, value in os.environ.items() if not is_setting(name)}
    return clean | provider.environment | {"HEADRACE_DATA": str(tmp_path / "data")}


@pytest.mark.slow
def test_asking_starts_no_engine_and_the_log_of_each_engine_stays(environment: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, "fork"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = {line[0]: line[1:] for line in map(json.loads, ended.stdout.splitlines())}

    assert told["before"] == [False, "it has not started yet; the first run starts it", "None"]
    is_running, reason, first = told["running"]
    assert (is_running, reason) == (True, "")
    assert told["child"] == told["running"], "a forked child uses the engine of its parent"
    assert told["killed"] == [False, f"it has ended, and the next run starts another; its log is {first}", first]
    is_running, reason, second = told["again"]
    assert (is_running, reason) == (True, "")
    assert told["closed"] == [False, "this program's own engine: this client is closed; make a new one", second]

    logs = sorted((tmp_path / "data" / "logs").iterdir())
    assert logs == sorted([Path(first), Path(second)])
    assert " supervisor INFO headrace_engine.supervisor.supervisor: engine starts " in Path(first).read_text()
    assert "engine ended exit_code=0" in Path(second).read_text()
    assert {path.stat().st_mode & 0o777 for path in logs} == {0o600}


def test_the_error_of_an_engine_that_cannot_start_has_the_last_lines_of_its_log(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The engine's Python cannot import one of its modules: a fault that only its log can tell."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "headrace_workers.py").write_text("raise ImportError('this is no worker, says sk-9f8e7d6c5b4a')")
    program = (
        "from headrace import Client\n"
        "try: Client().run_local(model='gpt-4o', messages=[{'role': 'user', 'content': 'Hello'}])\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment |= {"PYTHONPATH": str(broken), "OPENAI_API_KEY": "sk-9f8e7d6c5b4a"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
    )

    assert ended.stdout.startswith("EngineUnavailableError this program's own engine: it ended with status ")
    assert "this is no worker, says [key]" in ended.stdout
    [log] = (tmp_path / "data" / "logs").iterdir()
    assert f"its log is {log}" in ended.stdout
    assert len(ended.stdout) < 3000


WITHOUT_PLACE = """
from headrace import Client
client = Client()
client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
print(client.engine_log.name, client.engine_log.parent.name.startswith("headrace-"))
client.close()
print(client.engine_log)
"""


@pytest.mark.slow
def test_an_engine_starts_where_no_log_can_be_kept(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the directory should be")
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_PLACE], env=environment, capture_output=True, text=True, check=False, timeout=120
    )

    assert (ended.returncode, ended.stdout) == (0, "engine.log True\nNone\n"), ended.stderr


def test_the_status_of_an_engine_at_an_address(provider: SimulatedProvider) -> None:
    with running_engine(provider, "--workers", "2") as address, Client(address) as client:
        status = client.status()
        assert (status.address, status.is_running) == (address, True)
        wait_until(lambda: len(client.status().workers) == 2, what="both workers")
        wait_until(lambda: len(client.status().processes) == 4, what="the report of the supervisor")
        assert client.engine_log is None
    with Client(address) as client, pytest.raises(EngineUnavailableError, match="there is no directory"):
        client.status()


@pytest.mark.parametrize("timeout", [-1, None, "5", float("nan")])
def test_a_wrong_timeout_is_an_error(client: Client, timeout: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        client.status(timeout)
