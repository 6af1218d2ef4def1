"""``python -m headrace_workers``: one worker. Started by the supervisor."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import os
import sys
from functools import partial
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.process import garbage_collection
from headrace.process.lifecycle import die_with_parent, forbid_core_dumps, ignore_interrupt
from headrace.process.logs import log_to_stderr, logged, report_start_failure
from headrace.process.masked_output import mask_output, masking
from headrace.process.standard_streams import guarded
from headrace.settings.known_secrets import provider_secrets, proxy_secrets
from headrace.settings.settings import load_settings

_HELP = partial(argparse.HelpFormatter, width=100)
"""A width that is given: to find one, argparse would import ``shutil`` and its compressors at each start."""
_BAD_SETTINGS = 2
_MMAP_THRESHOLD = -3
"""A parameter of glibc's ``mallopt``: blocks from this size on are their own."""
_LARGE = 1024 * 1024


def main() -> int:
    """Run the worker that the command line names."""
    return guarded(_main)


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m headrace_workers", description="A Headrace worker.", formatter_class=_HELP
    )
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--epoch", type=int, required=True)
    parser.add_argument(
        "--data", type=Path, help="the slot of the data directory that spans go to; without it none are made"
    )
    arguments = parser.parse_args()
    forbid_core_dumps()
    log_to_stderr(arguments.name)
    ignore_interrupt()
    die_with_parent(arguments.parent)
    return logged(partial(_run, arguments))


def _run(arguments: argparse.Namespace) -> int:
    try:
        _work(arguments)
    except ConfigurationError as error:
        report_start_failure(str(error))
        return _BAD_SETTINGS
    return 0


def _work(arguments: argparse.Namespace) -> None:
    gc.disable()  # garbage collection would take a sixth of the imports' time; settle() below does it once
    from headrace_workers.worker import Worker, WorkerSettings

    settings = WorkerSettings(
        directory=arguments.directory,
        name=arguments.name,
        epoch=arguments.epoch,
        parent=arguments.parent,
        slot=arguments.data,
    )
    engine = load_settings(os.environ)
    # The runs bring further keys later; a redaction hook, which is imported before, has those of the environment.
    mask_output(masking([*provider_secrets(engine, os.environ), *proxy_secrets(os.environ)]))
    _give_memory_back()

    async def serve() -> None:
        worker = Worker(settings, engine, asyncio.get_running_loop())
        mask_output(worker.masks.masked_line)
        garbage_collection.settle()
        await worker.run()

    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(serve())


def _give_memory_back() -> None:
    """Make the C library return the memory of large answers to the system when it is freed."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _LARGE)


def _new_loop() -> asyncio.AbstractEventLoop:
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


if __name__ == "__main__":
    sys.exit(main())
