"""Replaces clocks, sockets, loops, processes and HTTP under the product's shells by simulated ones.

The shells themselves are the real ones, so that what is simulated cannot drift from what runs. A name that is here and not in
the product any more makes every schedule fail at once, and says which.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, cast

from headrace.process.clock import monotonic
from headrace.process.epoch import new_epoch
from headrace.process.lifecycle import ProcessOrigin
from headrace.settings.settings import Settings
from headrace.transport.reactor import Reactor
from tests.simulation.byte_sockets import ByteDealer, ByteNetwork, ByteRouter
from tests.simulation.io_threads import InjectedError, InjectedExit, SimGuarded, SimIoThread, SimThread, SimWatchdog
from tests.simulation.loops import SimLoop, SimReactor, SimWatch, new_descriptor, signal_end
from tests.simulation.provider_calls import ScriptedProvider, SimHttp
from tests.simulation.simulated_sockets import Network, SimDealer, SimRouter
from tests.simulation.world import Host, SimulationViolation, World

DIRECTORY = Path("/simulated")
_PACKAGES = ("headrace", "headrace_engine", "headrace_workers")


class Stage:
    """What a schedule consists of; the edges reach it here."""

    def __init__(self, world: World, *, sends_bytes: bool = False) -> None:
        self.world = world
        self.network: Network | ByteNetwork = ByteNetwork(world) if sends_bytes else Network(world)
        self.provider = ScriptedProvider(world)
        self.start: Callable[[list[str]], Host]
        """Starts the process of a command line."""
        self.settings: Settings
        """What the engine's settings files say."""
        self.files: dict[Path, tuple[float, bytes]] = {}
        """The state of the limits by the engine's directory, and when it was written."""
        self.opened: dict[int, Host] = {}
        """Processes by their handles."""


_stage: Stage


def enter(stage: Stage) -> None:
    """Make a stage the one that the edges reach."""
    global _stage  # noqa: PLW0603 - one schedule runs at a time
    _stage = stage


def stage() -> Stage:
    """Return the stage of the schedule that runs."""
    return _stage


@contextlib.contextmanager
def installed(checked: dict[str, Any]) -> Iterator[None]:
    """Replace all edges, and the objects in ``checked`` (dotted name → replacement)."""
    changes = {**_modules(threading.get_ident()), **_edges(), **checked}
    before: list[tuple[Any, str, Any]] = []
    logger = logging.getLogger("headrace")
    loggers = [logger, logging.getLogger("headrace_engine"), logging.getLogger("headrace_workers")]
    handler = _LogHandler()
    try:
        for name, replacement in changes.items():
            module_name, _, attribute = name.rpartition(".")
            module = importlib.import_module(module_name)
            before.append((module, attribute, getattr(module, attribute)))
            setattr(module, attribute, replacement)
        for known in loggers:
            known.addHandler(handler)
            known.setLevel(logging.ERROR)
            known.propagate = False
        yield
    finally:
        for module, attribute, value in reversed(before):
            setattr(module, attribute, value)
        for known in loggers:
            known.removeHandler(handler)
            known.setLevel(logging.NOTSET)
            known.propagate = True


