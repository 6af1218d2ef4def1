"""The processes of a schedule: an engine and its clients, made of the real shells on simulated edges."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

from headrace.connections.client_process import ClientProcess
from headrace.connections.connection import Connection
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.settings.limit_settings import LimitConfig
from headrace.settings.settings import EngineConfig, ProviderConfig, Settings, SpansConfig
from headrace.wire.messages import Silent
from headrace_engine.broker.broker import Broker
from headrace_engine.broker.broker_limits import EngineLimits
from headrace_engine.limits.gates import PoolGates
from headrace_engine.supervisor.supervisor import Supervisor, SupervisorSettings
from headrace_workers.worker import Worker, WorkerSettings
from tests.simulation.admission_model import CheckedAdmission
from tests.simulation.callers import Caller
from tests.simulation.edges import DIRECTORY, Stage
from tests.simulation.io_threads import SimIoThread
from tests.simulation.loops import SimLoop, SimReactor, run_main
from tests.simulation.plans import (
    CONNECT_TIMEOUT,
    ENGINE_CONNECT_TIMEOUT,
    FIRST_CHUNK_TIMEOUT,
    IDLE_TIMEOUT,
    STALLED_READER_TIMEOUT,
    TOTAL_TIMEOUT,
    Order,
    Plan,
)
from tests.simulation.world import Host

_NO_SPANS = SpansConfig(enabled=False)
_START_TIME = 0.15
"""Seconds that a process takes from its start until it serves."""


class SimClient:
    """A program with a client."""

    def __init__(self, stage: Stage, number: int, told: Callable[[Caller], None]) -> None:
        world = stage.world
        self.host = Host(world, f"client{number}")
        self.callers: list[Caller] = []
        self.is_closing = False
        self.process: ClientProcess
        self.connection: Connection
        self.stops = cast("Host", object())
        """Under this name a stop of the I/O thread is noted: the rest of the process goes on."""
        self._stage = stage
        self._told = told
        self._number = number

    def open(self, supervisor: Host | None) -> None:
        """Make the connection. ``supervisor`` is that of an embedded engine."""
        self._stage.world.acting(self.host, lambda: self._open(_Source(supervisor)))

    def _open(self, source: _Source) -> None:
        process: Any = ClientProcess()
        process.epoch = 1 + self._number
        process.embedded = source
        self.process = process
        self._connect()

    def _connect(self) -> None:
        self.connection = self.process.connection(None, ENGINE_CONNECT_TIMEOUT, 0, TOTAL_TIMEOUT)

    @property
    def io_thread(self) -> SimIoThread:
        """The I/O thread that the program has now."""
        return cast("SimIoThread", cast("Any", self.process)._reactor)

    def submit(self, order: Order) -> None:
        """Have the program ask for a run."""
        self._connect()
        submit = partial(self.process.submit, self.connection)
        self.callers.append(Caller(order, self.host, self.connection, submit, self._stage.provider, self._told))

    def close(self) -> None:
        """Have the program close its client."""
        self.is_closing = True
        self.connection.post_close(lambda: None)


class _Source:
    """Where the engine is: one of the program's own, which can end, or one that somebody else runs."""

    address = "simulated"
    hint = "it is simulated"

    def __init__(self, supervisor: Host | None) -> None:
        self._supervisor = supervisor

    def open(self) -> str:
        return f"ipc://{DIRECTORY / 'broker'}"

    def is_broker(self, pid: int) -> bool:  # noqa: ARG002 - the source's form
        return True

    @property
    def is_running(self) -> bool:
        return True

    def why_gone(self) -> str | None:
        if self._supervisor is None or self._supervisor.is_alive:
            return None
        return "it ended"

    def error(self, reason: str) -> HeadraceError:
        return EngineUnavailableError(self.address, reason)

    def is_starting(self) -> bool:
        return False

    def end_of_log(self) -> str:
        return ""

    def close(self) -> None:
        """It ends with its program."""


class SimSupervisor(Supervisor):
    """The real supervisor. What it does at its end waits for the end, since ``run`` returns at once here."""

    on_hung: Callable[[Silent], None]

    def _prepare_directory(self) -> None:
        pass

    def _clean_directory(self) -> None:
        pass

    def _remove_socket(self, child: Any) -> None:
        pass

    def _kill_all(self) -> None:
        if cast("SimReactor", self._reactor).is_stopping:
            super()._kill_all()

    def _end_hung(self, silent: Silent) -> None:
        self.on_hung(silent)
        super()._end_hung(silent)


