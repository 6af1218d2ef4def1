"""``headrace logs``: shows the log of an engine, or lists the logs of programs' own engines."""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from headrace.cli.log_reader import LogReader
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.cli.shared.following import looks
from headrace.cli.shared.option_types import count
from headrace.cli.shared.terminal import dim, one_line
from headrace.cli.status_command import engine_status
from headrace.connections.embedded_folders import log_of
from headrace.connections.kept_logs import KeptLog, kept_logs, logs_directory
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import is_engine_running
from headrace.files.trusted_directory import directory_refusal
from headrace.process.lifecycle import origin
from headrace.settings.settings import directory_of, load_settings

NAME = "logs"
HELP = "Show the log of an engine: by default the newest log of a program's own engine"

_STATUS_TIMEOUT = 2.0
_MEBIBYTE = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "-f", "--follow", action="store_true", help="show new lines until the engine ends, or until Ctrl-C"
    )
    parser.add_argument("-n", "--lines", type=count, metavar="N", help="only the newest N lines; default: all")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--engine",
        metavar="ADDRESS",
        help="the log of the engine at this address; default: $HEADRACE_ENGINE, if it is set",
    )
    which.add_argument(
        "--program", type=count, metavar="PID", help="the newest log of an engine that this process started"
    )
    which.add_argument(
        "--list", action="store_true", help="list the logs of programs' own engines; each stays for a week"
    )


def main(arguments: argparse.Namespace) -> ExitCode:
    """Show a log, or the list of logs. Raises CommandError if there is none, EngineUnavailableError for an unsafe address."""
    address = arguments.engine or (os.environ.get("HEADRACE_ENGINE") if not _is_own(arguments) else None)
    if address:
        directory = directory_of(address)
        _show(_log_at(address, directory), partial(is_engine_running, directory), arguments)
        return ExitCode.OK
    logs = _logs(arguments.program)
    if arguments.list:
        _list(logs)
    else:
        print(dim(one_line(_heading(logs[-1])), sys.stderr), file=sys.stderr, flush=True)
        _show(logs[-1].path, lambda: logs[-1].is_running, arguments)
    return ExitCode.OK


def _is_own(arguments: argparse.Namespace) -> bool:
    return arguments.list or arguments.program is not None


def _logs(program: int | None) -> list[KeptLog]:
    """Return the logs of programs' own engines, the oldest first. Raises CommandError if there is none."""
    directory = logs_directory(load_settings(os.environ).spans, os.environ)
    if directory is None:
        raise CommandError(
            ExitCode.FAILED, "there is no place for logs: set HEADRACE_DATA to the data directory of the program"
        )
    logs = [log for log in kept_logs(directory) if program in (None, log.program)]
    if logs:
        return logs
    whose = "a program's own engine" if program is None else f"an engine of process {program}"
    raise CommandError(
        ExitCode.FAILED,
        f"there is no log of {whose} in {directory}; if the program has another HEADRACE_DATA, set it here too, "
        "and for an engine at an address use --engine",
    )


def _log_at(address: str, directory: Path) -> Path:
    """Return the log of the engine at an address. Raises CommandError where it is no file, and says where it is."""
    refusal = directory_refusal(directory)
    if refusal is not None and not isinstance(refusal, FileNotFoundError):
        raise EngineUnavailableError(address, str(refusal.strerror))
    if refusal is None and (log := log_of(directory)) is not None and log.is_file():
        return log
    if not is_engine_running(directory):
        raise CommandError(ExitCode.UNAVAILABLE, f"no engine runs in {directory}, and none has left a log there")
    return _log_of_service(address)


def _log_of_service(address: str) -> Path:
    """Return the file that is the standard error of a service. Raises CommandError if it is no file."""
    try:
        known = origin(engine_status(address, _STATUS_TIMEOUT).pid)
    except HeadraceError:
        known = None
    if known is None:
        reason = "to the standard error of its `headrace serve`"
        raise CommandError(ExitCode.FAILED, f"the engine logs {reason}, which cannot be found from here")
    target = "unknown"
    with contextlib.suppress(OSError):
        target = os.readlink(f"/proc/{known.parent}/fd/2")
        if stat.S_ISREG(os.lstat(target).st_mode):
            return Path(target)
    text = (
        f"the engine logs to the standard error of `headrace serve`, process {known.parent}, which is no file: {target}"
    )
    raise CommandError(ExitCode.FAILED, f"{text}; if systemd runs it, use `journalctl _PID={known.parent}`")


def _show(path: Path, is_running: Callable[[], bool], arguments: argparse.Namespace) -> None:
    with LogReader(path) as reader:
        for line in reader.lines(arguments.lines):
            print(line)
        if arguments.follow:
            for _ in looks(sys.stdout):
                has_ended = not is_running()
                for line in reader.lines():
                    print(line)
                if has_ended:
                    break
        if arguments.lines != 0:
            for line in reader.rest():
                print(line)


def _list(logs: list[KeptLog]) -> None:
    print(dim("STARTED              PROGRAM  STATE                           SIZE  FILE", sys.stdout))
    for log in logs:
        state = "running" if log.is_running else f"ended {_shown_time(log.touched_at)}"
        size = f"{log.size / _MEBIBYTE:.1f} MiB" if log.size >= _MEBIBYTE else f"{log.size} B"
        print(f"{_started(log)}  {log.program:<7}  {state:<25}  {size:>9}  {one_line(str(log.path))}")


def _heading(log: KeptLog) -> str:
    state = "which runs" if log.is_running else f"which ended {_shown_time(log.touched_at)}"
    return f"the engine of process {log.program}, started {_started(log)}, {state}: {log.path}"


def _started(log: KeptLog) -> str:
    return _shown_time(datetime.strptime(f"{log.started}+0000", "%Y%m%dT%H%M%SZ%z").timestamp())


def _shown_time(seconds: float) -> str:
    """Return a time in the zone of this machine."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