class _LogHandler(logging.Handler):
    """An error in the log of a shell is a finding: something unexpected was raised."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, InjectedError | InjectedExit):
            return
        raise SimulationViolation(f"logged as an error: {record.getMessage()}: {error!r}") from error


def _modules(thread: int) -> dict[str, Any]:
    """Return the replacements of time and chance in each module of the product that imports them."""
    clock = _Clock(thread)
    ours: dict[object, object] = {
        time: clock, monotonic: clock.monotonic, random: _Chance(), new_epoch: _epoch
    }  # fmt: skip
    return {
        f"{name}.{attribute}": ours[value]
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in _PACKAGES and not name.startswith("headrace.testing")
        for attribute, value in vars(module).items()
        if isinstance(value, ModuleType | FunctionType | partial) and value in ours
    }


class _Clock:
    """In place of the module ``time``. What is not here no shell may use.

    Only one thread simulates. The others are those of a real client in this process: their time is real.
    """

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def monotonic(self) -> float:
        return _stage.world.now if threading.get_ident() == self._thread else time.monotonic()

    def time(self) -> float:
        return _stage.world.now + _stage.world.wall if threading.get_ident() == self._thread else time.time()

    def time_ns(self) -> int:
        return int(self.time() * 1e9)

    def thread_time(self) -> float:
        return self.monotonic()


class _Chance:
    """In place of the module ``random``."""

    def __getattr__(self, name: str) -> object:
        return getattr(_stage.world.random, name)


def _epoch() -> int:
    """In place of ``new_epoch``: a client's epoch is its number."""
    if _stage.world.current.name.startswith("client"):
        return 2
    return _stage.world.random.getrandbits(31) + 1


def _edges() -> dict[str, Any]:
    signals = _Signals()
    engine, workers, server = "headrace_engine", "headrace_workers", "headrace.transport.peer_server"
    return {
        "headrace.connections.engine_runs.GuardedLoop": SimGuarded,
        "headrace.runs.delivery.run_elsewhere": _run_each,
        "headrace.connections.client_process.start_io_thread": _start_io_thread,
        "headrace.connections.client_process.Watchdog": _watchdog,
        "headrace.connections.run_links.UnixDealer": _dealer,
        "headrace.connections.engine_runs.UnixDealer": _dealer,
        f"{server}.os": SimpleNamespace(getpid=lambda: _stage.world.current.pid),
        f"{server}.Router": _router,
        f"{server}.ProcessWatch": _watch,
        f"{server}.origin": _origin,
        f"{server}.ticks_at": _ticks_at,
        f"{engine}.broker.broker.os": SimpleNamespace(getpid=lambda: _stage.world.current.pid),
        f"{engine}.broker.broker.signal": signals,
        f"{engine}.broker.broker.Reactor": _reactor,
        f"{engine}.broker.broker.StateFile": _StateFile,
        f"{engine}.broker.settings_reload.load_settings": lambda _environ: _stage.settings,
        f"{engine}.broker.broker.is_orphan": _is_orphan,
        f"{engine}.broker.broker.open_process": _open_process,
        f"{engine}.broker.broker.processor_seconds": lambda _pid: None,
        f"{engine}.broker.broker.processor_wait": lambda _pid: None,
        f"{engine}.supervisor.broker_watch.processor_wait": lambda _pid: None,
        "headrace.connections.engine_link.origin": _origin,
        f"{workers}.broker_link.is_sibling": _is_sibling,
        f"{engine}.broker.broker.raise_limit": _descriptor_limit,
        f"{engine}.supervisor.supervisor.os": SimpleNamespace(getpid=lambda: _stage.world.current.pid, environ={}),
        f"{engine}.supervisor.supervisor.sys": SimpleNamespace(
            executable="python", stdin=_Stdin(), stderr=io.StringIO()
        ),
        f"{engine}.supervisor.supervisor.signal": signals,
        f"{engine}.supervisor.supervisor.TerminalHangup": _Hangup,
        f"{engine}.supervisor.supervisor.Reactor": _reactor,
        f"{engine}.supervisor.broker_watch.UnixDealer": _dealer,
        f"{engine}.supervisor.supervisor.is_orphan": _is_orphan,
        f"{engine}.supervisor.supervisor.open_process": _open_process,
        f"{engine}.supervisor.supervisor.adopts_orphans": lambda: False,
        f"{engine}.supervisor.children.os": SimpleNamespace(close=lambda _: None, environ={}),
        f"{engine}.supervisor.children.subprocess": SimpleNamespace(Popen=_Popen, DEVNULL=None),
        f"{engine}.supervisor.children.open_process": _open_process,
        f"{engine}.supervisor.children.origin": _origin,
        f"{engine}.supervisor.children.signal_process": _signal_process,
        f"{workers}.worker.is_orphan": _is_orphan,
        f"{workers}.worker.HttpClient": _http,
        f"{workers}.worker.raise_limit": _descriptor_limit,
        f"{workers}.broker_link.UnixDealer": _dealer,
    }


