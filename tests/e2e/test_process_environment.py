"""Each process of an engine has the variables that it needs and no other secrets, and leaves no memory behind when it crashes."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from headrace import Client, ProviderUnavailableError
from headrace.process.child_environment import Role, environment_of
from headrace.settings.settings import load_settings
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, engine_process, processes
from tests.e2e.engines import running_engine

pytestmark = pytest.mark.slow

SECRETS = {
    "OPENAI_API_KEY": "provider",
    "GEMINI_API_KEY": "provider",
    "HR_OWN_PROVIDER": "provider",
    "HR_OWN_SINK": "sink",
    "OTEL_EXPORTER_OTLP_HEADERS": "sink",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "sink",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "sink",
    "HTTPS_PROXY": "proxy",
    "all_proxy": "proxy",
    "OPENAI_BASE_URL": "address",
    "AWS_SECRET_ACCESS_KEY": "other",
    "DATABASE_URL": "other",
    "GITHUB_TOKEN": "other",
    "UV_PUBLISH_TOKEN": "other",
    "NIX_CONFIG": "other",
    "COVERALLS_REPO_TOKEN": "other",
    "HEADRACE_SPARE_KEY": "other",
    "MY_PASSWORD": "other",
    "npm_config__auth": "other",
}
"""Variables with a secret in them, and whose it is."""
NEEDED: dict[Role, set[str]] = {
    "broker": set(),
    "worker": {"provider", "proxy", "address"},
    "collector": {"sink", "proxy"},
    "supervisor": {"provider", "proxy", "address", "sink"},
}
CONFIG = """
[providers.own]
api = "openai-chat"
base_url = "http://127.0.0.1:9/v1"
api_key_env = "HR_OWN_PROVIDER"

[sinks.away]
type = "http"
url = "http://127.0.0.1:9"
api_key_env = "HR_OWN_SINK"
"""
HOOK = '[spans]\nredact = "json:loads"\n'


def with_secrets(folder: Path, more: str = "") -> dict[str, str]:
    """Return variables with a secret in each; the file with the settings is in ``folder``."""
    (folder / "headrace.toml").write_text(CONFIG + more)
    values = {name: f"http://me:{secrets.token_hex(20)}@127.0.0.1:9/" for name in SECRETS}
    return {**values, "HEADRACE_CONFIG": str(folder / "headrace.toml"), "PATH": "/bin", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("role", NEEDED)
def test_a_process_gets_the_secrets_that_it_needs(role: Role, tmp_path: Path) -> None:
    environ = with_secrets(tmp_path)
    given = environment_of(role, environ, load_settings(environ))

    assert {name for name in given if name in SECRETS} == {name for name in SECRETS if SECRETS[name] in NEEDED[role]}
    assert {"HEADRACE_CONFIG", "PATH", "LC_ALL"} <= set(given)


@pytest.mark.parametrize(("role", "never"), [("worker", {"sink"}), ("collector", {"provider", "address"})])
def test_a_hook_may_use_any_variable_but_the_secrets_of_the_other_process(
    role: Role, never: set[str], tmp_path: Path
) -> None:
    environ = with_secrets(tmp_path, HOOK)
    given = environment_of(role, environ, load_settings(environ))

    assert set(environ) - set(given) == {name for name in SECRETS if SECRETS[name] in never}


def test_a_hook_changes_nothing_for_the_broker(tmp_path: Path) -> None:
    environ = with_secrets(tmp_path, HOOK)

    assert not set(SECRETS) & set(environment_of("broker", environ, load_settings(environ)))


def test_a_variable_for_a_provider_and_a_sink_is_both_processes(tmp_path: Path) -> None:
    environ = with_secrets(
        tmp_path, '[sinks.too]\ntype = "http"\nurl = "http://x.test"\napi_key_env = "OPENAI_API_KEY"'
    )
    settings = load_settings(environ)

    assert all("OPENAI_API_KEY" in environment_of(role, environ, settings) for role in ("worker", "collector"))
    assert "OPENAI_API_KEY" not in environment_of("broker", environ, settings)


def started_with(pid: int) -> Mapping[str, str]:
    block = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(entry.split("=", 1) for entry in block.split("\0") if "=" in entry)


@pytest.fixture(scope="module")
def environ(session_provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The provider's own variables are set before, so that they are there again afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        environ = with_secrets(tmp_path_factory.mktemp("settings"))
        del environ["PATH"]
        environ["OPENAI_BASE_URL"] = "http://127.0.0.1:9/v1"
        for name, value in environ.items():
            patch.setenv(name, value)
        yield environ


@pytest.fixture(scope="module")
def address(environ: dict[str, str], session_provider: SimulatedProvider) -> Iterator[str]:
    with running_engine(session_provider, "--workers", "1", wrapper=SERVE) as served:
        yield served


SERVE = [
    sys.executable,
    "-c",
    "import sys; from headrace.cli.main import main; sys.argv[1:4] = ['serve']; sys.exit(main())",
]
"""What ``python -m headrace_engine`` is the last word of: instead of it, the command that becomes an engine."""
MARKERS: dict[Role, str] = {
    "broker": "headrace_engine broker",
    "collector": "headrace_engine collector",
    "worker": "--name w1 ",
    "supervisor": "headrace_engine --directory",
}


@pytest.mark.parametrize("role", NEEDED)
def test_what_the_kernel_shows_of_a_process_holds_no_secret_that_it_does_not_need(
    role: Role, address: str, environ: dict[str, str]
) -> None:
    pid = engine_process(address, MARKERS[role])
    shown = "\0".join(f"{name}={value}" for name, value in started_with(pid).items())
    given = {name for name in SECRETS if environ[name] in shown and name != "OPENAI_BASE_URL"}

    assert {SECRETS[name] for name in given} == NEEDED[role] - {"address"}


def test_no_command_line_has_a_secret_in_it(address: str, environ: dict[str, str]) -> None:
    lines = [line for _, _, line in processes() if address.removeprefix("ipc://") in line]

    assert len(lines) >= len(NEEDED)
    assert not [line for line in lines for name in SECRETS if environ[name] in line and name != "OPENAI_BASE_URL"]


@pytest.mark.parametrize("role", NEEDED)
def test_a_process_that_crashes_leaves_no_memory_behind(role: Role, address: str) -> None:
    pid = engine_process(address, MARKERS[role])
    limits = Path(f"/proc/{pid}/limits").read_text()

    # One byte: a limit of zero does not keep the kernel from piping the memory to a program.
    assert re.search(r"Max core file size\s+(1\s+1|0\s+0)\s", limits)
    assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0


DUMP = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
os.chdir(sys.argv[1])
if sys.argv[2:]:
    from headrace.process.lifecycle import forbid_core_dumps
    forbid_core_dumps()
os.abort()
"""


