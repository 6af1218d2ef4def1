"""The supervisor process: starts, watches and restarts the other processes, and ends them. It does nothing else.

It ends when its parent does (embedded), when it is told to (SIGTERM: running streams may finish; a second one: now), or when
the engine cannot start at all. SIGHUP has it replace its workers, one after another.
"""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from headrace.files.engine_directory import COLLECTOR_SOCKET, broker_endpoint, collector_endpoint, worker_socket
from headrace.process.history import open_history
from headrace.process.lifecycle import is_orphan, open_process
from headrace.process.logs import report_start_failure
from headrace.settings.settings import SpansConfig
from headrace.transport.link import StandingLink, hello_of
from headrace.transport.reactor import Reactor
from headrace.transport.sockets import Dealer, new_context
from headrace.wire.codec import from_broker
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import (
    FromBroker,
    Heartbeat,
    Joined,
    ProcessReport,
    Restart,
    RestartAnswer,
    Silent,
)
from headrace_engine.exit_codes import ExitCode
from headrace_engine.liveness import Liveness
from headrace_engine.supervisor.children import Child
from headrace_engine.supervisor.collector_child import COLLECTOR, SpanKeeping
from headrace_engine.supervisor.hangup import Hangup
from headrace_engine.supervisor.locked_directory import EngineDirectory
from headrace_engine.supervisor.orphans import gets_orphans, reap_orphans
from headrace_engine.supervisor.process_news import ProcessNewsLink
from headrace_engine.supervisor.recycling import Action, EndRuns, Kill, Recycler, RecyclingLimits, Replace, Retire
from headrace_engine.supervisor.restart_policy import GiveUp

logger = logging.getLogger(__name__)

