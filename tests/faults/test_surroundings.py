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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.repetition import repeated
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


PROGRAMS = repeated(4, 10)
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


def spans_list(variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "spans", "list"],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_programs_one_after_the_other_on_one_data_directory_flush_at_once(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    """What is left of the worker of the program before has no writer any more: nobody waits for it."""
    said = [run_program(provider, {"HEADRACE_DATA": str(tmp_path / "data")}) for _ in range(PROGRAMS)]

    assert [one["counts"] for one in said] == [[1, 0, 0]] * PROGRAMS
    assert max(one["took"] for one in said) < 3.0 * busyness()


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("open", "must be 700"),
        ("file", "is not a directory"),
        ("in a file", "Not a directory"),
        ("/proc/x", "/proc/x"),
        ("slots", "0 is not a directory"),
    ],
)
def test_a_data_directory_that_cannot_be_used_costs_the_spans_and_says_so(
    provider: SimulatedProvider, tmp_path: Path, place: str, reason: str
) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "file").touch()
    (tmp_path / "slots").mkdir(mode=0o700)
    (tmp_path / "slots" / "0").touch()
    data = str(tmp_path / place.replace("in a file", "file/data"))

    assert run_program(provider, {"HEADRACE_DATA": data})["counts"] == [0, 0, 1]
    listed = spans_list({"HEADRACE_DATA": data})
    assert "spans are not kept" in listed.stderr
    assert "HEADRACE_DATA" in listed.stderr
    assert "Each run stores one" not in listed.stderr
    assert "Traceback" not in listed.stderr


# The user's files stay its own: a user namespace gives it another number, which no entry names.
UNKNOWN_USER = ("unshare", "--user", "--map-user=54321", "--map-group=54321")


def can_be_unknown() -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*UNKNOWN_USER, "true"], capture_output=True, check=False).returncode == 0
    return False


@pytest.mark.skipif(not can_be_unknown(), reason="this machine makes no user namespaces")
@pytest.mark.parametrize("home", [None, "", "relative", "/proc/home"])
def test_a_user_without_entry_and_home_runs_without_spans(provider: SimulatedProvider, home: str | None) -> None:
    nowhere = {"HOME": home, "HEADRACE_DATA": None, "XDG_STATE_HOME": None}

    assert run_program(provider, nowhere, wrapper=UNKNOWN_USER)["counts"] == [0, 0, 1]


MENDED = """
import json, time
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
    pass
print(json.dumps({"lost": [lost.delivered, lost.failed], "kept": kept.delivered}))
"""


def test_spans_are_kept_as_soon_as_the_data_directory_can_be_used(provider: SimulatedProvider, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    said = run_program(provider, {"HEADRACE_DATA": str(data)}, MENDED.replace("DATA", repr(str(data))))

    assert said["lost"] == [0, 1]
    assert said["kept"] > 0


def test_the_status_says_why_spans_are_not_kept(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir(mode=0o755)
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60) as client:
        client.run_local(model="gpt-4o", messages=HELLO)
        shown = subprocess.run(
            [sys.executable, "-m", "headrace", "status", "--engine", address, "--timeout", "20"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout

    assert "not kept" in shown
    assert f"chmod 700 {tmp_path / 'data'}" in shown
    assert "dropped: 1 not_kept" in shown


WITHOUT_OTLP = """
import sys
for name in ("opentelemetry", "google"):
    sys.modules[name] = None
"""


def test_an_export_that_cannot_be_is_told(provider: SimulatedProvider, tmp_path: Path) -> None:
    variables = {
        "HEADRACE_DATA": str(tmp_path / "data"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }

    assert run_program(provider, variables)["counts"] == [1, 0, 0]
    assert "http/protobuf" in spans_list(variables).stderr


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
    assert "pip install 'headrace[otlp]'" in spans_list(variables).stderr
