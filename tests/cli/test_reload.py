"""``headrace reload`` changes a key without a restart: new runs use the new key, running streams go on with the old one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace import Client
from headrace.cli.main import main
from headrace.cli.shared.exit_codes import ExitCode
from headrace.testing import SimulatedProvider, key_hash
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import start
from tests.e2e.worker_processes import MODEL, tell_engine, worker_pids
from tests.waiting import wait_until

FIRST, SECOND, THIRD = (f"sk-{name}-0123456789abcdef" for name in ("first", "second", "third"))


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "headrace.toml"
    path.write_text('[keys.openai]\nfile = "keys"\n')
    (tmp_path / "keys").write_text(f"# the first key\n{FIRST}\n")
    return path


def keys_used(provider: SimulatedProvider) -> list[str]:
    names = {key_hash(key): key for key in (FIRST, SECOND, THIRD)}
    return [names.get(record.key, "another key") for record in provider.arrivals()]


@pytest.mark.slow
def test_a_key_is_replaced_while_a_stream_runs(
    provider: SimulatedProvider, settings_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = settings_file.with_name("keys")
    with (
        running_engine(provider, "--workers", "1", settings_file=settings_file) as engine,
        Client(engine, connect_timeout=60.0) as client,
    ):

        def run() -> str:
            assert client.run_local(model=MODEL, messages=HELLO).text
            return keys_used(provider)[-1]

        stream = start(client)
        chunks = iter(stream)
        next(chunks)
        assert run() == FIRST

        before = worker_pids(engine)
        keys.write_text("# none yet\n")
        assert main(["reload", "--engine", engine]) == ExitCode.USAGE
        assert f"the engine keeps its settings: {settings_file}: keys.openai.file: {keys} has no key in it" in (
            capfd.readouterr().err
        )
        tell_engine(engine, signal.SIGHUP)
        wait_until(lambda: "settings cannot be used" in capfd.readouterr().err, 10.0)
        assert worker_pids(engine) == before
        assert run() == FIRST

        keys.write_text(SECOND)
        assert main(["reload", "--engine", engine]) == ExitCode.OK
        wait_until(lambda: run() == SECOND, 40.0)
        next(chunks)
        assert keys_used(provider)[0] == FIRST, "the stream that still runs"

        stream.abort()
        keys.write_text(THIRD)
        tell_engine(engine, signal.SIGHUP)
        wait_until(lambda: run() == THIRD, 40.0)
        assert "another key" not in keys_used(provider)
        said = capfd.readouterr()
        assert not any(key in said.out + said.err for key in (FIRST, SECOND, THIRD))


def test_an_engine_does_not_start_with_keys_that_cannot_be_used(
    provider: SimulatedProvider, settings_file: Path, directory: Path
) -> None:
    settings_file.with_name("keys").unlink()
    environment = {**os.environ, **provider.environment, "HEADRACE_CONFIG": str(settings_file)}
    command = [sys.executable, "-m", "headrace_engine", "--directory", str(directory / "engine")]

    ended = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert ended.returncode == ExitCode.USAGE
    assert f"{settings_file}: keys.openai.file: {settings_file.with_name('keys')} cannot be read" in ended.stderr


@pytest.mark.slow
def test_an_embedded_engine_has_the_keys_of_a_table(provider: SimulatedProvider, settings_file: Path) -> None:
    settings_file.write_text('[keys.openai]\nenv = ["OUR_KEY"]\n')
    environment = {
        **os.environ, **provider.environment, "HEADRACE_CONFIG": str(settings_file), "OUR_KEY": SECOND,
        "OPENAI_API_KEY": "sk-not-this-one-0123456789",
    }  # fmt: skip
    command = [sys.executable, "-m", "headrace", "run", "Hello", "--model", MODEL]

    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == ExitCode.OK
    assert keys_used(provider) == [SECOND]

    environment["OUR_KEY"] = ""
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == ExitCode.USAGE
    assert "keys.openai.env[0]: OUR_KEY is empty or not set where the engine starts" in ended.stderr


def test_serve_tells_of_a_missing_key_before_it_prints_an_address(
    settings_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings_file.write_text('[keys.openai]\nenv = ["OUR_KEY"]\n')
    monkeypatch.setenv("HEADRACE_CONFIG", str(settings_file))
    monkeypatch.delenv("OUR_KEY", raising=False)

    assert main(["serve", "--directory", str(tmp_path / "e")]) == ExitCode.USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "keys.openai.env[0]: OUR_KEY is empty or not set where the engine starts; set it" in printed.err


def test_reload_without_an_engine_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reload", "--engine", f"ipc://{tmp_path}"]) == ExitCode.UNAVAILABLE
    assert "no engine runs" in capsys.readouterr().err
