"""What the tests share: a simulated provider in a process of its own, and a client with an embedded engine on it."""

from __future__ import annotations

import gc
import getpass
import importlib.util
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_timeout

from headrace import Client
from headrace.testing import RequestRecord, SimulatedProvider
from tests.leftovers import described, entries_of_user, own_folder, processes_with
from tests.redis_server import RedisServer, running_redis
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

ROOT = Path(__file__).resolve().parent.parent
HELLO = [{"role": "user", "content": "Hello"}]


def pytest_configure() -> None:
    """Let Hypothesis try fewer examples unless asked for all; none of them fails by its clock, because the machine may be busy."""
    import hypothesis  # here: programs of the tests import this file too

    patient = hypothesis.settings(
        max_examples=repeated(40, 100), deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.register_profile("patient", patient)
    hypothesis.settings.load_profile("patient")


def pytest_collection_finish() -> None:
    """Keep the modules of all tests out of garbage collections. These take a quarter of a second, which some tests would measure."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Remove the folder that pytest makes for its user, which is empty after a run without failures."""
    with suppress(OSError, KeyError):
        (Path(tempfile.gettempdir()) / f"pytest-of-{getpass.getuser()}").rmdir()


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> object:
    """Give a test more time on a busy machine: the timeout finds tests that hang, not tests that are slow."""
    patient = settings._replace(timeout=settings.timeout * busyness())
    return pytest_timeout.pytest_timeout_set_timer(item, patient)


SETTINGS = ("OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "OTEL_", "HEADRACE_", "GUNICORN_", "UVICORN_")
OF_THE_TESTS = ("HEADRACE_WIRE", "HEADRACE_FAULT_SEED", "HEADRACE_FAULTS_LONG")


def is_setting(variable: str) -> bool:
    """Whether a variable of the machine would change what the tests see."""
    is_general = variable.lower() in {"http_proxy", "https_proxy", "all_proxy", "no_proxy"} or variable.endswith(
        "_API_KEY"
    )
    return (variable.startswith(SETTINGS) or is_general) and variable not in OF_THE_TESTS


def hear_signals() -> None:
    """Let the programs that tests start hear signals that this process ignores.

    ``nohup`` ignores SIGHUP, a shell's ``&`` SIGINT. A signal that is ignored stays so in each program that is started; one that
    is handled does not.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda _number, _frame: None)


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep settings of the machine away from the tests, and spans of the tests away from the user's."""
    hear_signals()
    # pytest's own folders have paths that are too long for sockets.
    with leaving_nothing(Path("/tmp")) as folder, pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if is_setting(name):
                patch.delenv(name)
        patch.delenv("XDG_RUNTIME_DIR", raising=False)
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # each start of Python would compile all modules again
        # What tests start, gunicorn for one, would write to the user's own.
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HEADRACE_DATA", str(tmp_path_factory.mktemp("data")))
        patch.setenv("XDG_CONFIG_HOME", str(_configuration(tmp_path_factory.mktemp("configuration"))))
        if importlib.util.find_spec("gunicorn.ctl") is not None:
            patch.setenv("GUNICORN_CMD_ARGS", "--no-control-socket")  # it would be in the home directory
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield


def _configuration(home: Path) -> Path:
    """Write the user's settings. A failure of a provider is the end of a run: tests of retries ask for them."""
    file = home / "headrace" / "headrace.toml"
    file.parent.mkdir()
    file.write_text("[engine]\nmax_retries = 0\n")
    return home


@contextmanager
def leaving_nothing(parent: Path) -> Iterator[Path]:
    """Make a temporary folder; at the end, fail if the tests have left processes, or files in it or in the user's directories."""
    users = (Path.home(), Path(tempfile.gettempdir()))  # before the tests get directories of their own
    before = entries_of_user(*users)
    folder = own_folder(parent)
    try:
        yield folder
        wait_until(
            lambda: not processes_with(str(folder)),
            20.0,
            "the end of all processes",
            lambda: processes_with(str(folder)),
        )
        # An engine that the user has started meanwhile is no concern of the tests.
        new = {entry for entry in entries_of_user(*users) - before if not processes_with(str(entry))}
        left = sorted({*folder.iterdir(), *new})
        assert not left, f"the tests have left {', '.join(map(described, left))}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the signal handlers after each test: a command in this process makes Ctrl-C deadly."""
    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    yield
    for number, handler in handlers:
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


class PatientProvider(SimulatedProvider):
    """A simulated provider that waits longer for its requests on a busy machine."""

    def wait_until(
        self, predicate: Callable[[list[RequestRecord]], object], timeout: float = 10.0
    ) -> list[RequestRecord]:
        return super().wait_until(predicate, timeout * busyness())


@pytest.fixture(scope="session")
def session_provider(_environment: None) -> Iterator[SimulatedProvider]:
    with PatientProvider(process=True) as simulated, pytest.MonkeyPatch.context() as patch:
        for name, value in simulated.environment.items():
            patch.setenv(name, value)
        yield simulated


@pytest.fixture
def provider(session_provider: SimulatedProvider) -> SimulatedProvider:
    session_provider.clear()
    return session_provider


@pytest.fixture(scope="session")
def client(session_provider: SimulatedProvider) -> Iterator[Client]:
    with Client() as shared:
        yield shared  # leaving_nothing waits for the end of its engine


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def simulate(**script: Any) -> dict[str, Any]:
    """Return ``custom_options`` that tell the simulated provider how to answer this run."""
    return {"simulate": script}


def processes() -> Iterator[tuple[int, int, str]]:
    """Yield each process of the machine: its id, its parent's, its command line."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            yield (
                int(entry.name),
                parent,
                (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"),
            )


def engine_processes(parent: int) -> list[str]:
    """Return the command lines of the engine processes below ``parent``."""
    known = list(processes())
    below = {parent}
    for _ in range(4):  # a program, its supervisor, the supervisor's children
        below |= {pid for pid, above, _ in known if above in below}
    return sorted(line for pid, _, line in known if pid in below and "-m headrace_" in line)


def engine_process(address: str, marker: str) -> int:
    """Return the process id of the engine process at ``address`` that has ``marker`` in its command line."""
    directory = address.removeprefix("ipc://")
    return next(pid for pid, _, line in processes() if marker in line and directory in line)
