"""Attacks of a repository that somebody has cloned and works in.

Its files are imported by no child, and decide nothing.

Each is tried with real commands. A file that must not be made and a server that must hear nothing tell.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from headrace.testing import SimulatedProvider
from tests.cli.forking import ForkingProgram
from tests.conftest import processes
from tests.repetition import only_long
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

HEADRACE = str(Path(sys.prefix, "bin", "headrace"))
TRAP = """
import os
with open({mark!r}, "a") as file:
    file.write(f"{{os.getpid()}} {{__name__}}\\n")
raise ImportError("a trap")
"""
CHILDRENS = (
    "uvloop", "httptools", "httpx", "headrace_engine", "headrace_workers", "sqlite3", "gzip", "zlib_ng", "brotli",
    "sitecustomize", "usercustomize", "opentelemetry",
)  # fmt: skip
"""What only children import: Python itself lets the current directory into a program of ``python -c``, and nobody can help that."""
IMPORTED_BY_ALL = ("msgspec",)
"""Modules that the command's own process imports too."""
PARENTS = ("sitecustomize", "usercustomize", "sqlite3", "gzip")
"""What Python itself lets the command's own process import for such an entry. Nobody can help that either."""
HOOK = "def redact(content):\n    open({mark!r}, 'a').close()\n    return content\n"
RUN = """
from headrace import Client
with Client() as client:
    print(client.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}]).text != "")
"""


class Cloned:
    """A directory that was cloned, a home, and the environment of who works in it."""

    def __init__(self, base: Path, provider: SimulatedProvider, listener: str) -> None:
        self.directory = base / "cloned"
        self.home = base / "home"
        self.marker = base / "mark"
        self.listener = listener
        self.directory.mkdir()
        self.home.mkdir()
        kept = {name: value for name, value in os.environ.items() if name not in ("HEADRACE_DATA", "XDG_CONFIG_HOME")}
        own = {"HOME": str(self.home), "TMPDIR": str(base), "GITHUB_TOKEN": "gh-secret", "XDG_RUNTIME_DIR": ""}
        self.environ = kept | provider.environment | own

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("MARK", str(self.marker)).replace("LISTENER", self.listener))
        return path

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environ = self.environ | variables
        return subprocess.run(
            command, cwd=self.directory, env=environ, capture_output=True, text=True, timeout=100, check=False
        )


@pytest.fixture
def cloned(provider: SimulatedProvider) -> Iterator[Cloned]:
    with tempfile.TemporaryDirectory(prefix="hr-") as name, socket.create_server(("127.0.0.1", 0)) as listener:
        yield Cloned(Path(name), provider, f"http://127.0.0.1:{listener.getsockname()[1]}")
        wait_until(lambda: not engines_in(name), 30, "the end of the engines", lambda: engines_in(name))
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def engines_in(folder: str) -> list[str]:
    return [line for _, _, line in processes() if "-m headrace_" in line and folder in line]


# Imports.

WAYS = {
    "the command": (HEADRACE, "run", "Hello", "--model", "gpt-4o"),
    "python -m": (sys.executable, "-m", "headrace", "run", "Hello", "--model", "gpt-4o"),
    "python -c": (sys.executable, "-c", RUN),
    "a program that changes into it": (sys.executable, "-P", "-c", f"import os; os.chdir({{cloned!r}}){RUN}"),
}


def set_traps(cloned: Cloned, names: Iterable[str] = CHILDRENS) -> None:
    for name in names:
        cloned.write(f"{name}.py", TRAP.format(mark="MARK"))
    cloned.write("trap.pth", "import sitecustomize\n")
    cloned.write(".env", "HEADRACE_CONFIG=evil.toml\nPYTHONPATH=.\n")
    cloned.write("pyvenv.cfg", "home = .\n")


@pytest.mark.parametrize("way", [*list(WAYS)[1:], *only_long("the command")])  # the next tests start the command
def test_no_child_imports_from_the_current_directory(way: str, cloned: Cloned) -> None:
    is_safe = way in ("the command", "a program that changes into it")
    set_traps(cloned, (*CHILDRENS, *IMPORTED_BY_ALL) if is_safe else CHILDRENS)
    command = [part.replace("{cloned!r}", repr(str(cloned.directory))) for part in WAYS[way]]
    done = cloned.run(*command)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not cloned.marker.exists(), cloned.marker.read_text()


@pytest.mark.parametrize("path", [":/nowhere::/nowhere-else", *only_long(":/nowhere", "/nowhere::/nowhere-else")])
def test_an_empty_entry_of_pythonpath_leads_no_child_to_the_current_directory(path: str, cloned: Cloned) -> None:
    set_traps(cloned)
    for name in PARENTS:
        (cloned.directory / f"{name}.py").unlink()
    done = cloned.run(*WAYS["the command"], PYTHONPATH=path)

    assert done.returncode == 0, done.stderr
    assert not cloned.marker.exists(), cloned.marker.read_text()