class SimEngine:
    """One engine: its supervisor, and the processes that the supervisor starts."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.supervisor = Host(stage.world, "super")
        self.shell: SimSupervisor
        self.broker: Host | None = None
        self.brokers = 0
        self.workers: dict[int, Host] = {}
        """Worker processes by epoch, dead ones too."""
        self.by_epoch: dict[int, Host] = {}
        """The same, with brokers."""
        self.shells: dict[int, Broker | Worker] = {}
        """Process id → process that serves."""
        self.on_worker_end: Callable[[Host, int], None]
        """Called when a worker's process ends, before its connections do."""
        self._stage = stage
        self._plan = plan
        self._settings = stage.settings = _settings(plan)
        stage.provider.says_limits = plan.says_limits
        stage.start = self._start

    def start(self, plan: Plan, parent: Host | None) -> None:
        """Start the supervisor."""
        settings = SupervisorSettings(
            directory=DIRECTORY,
            workers=plan.workers,
            parent=parent.pid if parent is not None else None,
            drain_timeout=3.0,
            spans=_NO_SPANS,
            environments={"broker": {}, "collector": {}, "worker": {}},
        )

        def run() -> None:
            self.shell = SimSupervisor(settings)
            reactor_of(self.shell).at_stop = self.shell._kill_all
            self.shell.run()

        self._stage.world.acting(self.supervisor, run)

    def serving(self, host: Host) -> Broker | Worker | None:
        """Return the shell of a process, once it serves and while it lives."""
        return self.shells.get(host.pid) if host.is_alive else None

    def _start(self, command: list[str]) -> Host:
        """Start the process of a command line."""
        world = self._stage.world
        epoch = int(command[command.index("--epoch") + 1])
        if "headrace_workers" in command:
            name = command[command.index("--name") + 1]
            host = self.workers[epoch] = Host(world, f"{name}-{len(self.workers)}", self.supervisor)
            boot = partial(self._boot_worker, host, name, epoch)
            host.at_end.append(partial(self.on_worker_end, host, epoch))
        else:
            self.brokers += 1
            host = self.broker = Host(world, "broker", self.supervisor)
            boot = partial(self._boot_broker, host)
        self.by_epoch[epoch] = host
        world.note(host, "is started")
        host.act(world.now + _START_TIME * (0.5 + world.random.random()), boot)
        return host

    def _boot_worker(self, host: Host, name: str, epoch: int) -> None:
        loop: Any = SimLoop(host)
        settings = WorkerSettings(directory=DIRECTORY, name=name, epoch=epoch, parent=self.supervisor.pid)
        worker = Worker(settings, self._settings, loop)
        self.shells[host.pid] = worker
        run_main(host, worker.run())

    def _boot_broker(self, host: Host) -> None:
        gates = PoolGates(self._settings, self._stage.world.random.uniform)
        broker = Broker(DIRECTORY, self._settings.engine, self.supervisor.pid, limits=EngineLimits(gates))
        admission_of(broker).max_concurrency = self._plan.max_concurrency
        self.shells[host.pid] = broker
        broker.run()


def reactor_of(shell: Any) -> SimReactor:
    """Return the reactor that a shell has made for itself."""
    return cast("SimReactor", shell._reactor)


def admission_of(broker: Any) -> CheckedAdmission:
    """Return a broker's admission."""
    return cast("CheckedAdmission", broker._admission)


def _settings(plan: Plan) -> Settings:
    config = EngineConfig(
        workers=plan.workers,
        max_runs_per_worker=plan.max_runs,
        max_waiting_runs=plan.max_waiting,
        connect_timeout=CONNECT_TIMEOUT,
        first_chunk_timeout=FIRST_CHUNK_TIMEOUT,
        idle_timeout=IDLE_TIMEOUT,
        total_timeout=TOTAL_TIMEOUT,
        stalled_reader_timeout=STALLED_READER_TIMEOUT,
    )
    provider = ProviderConfig(api="openai-chat", base_url="http://simulated")
    limits = {"simulated": LimitConfig(max_concurrency=plan.max_concurrency)} if plan.max_concurrency else {}
    return Settings(providers={"simulated": provider}, engine=config, spans=_NO_SPANS, limits=limits)