class _StateFile:
    """In place of the file with the state of the limits."""

    def __init__(self, directory: Path) -> None:
        self._files = _stage.files
        self._directory = directory

    def read(self, now: float) -> bytes | None:
        saved_at, state = self._files.get(self._directory, (now, None))
        assert saved_at <= now
        return state

    def write(self, state: bytes, now: float) -> None:
        self._files[self._directory] = (now, state)


class _Stdin:
    def fileno(self) -> int:
        return 0


class _Hangup:
    def has_terminal_closed(self) -> bool:
        return False


class _Signals:
    """In place of the module ``signal``."""

    def signal(self, number: int, handler: Callable[[int, object], object]) -> None:
        _stage.world.current.signals[number] = partial(_handle, handler, number)

    def __getattr__(self, name: str) -> object:
        return getattr(signal, name)


def _handle(handler: Callable[[int, object], object], number: int) -> None:
    handler(number, None)


class _Popen:
    """In place of ``subprocess.Popen``."""

    def __init__(self, command: list[str], stdin: object = None, env: object = None) -> None:  # noqa: ARG002 - Popen's
        self._host = _stage.start(command)
        self.pid = self._host.pid

    def poll(self) -> int | None:
        if self._host.is_alive:
            return None
        kind, _, number = self._host.status.partition(", ")[0].rpartition(" ")
        return -int(number) if kind == "signal" else int(number)

    def wait(self, timeout: float | None = None) -> int | None:  # noqa: ARG002 - Popen's
        return self.poll()


def _dealer(endpoint: str, expects: Callable[[int], bool] | None = None) -> SimDealer | ByteDealer:
    return _stage.network.dealer(endpoint, expects)


def _router(endpoint: str, *limits: object) -> SimRouter | ByteRouter:
    return _stage.network.router(endpoint)


def _reactor() -> SimReactor:
    return SimReactor(_stage.world.current)


def _start_io_thread(serve: Callable[[Reactor], None]) -> tuple[SimIoThread, SimThread]:
    reactor = SimIoThread(_stage.world.current, serve)
    return reactor, SimThread()


def _watchdog(runs: Callable[[], Any]) -> SimWatchdog:
    return SimWatchdog(_stage.world, runs)


def _run_each(jobs: list[Callable[[], object]]) -> None:
    for job in jobs:
        job()


def _watch(loop: SimReactor | SimLoop) -> SimWatch:
    return SimWatch(_stage.world, loop)


def _http(loop: object, **settings: object) -> SimHttp:
    return SimHttp(_stage.provider)


def _descriptor_limit() -> int:
    return 100_000


def _is_orphan(parent: int) -> bool:
    return not _stage.world.hosts[parent].is_alive


def _origin(pid: int) -> ProcessOrigin | None:
    host = _stage.world.hosts[pid]
    return (
        ProcessOrigin(host.parent.pid if host.parent is not None else 1, _ticks_at(host.started_at))
        if host.is_alive
        else None
    )


def _is_sibling(pid: int) -> bool:
    return _stage.world.hosts[pid].parent is _stage.world.current.parent


def _ticks_at(moment: float) -> int:
    return int(moment * 100)


def _open_process(pid: int) -> int:
    descriptor = new_descriptor(_stage.world)
    loop = cast("SimReactor", _stage.world.current.loop)
    signal_end(_stage.world.hosts[pid], loop.descriptors, descriptor)
    _stage.opened[descriptor] = _stage.world.hosts[pid]
    return descriptor


def _signal_process(descriptor: int, number: int) -> None:
    host = _stage.opened[descriptor]
    if number == signal.SIGKILL:
        host.kill()
    else:
        host.signal(number)
