"""``headrace restart``: replaces the workers of an engine that runs, and says where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace import Client
from headrace.cli.exit_codes import ExitCode
from headrace.cli.main import main
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process
from tests.e2e.engines import running_engine
from tests.waiting import wait_until


@pytest.mark.slow
def test_restart_replaces_the_workers(provider: SimulatedProvider, capsys: pytest.CaptureFixture[str]) -> None:
    with running_engine(provider, "--workers", "1") as address, Client(address, connect_timeout=60.0) as client:
        assert client.run_local(model="gpt-4o", messages=HELLO).text
        before = engine_process(address, "-m headrace_workers")

        assert main(["restart", "--engine", address]) == ExitCode.OK
        wait_until(lambda: not Path(f"/proc/{before}").exists(), 20.0, "the end of the worker")
        assert engine_process(address, "-m headrace_workers") != before
        assert client.run_local(model="gpt-4o", messages=HELLO).text
    assert "one after another" in capsys.readouterr().out


def test_restart_without_an_engine_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restart", "--engine", f"ipc://{tmp_path}"]) == ExitCode.UNAVAILABLE
    assert "no engine runs" in capsys.readouterr().err


def test_a_runtime_directory_that_is_too_long_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = tmp_path / ("long" * 25)
    runtime.mkdir(mode=0o700)
    monkeypatch.delenv("HEADRACE_ENGINE", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))

    for command, option in (("serve", "--directory"), ("restart", "--engine"), ("status", "--engine")):
        assert main([command]) == ExitCode.USAGE
        said = capsys.readouterr().err
        assert "XDG_RUNTIME_DIR" in said
        assert option in said
    assert list(runtime.iterdir()) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a directory away")
def test_every_command_names_the_owner_of_an_engine_of_another_user(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directory = tmp_path / "e"
    directory.mkdir(mode=0o700)
    os.chown(directory, 54321, 54321)

    for command in (["restart"], ["status"], ["run", "Hello", "--model", "gpt-4o"]):
        assert main([*command, "--engine", f"ipc://{directory}"]) == ExitCode.UNAVAILABLE
        assert "belongs to user 54321" in capsys.readouterr().err