_TICK = 0.5
_RETRY_DELAY = 1.0
_END_GRACE = 1.5
"""Seconds for workers to tell their clients of the runs that they end."""
_FAREWELL = 0.2
"""Seconds that the broker outlives the last worker, for what clients still ask it."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor is told on its command line. ``parent`` is the process it belongs to, if it is embedded."""

    directory: Path
    workers: int
    parent: int | None = None
    drain_timeout: float = 30.0
    recycling: RecyclingLimits = RecyclingLimits()
    spans: SpansConfig = SpansConfig()
    environments: Mapping[str, Mapping[str, str]]
    """What ``broker``, ``collector`` and ``worker`` are started with."""

    def __repr__(self) -> str:
        return f"SupervisorSettings(directory={str(self.directory)!r})"  # environments hold keys

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown."""
        return [("directory", str(self.directory))]


class Supervisor:
    """The processes of one engine."""

    def __init__(self, settings: SupervisorSettings) -> None:
        self._settings = settings
        self._history = open_history("supervisor", 0)
        self._reactor = Reactor()
        self._children: list[Child] = []
        self._recycler = Recycler(settings.recycling)
        self._hangup = Hangup()
        self._is_draining = False
        self._is_ending = False
        self._exit_code = ExitCode.OK
        self._has_failed = True
        self._gets_orphans = gets_orphans()
        self._directory: EngineDirectory | None = None
        self._keeping: SpanKeeping | None = None
        self._context = new_context()
        self._link: StandingLink[FromBroker] | None = None
        # To the collector, once there is one.
        self._news: ProcessNewsLink | None = None
        command = [sys.executable, "-m", "headrace_engine", "broker"]
        self._broker = Child("broker", command, settings.environments["broker"])
        # Of the broker, which looks after the workers in the same way.
        self._liveness = Liveness()

    def run(self) -> int:
        """Run the engine until it ends; return the exit code. Raises EngineStartError."""
        self._prepare_directory()
        directory = str(self._settings.directory)
        common = ["--directory", directory, "--parent", str(os.getpid())]
        environments = self._settings.environments
        keeping = SpanKeeping(
            self._settings.spans, os.environ, self._settings.directory, common, environments["collector"]
        )
        self._keeping = keeping
        if keeping.child is not None:
            self._children.append(keeping.child)
        self._broker.command += common
        self._children.append(self._broker)
        for number in range(1, self._settings.workers + 1):
            name = f"w{number}"
            command = [sys.executable, "-m", "headrace_workers", *common, *keeping.options, "--name", name]
            self._children.append(Child(name, command, environments["worker"]))
        try:
            for child in self._children:
                self._start(child)
            self._report()  # the broker's first one was made before the workers were
            self._watch_parent()
            signal.signal(signal.SIGTERM, lambda *_: self._reactor.call(self._end))
            signal.signal(signal.SIGHUP, lambda *_: self._reactor.call(self._hung_up))
            if self._settings.parent is None:
                signal.signal(signal.SIGINT, lambda *_: self._reactor.call(self._end))
            self._tick()
            self._reactor.run()
            self._has_failed = self._exit_code != ExitCode.OK
        finally:
            self._kill_all()
            self._clean_directory()
        return self._exit_code

    def _prepare_directory(self) -> None:
        self._directory = EngineDirectory(self._settings.directory)

    def _clean_directory(self) -> None:
        parent = self._settings.parent
        if self._directory is None:
            return
        # Where it failed the program reads in the log why, and removes the folder.
        if parent is None or not self._has_failed or is_orphan(parent):
            workers = [worker_socket(child.name, child.epoch) for child in self._children if child.is_worker]
            self._directory.clean(workers, is_embedded=parent is not None)
        self._directory.close()

    def _start(self, child: Child, replaces: int | None = None) -> None:
        if self._is_draining and child.name != COLLECTOR:
            return
        now = time.monotonic()
        child.start(now)
        if self._history is not None:
            self._history.note("start", name=child.name, pid=child.pid, epoch=child.epoch)
        logger.info("process started", extra={"child": child.name, "pid": child.pid, "epoch": child.epoch})
        if child.name == "broker":
            self._open_link()
        elif child.name == COLLECTOR:
            self._open_news()
        elif child.is_worker:
            self._recycler.started(child.epoch, now, random.random(), replaces)  # noqa: S311 - to spread, not to hide
        if child.pidfd is not None:
            self._reactor.add_reader(child.pidfd, partial(self._look_at, child))

    def _look_at(self, child: Child) -> None:
        """Find out whether a child has ended, and what follows."""
        pidfd, pid = child.pidfd, child.pid
        if not child.has_ended():
            return
        if pidfd is not None:
            self._reactor.remove_reader(pidfd)
        if self._history is not None:
            self._history.note("ended", name=child.name, epoch=child.epoch, reason=child.reason)
        self._remove_socket(child)
        if self._is_draining and child.name != COLLECTOR:
            self._end_when_drained()
            return
        now = time.monotonic()
        if child.is_worker and not self._recycler.exited(child.epoch, now):
            logger.warning(
                "replaced worker ended",
                extra={"child": child.name, "pid": pid, "epoch": child.epoch, "reason": child.reason},
            )
            self._children.remove(child)
            self._report()
            return
        logger.warning(
            "process ended", extra={"child": child.name, "pid": pid, "epoch": child.epoch, "reason": child.reason}
        )
        decision = child.policy.exited(child.reason, now, has_served=child.has_served)
        if isinstance(decision, GiveUp):
            report_start_failure(f"the engine cannot start: {decision.reason}")
            self._exit_code = ExitCode.CANNOT_START
            self._reactor.stop()
            return
        self._reactor.call_at(decision.when, partial(self._restart, child))
        self._report()

    def _restart(self, child: Child) -> None:
        try:
            self._start(child)
        except OSError:  # no memory, no processes, no descriptors: there may be some later
            logger.exception("process cannot be started", extra={"child": child.name, "retry_after": _RETRY_DELAY})
            self._reactor.call_later(_RETRY_DELAY, partial(self._restart, child))
        self._report()

    def _remove_socket(self, child: Child) -> None:
        """The next one has an endpoint of its own; nobody must wait at the old one."""
        if child.is_worker:
            self._remove(worker_socket(child.name, child.epoch))
        elif child.name == COLLECTOR:
            self._remove(COLLECTOR_SOCKET)

    def _remove(self, name: str) -> None:
        if self._directory is not None:
            self._directory.remove_sockets(name)

    def _tick(self) -> None:
        """Look at everything now and then: the way where there are no process handles."""
        for child in list(self._children):
            self._look_at(child)
            if child.is_worker and self._settings.recycling.max_memory:
                self._recycler.measured(child.epoch, child.memory())
        if self._gets_orphans:
            reap_orphans({child.process.pid for child in self._children if child.process is not None})
        self._recycle()
        self._look_at_broker(time.monotonic())
        self._look_at_keeping(time.monotonic())
        parent = self._settings.parent
        if parent is not None and is_orphan(parent):
            self._reactor.stop()
        self._reactor.call_later(_TICK, self._tick)

    def _look_at_keeping(self, now: float) -> None:
        """Keep spans as soon as that is possible: workers that know of no slot are replaced by some that do."""
        keeping = self._keeping
        if keeping is None or self._is_draining or not keeping.due(now) or keeping.child is None:
            return
        self._children.insert(0, keeping.child)
        self._restart(keeping.child)
        for child in self._children:
            if child.is_worker:
                child.command = [*child.command, *keeping.options]
        self._recycler.asked()
        self._recycle()

    def _look_at_broker(self, now: float) -> None:
        """Ask whether its loop serves, and end one that does not: streams go on, and its successor learns of the leases."""
        broker = self._broker
        if broker.process is None:
            return
        self._liveness.expected({broker.epoch: False}, now)
        self._liveness.due(now)
        self._liveness.look_by(now + _TICK)
        if broker.epoch in self._liveness.hung(now):
            self._end_hung(Silent(broker.name, broker.epoch, self._liveness.silence(broker.epoch, now)))

    def _watch_parent(self) -> None:
        """An embedded engine ends with its program: by the pipe that is our standard input, and by its process handle."""
        parent = self._settings.parent
        if parent is None:
            return
        self._reactor.add_reader(sys.stdin.fileno(), self._reactor.stop)
        if (handle := open_process(parent)) is not None:
            self._reactor.add_reader(handle, self._reactor.stop)
        if is_orphan(parent):
            self._reactor.stop()

    # Workers that are replaced.

    def _hung_up(self) -> None:
        """SIGHUP came: the terminal is gone, or somebody wants new workers."""
        if self._is_draining:
            return
        if self._hangup.is_terminals_end():
            self._end()
            return
        self._replace_all()

    def _asked_to_restart(self, question: Restart) -> None:
        """A client of this user wants new workers; the broker, to which the kernel says whose it is, passes that on."""
        if self._is_draining:
            problem = "the engine is ending"
        else:
            problem = ""
            self._replace_all()
        if self._link is not None:
            self._link.send([RestartAnswer(question.token, problem)])

    def _replace_all(self) -> None:
        if self._recycler.asked():
            logger.warning("all workers will be replaced")
        self._recycle()

    def _recycle(self) -> None:
        if self._is_draining:
            return
        for action in self._recycler.due(time.monotonic()):
            child = next((child for child in self._children if child.is_worker and child.epoch == action.epoch), None)
            if child is not None:
                self._carry_out(action, child)

    def _carry_out(self, action: Action, child: Child) -> None:
        match action:
            case Replace():
                logger.warning(
                    "worker is being replaced",
                    extra={"child": child.name, "pid": child.pid, "epoch": child.epoch, "reason": action.reason},
                )
                replacement = Child(child.name, child.command, child.environ, child.policy)
                self._children.append(replacement)
                try:
                    self._start(replacement, replaces=child.epoch)
                except OSError:
                    logger.exception("replacement cannot be started", extra={"child": child.name})
                    self._children.remove(replacement)
            case Retire() | EndRuns():
                child.leave()
            case Kill():
                logger.warning(
                    "worker does not end and is killed",
                    extra={"child": child.name, "pid": child.pid, "epoch": child.epoch},
                )
                child.kill()
        self._report()

    def _joined(self, joined: Joined) -> None:
        for child in self._children:
            if child.epoch == joined.epoch:
                child.has_served = True
        self._report()
        self._recycler.joined(joined.epoch)
        self._recycle()

    # The end.

    def _end(self) -> None:
        """End: at first by letting running streams finish; told again, now; told a third time, at once."""
        if self._is_ending:
            self._reactor.stop()
        elif self._is_draining:
            self._end_runs()
        else:
            self._is_draining = True
            for child in self._children:
                if not child.is_leaving and child.name != COLLECTOR:
                    child.leave()
            self._reactor.call_later(self._settings.drain_timeout, self._end_runs)
            self._end_when_drained()

    def _end_runs(self) -> None:
        """Have workers tell their clients of the runs that end here; those that cannot are killed."""
        if self._is_ending:
            return
        self._is_ending = True
        for child in self._children:
            if child.is_worker:
                child.leave()
        self._reactor.call_later(_END_GRACE, self._reactor.stop)

    def _end_when_drained(self) -> None:
        if all(child.process is None for child in self._children if child.is_worker):
            self._reactor.call_later(_FAREWELL, self._reactor.stop)

    def _kill_all(self) -> None:
        """End all that is left; the collector last, which then has all that there will be."""
        running = [child for child in self._children if child.name != COLLECTOR]
        for child in running:
            child.kill()
        for child in running:
            child.wait()
        if self._keeping is not None:
            self._keeping.end()

    def _open_link(self) -> None:
        """Connect to the first broker, and to each of its successors. A new broker is not judged by the silence of the one before."""
        self._liveness = Liveness()
        if self._link is None:
            endpoint = broker_endpoint(self._settings.directory)
            self._link = StandingLink(
                "broker",
                self._reactor,
                partial(Dealer, self._context, endpoint, expects=self._is_broker),
                partial(hello_of, "supervisor"),
                1,
                from_broker,
                self._hear_broker,
                opened=self._report,
                heartbeat=Heartbeat,
            )
            self._link.open()

    def _is_broker(self, pid: int) -> bool:
        return self._broker.process is not None and self._broker.process.pid == pid

    def _open_news(self) -> None:
        """Tell the collector who is who, and each one that comes after it."""
        if self._news is None:
            endpoint = collector_endpoint(self._settings.directory)
            self._news = ProcessNewsLink(self._reactor, self._context, endpoint, self._statuses)
            self._news.open()

    def _hear_broker(self, message: FromBroker) -> None:
        """Handle a message of the broker: it names workers that serve, workers that are hung, and clients' wish for new workers."""
        self._liveness.joined(self._broker.epoch, time.monotonic())  # it speaks from the loop that serves
        self._broker.has_served = True
        match message:
            case Silent():
                self._end_hung(message)
            case Joined():
                self._joined(message)
            case Restart():
                self._asked_to_restart(message)
            case _:
                pass

    def _end_hung(self, silent: Silent) -> None:
        for child in self._children:
            if child.name == silent.worker and child.epoch == silent.epoch and child.process is not None:
                logger.warning(
                    "process is hung and is killed",
                    extra={
                        "child": child.name,
                        "pid": child.pid,
                        "epoch": child.epoch,
                        "silence": round(silent.silence, 1),
                    },
                )
                if self._history is not None:
                    self._history.note("kill", name=child.name, pid=child.process.pid, epoch=child.epoch)
                child.kill()

    def _report(self) -> None:
        if self._link is not None:
            self._link.send([ProcessReport(self._statuses())])
        if self._news is not None:
            self._news.report()

    def _statuses(self) -> list[ProcessStatus]:
        off = self._keeping.statuses() if self._keeping is not None else []
        return [*off, *(child.status() for child in self._children)]