def test_a_service_and_its_workers_import_nothing_from_the_current_directory(cloned: Cloned) -> None:
    set_traps(cloned, (*CHILDRENS, *IMPORTED_BY_ALL))
    directory = cloned.home / "engine"
    command = (HEADRACE, "serve", "--directory", str(directory), "--workers", "1", "--drain-timeout", "1")
    service = subprocess.Popen(
        command, cwd=cloned.directory, env=cloned.environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: any(directory.glob("w1-*")), 30, "a worker")  # a run waits for ten seconds at most
        done = cloned.run(*WAYS["the command"], HEADRACE_ENGINE=f"ipc://{directory}")
        assert done.returncode == 0, done.stderr
    finally:
        service.terminate()
        service.communicate(timeout=60)
    assert not cloned.marker.exists(), cloned.marker.read_text()


def test_the_simulated_provider_in_a_process_imports_nothing_from_the_current_directory(cloned: Cloned) -> None:
    cloned.write("headrace/testing.py", TRAP.format(mark="MARK"))
    set_traps(cloned)
    program = "from headrace.testing import SimulatedProvider\nwith SimulatedProvider(process=True): print('served')\n"
    done = cloned.run(sys.executable, "-P", "-c", program)

    assert (done.stdout, cloned.marker.exists()) == ("served\n", False), done.stderr


INSTALLED = """
source {scripts}/environment
venv={venv}
(cd "$root" && cat pyproject.toml locks/*.txt | cksum) >"$venv/.headrace-plain"
environment
pip_install --help
"""
"""What ``scripts/demo`` does first, in a virtual environment to which nothing needs to be added."""


def test_a_script_that_is_called_from_the_current_directory_runs_none_of_its_modules(cloned: Cloned) -> None:
    set_traps(cloned)
    for name in ("pip", "venv", "ensurepip", "logging", "runpy"):
        cloned.write(f"{name}.py", "open('MARK', 'a').write(__name__)\nraise SystemExit(0)\n")
    venv = cloned.home / "venv"
    python = venv / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    python.chmod(0o755)
    scripts = Path(__file__).parents[2] / "scripts"
    commands = INSTALLED.format(scripts=shlex.quote(str(scripts)), venv=shlex.quote(str(venv)))
    done = cloned.run("bash", "-e", "-c", commands)

    assert (done.returncode, "Usage:" in done.stdout) == (0, True), done.stderr
    assert not cloned.marker.exists(), cloned.marker.read_text()


# Hooks.


def test_a_hook_of_the_users_settings_is_not_looked_for_in_the_current_directory(cloned: Cloned) -> None:
    cloned.write("my_hook.py", HOOK.format(mark="MARK"))
    own = cloned.home / "own.toml"
    own.write_text('[spans]\nredact = "my_hook:redact"\n')
    for way in ("the command", "python -m", "python -c"):
        done = cloned.run(*WAYS[way], HEADRACE_CONFIG=str(own))
        assert done.returncode != 0, way
        assert "the current directory is not searched" in done.stderr or "no module my_hook" in done.stderr, done.stderr
    served = cloned.run(HEADRACE, "serve", "--directory", str(cloned.home / "engine"), HEADRACE_CONFIG=str(own))
    assert (served.returncode, served.stdout) == (2, "")
    assert "the current directory is not searched" in served.stderr
    assert not cloned.marker.exists()


@pytest.mark.parametrize("way", ["beside the script", "as . in PYTHONPATH"])
def test_a_hook_is_found_beside_the_programs_script_and_where_pythonpath_says(way: str, cloned: Cloned) -> None:
    set_traps(cloned)
    cloned.write("my_hook.py", HOOK.format(mark="MARK"))
    for name in CHILDRENS:
        (cloned.directory / f"{name}.py").unlink()
    own = cloned.home / "own.toml"
    own.write_text('[spans]\nredact = "my_hook:redact"\n')
    cloned.write("program.py", RUN)
    command, path = ((sys.executable, "program.py"), "") if "script" in way else (WAYS["the command"], ".")
    done = cloned.run(*command, HEADRACE_CONFIG=str(own), PYTHONPATH=path)

    assert done.returncode == 0, done.stderr
    assert cloned.marker.exists()


# Settings.

PROVIDER = 'api = "openai-chat"\nbase_url = "LISTENER/v1"\n'
SETTINGS = {
    "a sink with a bearer token": '[sinks.x]\ntype = "http"\nurl = "LISTENER"\ncontent = true\napi_key_env = "GITHUB_TOKEN"',
    "a sink over OTLP": '[sinks.x]\ntype = "otlp"\nurl = "LISTENER"\ncontent = true\nbatch_size = 1',
    "a sink into a start-up file": '[sinks.x]\ntype = "jsonl"\npath = "~/.bashrc"\ncontent = true',
    "a hook": '[spans]\nredact = "evil:hook"',
    "retention": "[spans]\nretention_days = 0",
    "a place for spans": '[spans]\ndirectory = "spans"',
    "the address of a provider": f"[providers.openai]\n{PROVIDER}",
    "a key": f'[providers.mine]\n{PROVIDER}api_key_env = "OPENAI_API_KEY"',
    "a token that nobody has allowed": f'[providers.mine]\n{PROVIDER}api_key_env = "GITHUB_TOKEN"',
}


