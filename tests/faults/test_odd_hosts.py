"""Odd programs that Headrace lives in.

Embedded Pythons, strange search paths, closed descriptors, deleted directories, killed parents.

Each is a process of its own. Runs succeed or say why not, and no folder stays behind.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.connections.embedded_folders import make_folder
from headrace.files.engine_directory import remove_folder
from headrace.process.interpreter import find_interpreter
from headrace.testing import SimulatedProvider
from tests.conftest import processes
from tests.repetition import long_test, only_long, repeated
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(180)

RUN = """
import json, os
from headrace import Client

result = Client().run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
print(json.dumps({"text": result.text}))
"""

ERROR = """
import json, time
from headrace import Client, EngineUnavailableError

began = time.monotonic()
try:
    Client().run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
except EngineUnavailableError as error:
    print(json.dumps({"error": str(error), "took": time.monotonic() - began}))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a temporary folder of this test's own, with a short path, as sockets need it. No engine in it may stay."""
    with tempfile.TemporaryDirectory(prefix="hr-") as name:
        yield Path(name)
        wait_until(lambda: not engines_in(name), 30, "the end of the engines", lambda: engines_in(name))


def engines_in(folder: str) -> list[str]:
    return [line for _, _, line in processes() if "-m headrace_" in line and folder in line]


def wait_until_empty(folder: Path) -> None:
    """Wait for the end of an engine's folder: its program waits for two seconds, which are short on a busy machine."""
    wait_until(lambda: not list(folder.iterdir()), 20.0, "an empty folder", lambda: list(folder.rglob("*")))