def test_no_core_is_dumped_where_the_machine_dumps_them(tmp_path: Path) -> None:
    dumped = {}
    for name, *options in (("with",), ("without", "forbidden")):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", DUMP, tmp_path / name, *options], check=False, timeout=60)
        dumped[name] = list((tmp_path / name).iterdir())
    if not dumped["with"]:
        pytest.skip("this machine dumps no cores into the current directory")

    assert dumped["without"] == []


WITHOUT_LIMIT = """
import ctypes, os, resource, signal, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if os.getuid() == 0:  # root may raise a hard limit
    os.setgroups([]); os.setresgid(54321, 54321, 54321); os.setresuid(54321, 54321, 54321)
from headrace.process.lifecycle import forbid_core_dumps
forbid_core_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""


def test_where_the_limit_is_zero_already_the_process_cannot_be_dumped() -> None:
    program = "import headrace.process.lifecycle\n" + WITHOUT_LIMIT
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "(0, 0) 0\n"


@pytest.mark.usefixtures("_without_engine")
def test_no_process_of_an_embedded_engine_has_a_providers_key(environ: dict[str, str]) -> None:
    with Client(connect_timeout=30.0) as client:
        with pytest.raises(ProviderUnavailableError):
            client.run_local(model="own/m", messages=HELLO)
        known = list(processes())
        mark = f"--parent {os.getpid()} "
        supervisors = [pid for pid, _, line in known if "-m headrace_engine" in line and mark in f"{line} "]
        shown = [started_with(pid) for pid, parent, _ in known if {pid, parent} & set(supervisors)]

    keys = [environ[name] for name in SECRETS if SECRETS[name] in ("provider", "other")]
    assert len(shown) >= len(NEEDED)
    assert not [name for variables in shown for name, value in variables.items() if value in keys]
