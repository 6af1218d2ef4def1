"""Where programs run: without a home directory, on disks that take nothing, one after another.

Runs go on, and what is lost is said.

Each program is a process of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.cli.main import main
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.repetition import only_long, repeated
from tests.waiting import busyness

Variables = Mapping[str, str | None]

pytestmark = pytest.mark.timeout(180)

RUN = """
import json, sys, time
from headrace import Client

client = Client(connect_timeout=60)
result = client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
began = time.monotonic()
counts = client.flush(20)
took = time.monotonic() - began
print(json.dumps({"text": result.text, "counts": [counts.delivered, counts.pending, counts.failed], "took": took}))
"""


PROGRAMS = repeated(3, 10)
"""One after the other."""


def run_program(
    provider: SimulatedProvider, variables: Variables, program: str = RUN, wrapper: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Run a program with some variables set, or taken away, and return what it printed."""
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", program],
        env=environment(provider, variables),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def environment(provider: SimulatedProvider, variables: Variables) -> dict[str, str]:
    merged = {**os.environ, **provider.environment, **variables}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.fixture
def listed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], str]:
    """Return a function that runs ``headrace spans list`` with these variables and returns its standard error."""

    def complaint(variables: Mapping[str, str]) -> str:
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            main(["spans", "list"])
        return capsys.readouterr().err

    return complaint


def test_programs_one_after_the_other_on_one_data_directory_flush_at_once(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    """What is left of the worker of the program before has no writer any more: nobody waits for it."""
    said = [run_program(provider, {"HEADRACE_DATA": str(tmp_path / "data")}) for _ in range(PROGRAMS)]

    assert [one["counts"] for one in said] == [[1, 0, 0]] * PROGRAMS
    assert max(one["took"] for one in said) < 3.0 * busyness()


UNUSABLE = {
    "open": "must be 700",
    "in a file": "Not a directory",
    "slots": "0 is not a directory",
    "file": "is not a directory",
    "/proc/x": "/proc/x",
}
"""Data directories, and why they cannot be used."""


@pytest.fixture
def unusable(tmp_path: Path) -> dict[str, str]:
    """Make the data directories that cannot be used; return their paths."""
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "file").touch()
    (tmp_path / "slots").mkdir(mode=0o700)
    (tmp_path / "slots" / "0").touch()
    return {place: str(tmp_path / place.replace("in a file", "file/data")) for place in UNUSABLE}


@pytest.mark.parametrize("place", repeated(["open", "slots"], [*UNUSABLE]))
def test_a_data_directory_that_cannot_be_used_costs_the_spans(
    provider: SimulatedProvider, unusable: dict[str, str], place: str
) -> None:
    assert run_program(provider, {"HEADRACE_DATA": unusable[place]})["counts"] == [0, 0, 1]


@pytest.mark.parametrize("place", UNUSABLE)
def test_the_list_of_spans_says_why_a_data_directory_cannot_be_used(
    listed: Callable[[Mapping[str, str]], str], unusable: dict[str, str], place: str
) -> None:
    complaint = listed({"HEADRACE_DATA": unusable[place]})

    assert "spans are not kept" in complaint
    assert UNUSABLE[place] in complaint
    assert "HEADRACE_DATA" in complaint
    assert "Each run stores one" not in complaint
    assert "Traceback" not in complaint


# The user's files stay its own: a user namespace gives it another number, which no entry names.
UNKNOWN_USER = ("unshare", "--user", "--map-user=54321", "--map-group=54321")


def can_be_unknown() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, check=False).returncode == 0
    return False


@pytest.mark.skipif(not can_be_unknown(), reason="this machine makes no user namespaces")
@pytest.mark.parametrize("home", [None, "/proc/home", *only_long("", "relative")])
def test_a_user_without_entry_and_home_runs_without_spans(provider: SimulatedProvider, home: str | None) -> None:
    nowhere = {"HOME": home, "HEADRACE_DATA": None, "XDG_STATE_HOME": None}

    assert run_program(provider, nowhere, wrapper=UNKNOWN_USER)["counts"] == [0, 0, 1]


MENDED = """
import json, threading, time
from pathlib import Path
from headrace import Client

client = Client(connect_timeout=60)
data = Path(DATA)


def counts_after_a_run():
    client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])
    return client.flush(20)


lost = counts_after_a_run()
data.chmod(0o700)
give_up_at = time.monotonic() + 90
while not (kept := counts_after_a_run()).delivered and time.monotonic() < give_up_at:
    threading.Event().wait(0.2)  # the collector checks the directory from time to time
print(json.dumps({"lost": [lost.delivered, lost.failed], "kept": kept.delivered}))
"""


def test_spans_are_kept_as_soon_as_the_data_directory_can_be_used(provider: SimulatedProvider, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    said = run_program(provider, {"HEADRACE_DATA": str(data)}, MENDED.replace("DATA", repr(str(data))))

    assert said["lost"] == [0, 1]
    assert said["kept"] > 0


def test_the_status_says_why_spans_are_not_kept(
    provider: SimulatedProvider,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60) as client:
        client.run_local(model="gpt-4o", messages=HELLO)
        assert main(["status", "--engine", address, "--timeout", "20"]) == 0
        shown = capsys.readouterr().out

    assert "not kept" in shown
    assert f"chmod 700 {tmp_path / 'data'}" in shown
    assert "dropped: 1 not_kept" in shown


WITHOUT_OTLP = """
import sys
for name in ("opentelemetry", "google"):
    sys.modules[name] = None
"""


def test_an_export_without_its_protocol_is_reported(
    provider: SimulatedProvider, tmp_path: Path, listed: Callable[[Mapping[str, str]], str]
) -> None:
    variables = {
        "HEADRACE_DATA": str(tmp_path / "data"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }

    assert run_program(provider, variables)["counts"] == [1, 0, 0]
    assert "http/protobuf" in listed(variables)


def test_a_sink_whose_package_is_missing_counts_its_spans_as_failed(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "sitecustomize.py").write_text(WITHOUT_OTLP)
    search_path = os.pathsep.join([str(tmp_path / "hidden"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    variables = {
        "HEADRACE_DATA": str(tmp_path / "data"),
        "PYTHONPATH": search_path,
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }

    assert run_program(provider, variables)["counts"] == [0, 0, 1]
    # In a process of its own, where the package is missing.
    command = [sys.executable, "-m", "headrace", "spans", "list"]
    done = subprocess.run(command, env=environment(provider, variables), capture_output=True, check=False, timeout=60)
    assert b"pip install 'headrace[otlp]'" in done.stderr