@pytest.fixture
def environment(provider: SimulatedProvider, folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    return {**kept, **provider.environment, "TMPDIR": str(folder)}


def said(program: str, environment: dict[str, str], *wrapper: str, cwd: Path | None = None) -> dict[str, str]:
    command = [*wrapper, sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, str] = json.loads(done.stdout)
    return answer


NO_PYTHON = ("/usr/bin/env", None, "", "/gone/bin/python3")


@pytest.mark.parametrize("executable", [NO_PYTHON[0], *only_long(*NO_PYTHON[1:])])
def test_a_program_whose_executable_is_no_python_finds_one(environment: dict[str, str], executable: str | None) -> None:
    """As under uwsgi, where it is the server."""
    assert said(f"import sys; sys.executable = {executable!r}\n{RUN}", environment)["text"]


@pytest.mark.parametrize("executable", NO_PYTHON)
def test_whatever_is_said_to_be_the_executable_a_python_of_this_version_is_found(
    executable: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    command = [find_interpreter(), "-c", "import sys; print(sys.hexversion)"]

    assert int(subprocess.run(command, capture_output=True, check=True).stdout) == sys.hexversion


def test_a_program_without_any_python_says_so_at_once(environment: dict[str, str], folder: Path) -> None:
    nowhere = """
import os, sys, sysconfig
sys.executable = sys._base_executable = sys.prefix = sys.exec_prefix = sys.base_prefix = "/nowhere"
sysconfig.get_config_vars()["BINDIR"] = "/nowhere"
os.environ["PATH"] = "/nowhere"
"""
    answer = said(nowhere + ERROR, environment)

    assert "sys.executable" in answer["error"]
    assert float(answer["took"]) < 5.0 * busyness()
    wait_until_empty(folder)


PROGRAMS = repeated(4, 12)
"""That start their engines at the same time."""
ODD_ENTRIES = "[pathlib.Path('x'), '', 'relative', None, 5, b'bytes', object(), '/with:colon']"


def test_a_search_path_may_have_anything_in_it(environment: dict[str, str], folder: Path, tmp_path: Path) -> None:
    """What is in a folder with a colon in its name is found by the engine too: its hook is there."""
    (tmp_path / "odd:name").mkdir()
    (tmp_path / "odd:name" / "my_hook.py").write_text("def redact(content): return None\n")
    (tmp_path / "headrace.toml").write_text('[spans]\nredact = "my_hook:redact"\n')
    environment["HEADRACE_CONFIG"] = str(tmp_path / "headrace.toml")
    odd_path = f"""
import pathlib, sys
sys.path[:0] = {ODD_ENTRIES}
sys.path += {ODD_ENTRIES}
sys.path.append({str(tmp_path / "odd:name")!r})
"""

    assert said(odd_path + RUN, environment)["text"]
    wait_until_empty(folder)


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    """Return a directory that the program is to start in, and to remove with ``LEAVING``."""
    directory = tmp_path / "gone"
    directory.mkdir()
    return directory


LEAVING = "import os; os.rmdir(os.getcwd())\n"


def imports_anything_nowhere(gone: Path) -> bool:
    """Return whether this Python imports its own modules in a directory that is gone: 3.13.0 does not."""
    command = [sys.executable, "-c", LEAVING + "import asyncio"]
    is_able = subprocess.run(command, cwd=gone, capture_output=True, check=False).returncode == 0
    gone.mkdir()
    return is_able


@pytest.mark.parametrize("wrapper", ["nohup", *only_long("env")])
def test_a_program_under_nohup_in_a_directory_that_is_gone_runs_and_its_engine_ends_with_it(
    environment: dict[str, str], folder: Path, gone: Path, wrapper: str
) -> None:
    program = LEAVING + RUN if imports_anything_nowhere(gone) else RUN

    assert said(program, environment, wrapper, cwd=gone)["text"]
    wait_until_empty(folder)


@pytest.mark.parametrize("closed", ["0,1,2", *only_long("0", "2")])
def test_a_program_with_closed_standard_descriptors_runs(
    environment: dict[str, str], tmp_path: Path, closed: str
) -> None:
    """What anybody prints to such a number must not reach the engine."""
    answer = tmp_path / "answer"
    program = f"""
import os
from headrace import Client
client = Client()
for number in (1, 2):
    text = client.run_local(model="gpt-4o", messages=[{{"role": "user", "content": "Hello"}}]).text
    for descriptor in ({closed},):
        try:
            os.write(descriptor, b"printed")
        except OSError:
            pass
open({str(answer)!r}, "w").write(text)
"""
    closes = " ".join(f"{number}>&-" for number in closed.split(","))
    command = ["sh", "-c", f'exec "$@" {closes}', "sh", sys.executable, "-c", program]
    subprocess.run(command, env=environment, check=True, timeout=120)

    assert answer.read_text()


def test_a_program_may_be_the_first_process_of_a_container(environment: dict[str, str]) -> None:
    namespace = ("unshare", "--pid", "--fork", "--mount-proc")
    try:
        permitted = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        permitted = False
    if not permitted:
        pytest.skip("this machine makes no process namespaces")

    assert said(RUN, environment, *namespace)["text"]


@long_test
def test_a_program_under_nohup_runs_and_its_engine_ends_with_it(environment: dict[str, str], folder: Path) -> None:
    assert said(RUN, environment, "nohup")["text"]
    wait_until_empty(folder)


@pytest.fixture
def unusable(folder: Path) -> dict[str, str]:
    """Return folders that no engine can use: why not, and their paths."""
    (folder / "file").touch()
    (folder / "not UTF-8 \udcff").mkdir()
    names = {"missing": "missing", "file": "file", "long": "x" * 80, "not UTF-8": "not UTF-8 \udcff"}
    return {why: str(folder / name) for why, name in names.items()}


@pytest.mark.parametrize("why", ["not UTF-8", *only_long("missing", "file", "long")])
def test_a_temporary_folder_that_cannot_be_used_is_passed_over(
    environment: dict[str, str], unusable: dict[str, str], why: str
) -> None:
    environment["TMPDIR"] = unusable[why]

    assert said(RUN, environment)["text"]


def test_the_folder_of_an_engine_is_made_elsewhere_than_in_one_that_cannot_be_used(
    unusable: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for why, place in unusable.items():
        monkeypatch.setenv("TMPDIR", place)
        made = make_folder()
        remove_folder(made)

        assert made.parent != Path(place), why


FULL = 'mount -t tmpfs -o size=64k full "$TMPDIR" && { head -c 100000 /dev/zero > "$TMPDIR/full" 2>&-; exec "$@"; }'


def test_a_temporary_folder_without_room_is_passed_over(environment: dict[str, str]) -> None:
    """Its engine would end without a word: its log has no room either."""
    mounts = ("unshare", "--mount", "sh", "-c", FULL, "sh")
    try:
        permitted = subprocess.run([*mounts, "true"], env=environment, capture_output=True, check=False).returncode == 0
    except OSError:
        permitted = False
    if not permitted:
        pytest.skip("this machine makes no mount namespaces")

    assert said(RUN, environment, *mounts)["text"]


# Failed starts, and what they leave.


@pytest.mark.parametrize("package", ["headrace_engine", "headrace_workers"])
def test_an_engine_that_cannot_start_says_why_soon_and_leaves_no_folder(
    environment: dict[str, str], folder: Path, tmp_path: Path, package: str
) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text('raise RuntimeError("a broken installation")\n')
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])

    answer = said(ERROR, environment)

    assert "a broken installation" in answer["error"]
    assert "status" in answer["error"]
    assert float(answer["took"]) < 8.0 * busyness()
    wait_until_empty(folder)


def test_workers_that_fail_slowly_are_failed_starts_too(
    environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    slow = "import threading; threading.Event().wait(2.2)\nraise RuntimeError('too late')\n"
    (tmp_path / "headrace_workers").mkdir()
    (tmp_path / "headrace_workers" / "__init__.py").write_text(slow)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])

    answer = said(ERROR, environment)

    assert "too late" in answer["error"]
    assert "status 1" in answer["error"]
    assert "own engine" in answer["error"]
    wait_until_empty(folder)


