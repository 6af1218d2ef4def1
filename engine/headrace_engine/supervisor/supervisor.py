"""The supervisor process: starts the other processes of an engine, watches them, restarts them and ends them.

It ends on SIGTERM (running streams may finish; a second SIGTERM ends them), with its program if the engine is embedded,
or when the engine cannot start. SIGHUP has the settings read again and the workers replaced, one after another.
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
from headrace.process.logs import KEEP_VARIABLE, report_start_failure
from headrace.settings.settings import SpansConfig
from headrace.transport.reactor import Reactor
from headrace.version import VERSION
from headrace.wire.bounds import cut
from headrace.wire.engine_status import ProcessStatus
from headrace.wire.messages import (
    FromBroker,
    Joined,
    ProcessReport,
    Restart,
    RestartAnswer,
    Silent,
)
from headrace_engine.process_exit import EngineExitCode
from headrace_engine.supervisor.broker_watch import ASK_INTERVAL, BrokerWatch
from headrace_engine.supervisor.children import Child
from headrace_engine.supervisor.collector_process import COLLECTOR, CollectorProcess
from headrace_engine.supervisor.locked_directory import EngineDirectory
from headrace_engine.supervisor.log_bounds import LogBounds
from headrace_engine.supervisor.process_reports import ProcessReportLink
from headrace_engine.supervisor.reaping import adopts_orphans, reap_orphans
from headrace_engine.supervisor.recycling import Action, EndRuns, Kill, Recycler, RecyclingLimits, Replace, Retire
from headrace_engine.supervisor.reloading import reloaded
from headrace_engine.supervisor.restart_policy import CannotStart
from headrace_engine.supervisor.terminal_hangup import TerminalHangup

logger = logging.getLogger(__name__)

_TICK = 0.5
"""Seconds between two looks at all processes, while something is under way that no event tells of."""
_CALM_TICK = ASK_INTERVAL
"""The same, while all processes serve: the kernel tells at once of the end of each."""
_RETRY_DELAY = 1.0
"""Seconds until a process that could not be started is started again."""
_COLLECTOR_DELAY = 0.5
"""Seconds after which the collector is started at the latest. It is started as soon as a worker serves."""
_END_GRACE = 1.5
"""Seconds for workers to tell their clients that runs end."""
_FAREWELL = 0.2
"""Seconds that the broker runs on after the last worker, to answer the last questions of clients."""


class SupervisorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a supervisor, from its command line and the settings file.

    ``workers`` is how many worker processes there are. ``parent`` is the pid of the program, if the engine is embedded.
    ``drain_timeout`` is how long running streams may take after SIGTERM, in seconds.
    """

    directory: Path
    workers: int
    parent: int | None = None
    drain_timeout: float = 30.0
    recycling: RecyclingLimits = RecyclingLimits()
    spans: SpansConfig = SpansConfig()
    environments: Mapping[str, Mapping[str, str]]
    """The environments with which ``broker``, ``collector`` and ``worker`` are started."""

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
        self._hangup = TerminalHangup()
        self._is_draining = False
        self._is_ending = False
        self._exit_code = EngineExitCode.OK
        self._has_failed = True
        self._next_tick = 0.0
        self._adopts_orphans = adopts_orphans()
        self._directory: EngineDirectory | None = None
        self._collector: CollectorProcess | None = None
        self._log = LogBounds(sys.__stderr__) if os.environ.get(KEEP_VARIABLE) else None
        command = [sys.executable, "-m", "headrace_engine", "broker"]
        self._broker = BrokerWatch(
            Child("broker", command, settings.environments["broker"]),
            self._reactor,
            broker_endpoint(settings.directory),
            self._hear_broker,
            self._report,
        )
        # The link to the collector, once there is a collector.
        self._reports: ProcessReportLink | None = None

    def run(self) -> int:
        """Run the engine until it ends; return the exit code. Raises EngineStartError."""
        self._handle_signals()  # before there is anything to remove: the default of SIGTERM would leave the directory
        self._prepare_directory()
        logger.info("engine starts", extra={"version": VERSION, "program": self._settings.parent})
        self._add_children()
        try:
            for child in self._by_urgency():
                self._start(child)
            self._report()  # the first report to the broker was made before the workers were started
            self._reactor.call_later(_COLLECTOR_DELAY, self._start_collector)
            self._watch_parent()
            self._tick(self._next_tick)
            self._reactor.run()
            self._has_failed = self._exit_code != EngineExitCode.OK
        finally:
            self._kill_all()
            logger.info("engine ended", extra={"exit_code": int(self._exit_code)})
            self._clean_directory()
        return self._exit_code

    def _handle_signals(self) -> None:
        """Have signals handled by the loop, when it runs."""
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.call(self._end))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.call(self._hung_up))
        if self._settings.parent is None:
            signal.signal(signal.SIGINT, lambda *_: self._reactor.call(self._end))

    def _add_children(self) -> None:
        """Add the processes that are to run: the collector if spans can be stored, the broker and the workers."""
        settings = self._settings
        common = ["--directory", str(settings.directory), "--parent", str(os.getpid())]
        environments = settings.environments
        self._collector = collector = CollectorProcess(
            settings.spans, os.environ, settings.directory, common, environments["collector"]
        )
        if collector.child is not None:
            self._children.append(collector.child)
        self._broker.child.command += common
        self._children.append(self._broker.child)
        for number in range(1, settings.workers + 1):
            name = f"w{number}"
            command = [sys.executable, "-m", "headrace_workers", *common, *collector.worker_options, "--name", name]
            self._children.append(Child(name, command, environments["worker"]))

    def _prepare_directory(self) -> None:
        self._directory = EngineDirectory(self._settings.directory)

    def _clean_directory(self) -> None:
        parent = self._settings.parent
        if self._directory is None:
            return
        # If an embedded engine failed, its program reads the reason in the log and removes the folder.
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
            self._broker.started()
        elif child.name == COLLECTOR:
            self._open_reports()
        elif child.is_worker:
            self._recycler.started(child.epoch, now, random.random(), replaces)  # noqa: S311 - it spreads ages
        if child.pidfd is not None:
            self._reactor.add_reader(child.pidfd, partial(self._look_at, child))

    def _by_urgency(self) -> list[Child]:
        """Return the processes that the first run needs, the slowest first: one worker, the broker, and the other workers."""
        workers = [child for child in self._children if child.is_worker]
        return [*workers[:1], self._broker.child, *workers[1:]]

    def _start_collector(self) -> None:
        """Start the collector, if it was not started yet. No run waits for it, so it leaves the processors to the others first."""
        collector = self._collector.child if self._collector is not None else None
        if collector is not None and not collector.was_started:
            self._restart(collector)

    def _look_at(self, child: Child) -> None:
        """If a child has ended, start it again, unless it is not needed any more or cannot start."""
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
        if isinstance(decision, CannotStart):
            report_start_failure(f"the engine cannot start: {decision.reason}")
            self._exit_code = EngineExitCode.CANNOT_START
            self._reactor.stop()
            return
        self._reactor.call_at(decision.when, partial(self._restart, child))
        self._report()

    def _restart(self, child: Child) -> None:
        try:
            self._start(child)
        except OSError:  # no memory, no process or no descriptor is left; try again later
            logger.exception("process cannot be started", extra={"child": child.name, "retry_after": _RETRY_DELAY})
            self._reactor.call_later(_RETRY_DELAY, partial(self._restart, child))
        self._report()

    def _remove_socket(self, child: Child) -> None:
        """Remove the socket of a child that has ended.

        Its successor has another endpoint, and no client must wait at this one.
        """
        if child.is_worker:
            self._remove(worker_socket(child.name, child.epoch))
        elif child.name == COLLECTOR:
            self._remove(COLLECTOR_SOCKET)

    def _remove(self, name: str) -> None:
        if self._directory is not None:
            self._directory.remove_sockets(name)

    def _tick(self, planned: float) -> None:
        """Look at all processes. Where the kernel has no process handles, this is how their ends are seen."""
        if planned != self._next_tick:
            return  # an earlier look has taken its place
        for child in list(self._children):
            self._look_at(child)
            if child.is_worker and self._settings.recycling.max_memory:
                self._recycler.measured(child.epoch, child.memory())
        if self._adopts_orphans:
            reap_orphans({child.process.pid for child in self._children if child.process is not None})
        self._recycle()
        now = time.monotonic()
        pause = _CALM_TICK if self._is_calm() else _TICK
        self._broker.ask(now)
        if (silent := self._broker.look(now, now + pause)) is not None:
            self._end_hung(silent)  # streams go on, and the next broker learns of the leases
        self._retry_collector(now)
        if self._log is not None:
            self._log.look(now)
        parent = self._settings.parent
        if parent is not None and is_orphan(parent):
            self._reactor.stop()
        self._plan_tick(now + pause)

    def _plan_tick(self, when: float) -> None:
        self._next_tick = when
        self._reactor.call_at(when, partial(self._tick, when))

    def _is_calm(self) -> bool:
        """Return whether events tell of all that may happen in the next seconds."""
        return (
            not self._recycler.is_busy
            and not self._settings.recycling.max_memory
            and not self._broker.is_answer_due
            and not (self._collector is not None and self._collector.statuses())
            and all(child.pidfd is not None for child in self._children if child.process is not None)
        )

    def _retry_collector(self, now: float) -> None:
        """Store spans as soon as that is possible. Workers that were started without a place for spans are replaced."""
        collector = self._collector
        if collector is None or self._is_draining or not collector.can_start(now) or collector.child is None:
            return
        self._children.insert(0, collector.child)
        self._restart(collector.child)
        for child in self._children:
            if child.is_worker:
                child.command = [*child.command, *collector.worker_options]
        self._recycler.asked()
        self._recycle()

    def _watch_parent(self) -> None:
        """End an embedded engine with its program: by the pipe that is standard input, and by a process handle."""
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
        """SIGHUP came: the terminal was closed, or somebody wants the settings read again."""
        if self._is_draining:
            return
        if self._hangup.has_terminal_closed():
            self._end()
            return
        if not self._reload():
            self._broker.send([RestartAnswer(reload=True)])

    def _asked_to_restart(self, question: Restart) -> None:
        """A client wants new workers. The broker has checked that it is a process of this user."""
        problem = ""
        if self._is_draining:
            problem = "the engine is ending"
        elif question.reload:
            problem = self._reload()
        else:
            self._replace_all()
        is_reload = question.reload and not self._is_draining
        self._broker.send([RestartAnswer(question.token, cut(problem), reload=is_reload)])

    def _reload(self) -> str:
        """Check the settings, and replace all workers by new ones that read them. Return the problem of the settings, if there is one.

        The collector and the broker have the new environment at their next start.
        """
        found = reloaded(os.environ, is_embedded=self._settings.parent is not None)
        if isinstance(found, str):
            logger.error("settings cannot be used", extra={"reason": found})
            return found
        for child in self._children:
            role = "worker" if child.is_worker else child.name
            child.environ = found.get(role, child.environ)
        self._replace_all()
        return ""

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
        if self._recycler.is_busy and self._next_tick > (soon := time.monotonic() + _TICK):
            self._plan_tick(soon)

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
        self._start_collector()
        self._report()
        self._recycler.joined(joined.epoch)
        self._recycle()

    # The end.

    def _end(self) -> None:
        """End the engine. The first call lets running streams finish, the second ends them, the third ends at once."""
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
        """Have the workers end their runs and tell their clients. A worker that does not end in time is killed."""
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
        """Kill the processes that still run. The collector ends last, when all spans have been sent to it."""
        running = [child for child in self._children if child.name != COLLECTOR]
        for child in running:
            child.kill()
        for child in running:
            child.wait()
        if self._collector is not None:
            self._collector.end()

    # The broker and the collector.

    def _open_reports(self) -> None:
        """Report the processes to the collector, and to each collector after it."""
        if self._reports is None:
            endpoint = collector_endpoint(self._settings.directory)
            self._reports = ProcessReportLink(self._reactor, endpoint, self._statuses)
            self._reports.open()

    def _hear_broker(self, message: FromBroker) -> None:
        """Handle a message of the broker: a worker is hung, a worker serves, or a client wants new workers."""
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
        self._broker.send([ProcessReport(self._statuses())])
        if self._reports is not None:
            self._reports.report()

    def _statuses(self) -> list[ProcessStatus]:
        off = self._collector.statuses() if self._collector is not None else []
        return [*off, *(child.status() for child in self._children)]
