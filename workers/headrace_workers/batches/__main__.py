"""``python -m headrace_workers.batches``: the batch process of a job. Calls come on standard input, answers go to standard output."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import BinaryIO

from headrace.errors import ConfigurationError, RemoteProtocolError
from headrace.process.lifecycle import forbid_core_dumps, ignore_interrupt, is_orphan
from headrace.process.logs import log_to_stderr, logged, report_start_failure
from headrace.process.masked_output import mask_output, masking
from headrace.process.standard_streams import guarded
from headrace.settings.known_secrets import provider_secrets, proxy_secrets
from headrace.settings.settings import load_settings
from headrace.wire.batch_frames import batch_calls, encode_batch_frame
from headrace.wire.batch_messages import BatchCall

logger = logging.getLogger(__name__)

_BAD_SETTINGS = 2
_THREADS = 16
"""Calls that are carried out at once."""
_LOOK = 1.0


def main() -> int:
    """Answer calls until standard input ends."""
    return guarded(_main)


def _main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m headrace_workers.batches", description="The batch process of a job."
    )
    parser.add_argument("--parent", type=int, required=True)
    arguments = parser.parse_args()
    forbid_core_dumps()
    log_to_stderr("batches")
    ignore_interrupt()
    return logged(partial(_run, arguments.parent))


def _run(parent: int) -> int:
    try:
        settings = load_settings(os.environ)
        mask_output(masking([*provider_secrets(settings, os.environ), *proxy_secrets(os.environ)]))
        from headrace_workers.batches.batch_calls import BatchCalls

        calls = BatchCalls(settings, os.environ)
    except ConfigurationError as error:
        report_start_failure(str(error))
        return _BAD_SETTINGS
    mask_output(calls.masks.masked_line)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()
    answers = _Answers(sys.stdout.buffer)

    def carry_out(call: BatchCall) -> None:
        answers.write(encode_batch_frame(calls.answer(call)))

    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="call")
    try:
        for call in batch_calls.all(sys.stdin.buffer):
            pool.submit(carry_out, call)
    except RemoteProtocolError as error:
        logger.error("call cannot be read", extra={"reason": str(error)})  # noqa: TRY400 - the text says it all
    # The job has gone: nobody waits for what is under way, and it may take minutes.
    os._exit(0)


def _end_with_parent(parent: int) -> None:
    """End this process when the job's process has ended, also if another process holds its pipe open."""
    while not is_orphan(parent):
        time.sleep(_LOOK)
    os._exit(0)


class _Answers:
    """Writes answers, each whole, from any thread."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, frame: bytes) -> None:
        """Write an answer. If the job has gone, end the process."""
        with self._lock:
            try:
                self._file.write(frame)
                self._file.flush()
            except OSError:
                os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