STAYING = RUN + "\nimport sys; sys.stdout.flush(); input()\n"


def test_no_folder_stays_of_a_program_that_was_killed(environment: dict[str, str], folder: Path) -> None:
    """If program and supervisor are killed, the next program removes the folder, a moment after the engine's last process has ended."""
    for killed in ("both", "program", "supervisor"):
        kill(killed, environment)
        if killed == "both":
            wait_until(
                lambda: not engines_in(str(folder)), 20.0, "the end of its processes", lambda: engines_in(str(folder))
            )
            wait_until(
                lambda: time.time() - max((path.stat().st_mtime for path in folder.iterdir()), default=0.0) > 1.5
            )
        else:
            wait_until_empty(folder)


def kill(killed: str, environment: dict[str, str]) -> None:
    """Start a program that has had a run, and kill the program, its supervisor, or both."""
    command = [sys.executable, "-c", STAYING]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        assert program.stdout.readline()
        supervisor = next(pid for pid, above, line in processes() if above == program.pid and "headrace_engine" in line)
        if killed != "program":
            os.kill(supervisor, signal.SIGKILL)
        if killed != "supervisor":
            program.kill()
        else:
            program.communicate(b"\n")


STANDING_STILL = """
import os, signal, threading
from headrace.connections import embedded_engine as embedded

start = embedded.subprocess.Popen

def start_and_stop(*arguments, **options):
    process = start(*arguments, **options)
    os.kill(process.pid, signal.SIGSTOP)
    return process

embedded.subprocess.Popen = start_and_stop
"""

SIGNALLED_AND_GONE = """
import os, signal
from headrace.connections import embedded_engine as embedded

signal_process = embedded.signal_process

def signal_and_end(handle, number):
    signal_process(handle, number)
    if number == signal.SIGCONT:
        os._exit(0)

embedded.signal_process = signal_and_end
"""


@pytest.mark.slow
def test_no_folder_stays_of_a_program_that_ends_while_its_engine_starts(
    environment: dict[str, str], folder: Path
) -> None:
    """The program tells its supervisor to end before that can hear it, and is gone before the supervisor is."""
    program = STANDING_STILL + SIGNALLED_AND_GONE + ERROR.replace("Client()", "Client(connect_timeout=1)")
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=120)

    wait_until_empty(folder)


TOLD_TO_END_AT_ITS_FIRST_CHILD = """
import os, signal, sys

told = []

def tell(event, arguments):
    if event == "subprocess.Popen" and not told:
        told.append(event)
        os.kill(os.getpid(), signal.SIGTERM)

sys.addaudithook(tell)
"""


def test_an_engine_that_is_told_to_end_while_it_starts_removes_its_folder(
    environment: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(TOLD_TO_END_AT_ITS_FIRST_CHILD)
    environment["PYTHONPATH"] = str(tmp_path)
    engine = folder / "engine"
    command = [sys.executable, "-m", "headrace_engine", "--directory", str(engine), "--parent", str(os.getpid())]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as supervisor:
        assert supervisor.wait(120) == 0

    assert not engine.exists()


# Starts that take long.


@long_test
def test_an_engine_that_starts_is_waited_for_whatever_connect_timeout_says(environment: dict[str, str]) -> None:
    assert said(RUN.replace("Client()", "Client(connect_timeout=0.05)"), environment)["text"]


@pytest.mark.slow
def test_many_programs_may_start_their_engines_at_once_whatever_connect_timeout_says(
    environment: dict[str, str],
) -> None:
    """Together they take far longer than one, and than any of them would wait for an engine of somebody else."""
    programs = [RUN.replace("Client()", f"Client(connect_timeout={timeout})") for timeout in (1, 0.05)]
    running = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE)
        for program in programs * (PROGRAMS // 2)
    ]
    answers = [process.communicate(timeout=150)[0] for process in running]

    assert [process.returncode for process in running] == [0] * len(running)
    assert all(json.loads(answer)["text"] for answer in answers)


@pytest.mark.slow
def test_an_engine_whose_start_stands_still_is_given_up(environment: dict[str, str]) -> None:
    answer = said(STANDING_STILL + ERROR.replace("Client()", "Client(connect_timeout=1)"), environment)

    assert "nothing answered" in answer["error"]
    assert float(answer["took"]) < 30.0 * busyness()


def test_the_time_that_a_run_may_take_holds_while_its_engine_starts(environment: dict[str, str]) -> None:
    program = ERROR.replace("EngineUnavailableError", "RunTimeoutError").replace("messages=", "timeout_ms=1, messages=")
    answer = said(STANDING_STILL + program, environment)

    assert "total" in answer["error"]
    assert float(answer["took"]) < 10.0 * busyness()