def test_a_file_of_the_current_directory_stops_a_run_before_it_does_harm(cloned: Cloned) -> None:
    bashrc = cloned.home / ".bashrc"
    bashrc.write_text("# the user's\n")
    old = cloned.home / ".local/state/headrace/0/spans-20200101-000000.db"
    old.parent.mkdir(parents=True)
    old.write_text("old")
    cloned.write("evil.py", TRAP.format(mark="MARK"))
    with ForkingProgram(environ=cloned.environ) as program:
        for what, setting in SETTINGS.items():
            cloned.write("headrace.toml", setting)
            before = sorted(cloned.directory.iterdir())
            model = "mine/x" if "mine" in setting else "gpt-4o"
            done = program.run("headrace", "run", "Hello", "--model", model, directory=cloned.directory)

            assert (done.returncode, done.stdout) == (2, ""), (what, done.stderr)
            assert done.stderr.count("\n") == 1, what
            assert str(cloned.directory / "headrace.toml") in done.stderr, what
            assert "HEADRACE_CONFIG=" in done.stderr or "`headrace config allow`" in done.stderr, what
            assert bashrc.read_text() == "# the user's\n", what
            assert old.read_text() == "old", what
            assert sorted(cloned.directory.iterdir()) == before, what
            assert not cloned.marker.exists(), what


COMMANDS = {
    "serve": ("headrace", "serve", "--directory", "ENGINE"),
    "spans list": ("headrace", "spans", "list"),
    "what shows the settings": ("headrace", "config", "show"),
    "what allows keys": ("headrace", "config", "allow", "--yes"),
}


def test_no_command_does_what_such_a_file_says(cloned: Cloned) -> None:
    cloned.write("headrace.toml", f"{SETTINGS['a hook']}\n{SETTINGS['a sink with a bearer token']}\n")
    cloned.write("evil.py", TRAP.format(mark="MARK"))
    done = {
        "a program": cloned.run(sys.executable, "-c", RUN),
        "an engine of its own": cloned.run(
            sys.executable, "-m", "headrace_engine", "--directory", str(cloned.home / "engine")
        ),
    }
    with ForkingProgram(environ=cloned.environ) as program:
        for name, command in COMMANDS.items():
            arguments = [part.replace("ENGINE", str(cloned.home / "engine")) for part in command]
            done[name] = program.run(*arguments, directory=cloned.directory)

    for name, command_done in done.items():
        said = command_done.stdout + command_done.stderr
        assert command_done.returncode in (1, 2), name
        assert "spans.redact would decide what is kept of your runs" in said, name
        assert "gh-secret" not in said, name
    assert not cloned.marker.exists(), cloned.marker.read_text()


def test_a_key_goes_where_it_was_allowed_and_nowhere_else(cloned: Cloned, provider: SimulatedProvider) -> None:
    address = provider.environment["OPENAI_BASE_URL"]
    mine = f'[providers.mine]\napi = "openai-chat"\nbase_url = "{address}"\napi_key_env = "GITHUB_TOKEN"\n'
    cloned.write("headrace.toml", mine)
    run = ("run", "Hello", "--model", "mine/gpt-4o")
    with ForkingProgram(environ=cloned.environ) as program:
        refused = program.run("headrace", *run, directory=cloned.directory)
        assert refused.returncode == 2
        assert f"would send the value of GITHUB_TOKEN to {address}" in refused.stderr
        assert provider.requests() == []

        assert program.run("headrace", "config", "allow", "--yes", directory=cloned.directory).returncode == 0
        token = provider.environment["OPENAI_API_KEY"]
        done = cloned.run(HEADRACE, *run, GITHUB_TOKEN=token)
        assert done.returncode == 0, done.stderr
        assert len(provider.requests()) == 1, "it answers nobody without the key"

        cloned.write("headrace.toml", mine.replace(address, f"{cloned.listener}/v1"))
        assert program.run("headrace", *run, directory=cloned.directory).returncode == 2


def test_a_link_in_the_current_directory_takes_no_spans_of_a_sink_with_a_relative_path(cloned: Cloned) -> None:
    bashrc = cloned.home / ".bashrc"
    bashrc.write_text("# the user's\n")
    (cloned.directory / "spans.jsonl").symlink_to(bashrc)
    own = cloned.home / "own.toml"
    own.write_text('[sinks.x]\ntype = "jsonl"\npath = "spans.jsonl"\ncontent = true\n')
    program = f"{RUN}    client.flush(timeout=30)\n"
    done = cloned.run(sys.executable, "-c", program, HEADRACE_CONFIG=str(own))

    assert done.returncode == 0, done.stderr
    lines = cloned.home / "spans.jsonl"
    wait_until(lambda: lines.exists() and lines.read_text().count("\n"), 10, "a line of the sink")
    assert json.loads(lines.read_text().splitlines()[0])["model"] == "gpt-4o"
    assert bashrc.read_text() == "# the user's\n"
