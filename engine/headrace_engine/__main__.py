"""``python -m headrace_engine``: runs the supervisor, the broker or the collector. Programs start it, people do not.

With ``check`` it checks the settings and the redaction hook that they name, and ends.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from headrace.errors import ConfigurationError
from headrace.files.engine_directory import is_engine_running, remove_folder
from headrace.process.import_path import leave_current_directory
from headrace.process.lifecycle import (
    die_with_parent,
    forbid_core_dumps,
    ignore_interrupt,
    is_orphan,
)
from headrace.process.logs import log_to_stderr, logged, report_start_failure
from headrace.process.masked_output import mask_output, masking
from headrace.process.standard_streams import guarded
from headrace.settings.known_secrets import budget_secrets, provider_secrets, proxy_secrets, sink_secrets
from headrace.settings.settings import Settings, checked_figure, load_settings, with_file_name
from headrace_engine.process_exit import EngineExitCode

if TYPE_CHECKING:
    from headrace_engine.broker.shared_budget import SharedBudget
    from headrace_engine.broker.spending_thread import SpendingThread

_HELP = partial(argparse.HelpFormatter, width=100)
"""A width that is given: to find one, argparse would import ``shutil`` and its compressors at each start."""


def main() -> int:
    """Run the process that the command line names; return its exit code."""
    return guarded(_main)


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m headrace_engine", description="A Headrace engine.", formatter_class=_HELP
    )
    parser.add_argument("role", nargs="?", choices=["supervisor", "broker", "collector", "check"], default="supervisor")
    parser.add_argument("--directory", type=Path, required=True, help="where its sockets are; for its owner only")
    parser.add_argument("--parent", type=int, help="the process to end with")
    parser.add_argument("--workers", type=int, help="worker processes (default: one for every two cores, at most 8)")
    parser.add_argument("--drain-timeout", type=float, default=30.0, help="seconds for running streams after SIGTERM")
    parser.add_argument("--epoch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    # The program may ignore SIGCHLD, and its children inherit that. Then the kernel would reap this process's children.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    forbid_core_dumps()
    leave_current_directory()
    log_to_stderr(arguments.role)
    code = logged(partial(_run, arguments))
    is_alone = arguments.role == "supervisor" and arguments.parent is not None and is_orphan(arguments.parent)
    if code and is_alone and not is_engine_running(arguments.directory):
        remove_folder(arguments.directory)  # its program, which would remove it, has ended
    return code


def _run(arguments: argparse.Namespace) -> int:
    try:
        settings = load_settings(os.environ)
        secrets = [*provider_secrets(settings, os.environ), *sink_secrets(settings, os.environ)]
        secrets += budget_secrets(settings)
        mask_output(masking([*secrets, *proxy_secrets(os.environ)]))
        _check_figures(arguments)
        if arguments.role == "collector":
            return _collect(arguments, settings)
        if arguments.role == "check":
            return _check(settings)
        budget = _budget(settings)
    except ConfigurationError as error:
        report_start_failure(str(error))
        return EngineExitCode.USAGE
    if arguments.role == "broker":
        from headrace_engine.broker.broker import Broker
        from headrace_engine.broker.broker_limits import EngineLimits
        from headrace_engine.limits.gates import PoolGates

        ignore_interrupt()
        die_with_parent(arguments.parent)
        spending = _spending(settings)
        gates = PoolGates(
            settings,
            random.uniform,
            None if spending is None else spending.limits,
            limits=None if budget is None else budget.limits,
        )
        limits = EngineLimits(gates, budget, spending)
        Broker(arguments.directory, settings.engine, arguments.parent, arguments.epoch, limits).run()
        return EngineExitCode.OK
    try:
        return _supervise(arguments, settings)
    except ConfigurationError as error:
        report_start_failure(str(error))
        return EngineExitCode.USAGE


def _spending(settings: Settings) -> SpendingThread | None:
    if not settings.spending:
        return None
    from headrace_engine.broker.spending_thread import open_spending

    return open_spending(settings, os.environ)


def _check_figures(arguments: argparse.Namespace) -> None:
    if arguments.workers is not None:
        checked_figure("--workers", arguments.workers, "workers")
    checked_figure("--drain-timeout", arguments.drain_timeout, "worker_drain_timeout")


def _budget(settings: Settings) -> SharedBudget | None:
    """Return the budget that several engines share. The supervisor asks too, so that an engine with a wrong one does not start."""
    if not settings.budget.url:
        return None
    from headrace_engine.broker.shared_budget import shared_budget

    try:
        return shared_budget(settings.budget)
    except ConfigurationError as error:
        raise with_file_name(error, "budget", "url", os.environ) from None


def _check(settings: Settings) -> int:
    """Import the redaction hook as a worker does. This process does nothing else, so that a bad hook does no harm."""
    from headrace.spans.redaction import load_hook

    if settings.spans.enabled and settings.spans.redact:
        try:
            load_hook(settings.spans.redact)
        except ConfigurationError as error:
            raise with_file_name(error, "spans", "redact", os.environ) from None
    return EngineExitCode.OK


def _collect(arguments: argparse.Namespace, settings: Settings) -> int:
    from headrace_engine.spans.collector import Collector, CollectorSettings

    os.umask(0o077)
    ignore_interrupt()
    die_with_parent(arguments.parent)
    own = CollectorSettings(
        directory=arguments.directory, slot=arguments.data, parent=arguments.parent, epoch=arguments.epoch
    )
    Collector(own, settings).run()
    return EngineExitCode.OK


def _supervise(arguments: argparse.Namespace, settings: Settings) -> int:
    from headrace.process.hook_check import is_hook_usable
    from headrace_engine.supervisor.locked_directory import EngineStartError
    from headrace_engine.supervisor.recycling import RecyclingLimits
    from headrace_engine.supervisor.reloading import checked_environments
    from headrace_engine.supervisor.supervisor import Supervisor, SupervisorSettings

    if arguments.parent is not None:
        ignore_interrupt()
    environments = checked_environments(settings, os.environ, is_embedded=arguments.parent is not None)
    if not is_hook_usable(settings.spans, environments["worker"]):
        return EngineExitCode.USAGE  # the check has said why
    config = settings.engine
    own = SupervisorSettings(
        directory=arguments.directory,
        workers=arguments.workers or config.worker_count(),
        parent=arguments.parent,
        drain_timeout=arguments.drain_timeout,
        recycling=RecyclingLimits(
            max_age=config.max_worker_age,
            max_memory=config.max_worker_memory,
            drain_timeout=config.worker_drain_timeout,
        ),
        spans=settings.spans,
        environments=environments,
    )
    try:
        return Supervisor(own).run()
    except (EngineStartError, OSError) as error:
        report_start_failure(f"the engine cannot start: {error}")
        return EngineExitCode.CANNOT_START


if __name__ == "__main__":
    sys.exit(main())
