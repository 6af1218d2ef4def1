"""Takes a slot of the data directory, and has the collector process for it: started first, ended last.

An engine that cannot store spans runs without them, because its runs matter more. Every few seconds it tries again.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from headrace.errors import ConfigurationError
from headrace.files.engine_directory import COLLECTOR_SOCKET
from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import data_directory
from headrace.wire.engine_status import ProcessStatus
from headrace_engine.spans.recovery.slots import Slot, SlotError, take_slot
from headrace_engine.supervisor.children import Child
from headrace_engine.supervisor.restart_policy import RestartPolicy

logger = logging.getLogger(__name__)

COLLECTOR = "collector"
_POLL = 0.01
_RETRY_INTERVAL = 2.0
"""Seconds between attempts to take a slot of a data directory that could not be used."""
_END_TIMEOUT = 1.2
"""Seconds that the collector has at the end, to store its spans and to send some of them to sinks."""


class CollectorProcess:
    """The collector's process and the slot of this engine, if the engine stores spans.

    ``common`` are the command line options of all processes. ``environ`` is the supervisor's environment,
    ``child_environ`` the collector's.
    """

    def __init__(
        self,
        config: SpansConfig,
        environ: Mapping[str, str],
        directory: Path,
        common: Sequence[str],
        child_environ: Mapping[str, str],
    ) -> None:
        self.worker_options: list[str] = []
        """Command line options of workers: where they store spans."""
        self.child: Child | None = None
        self._socket = directory / COLLECTOR_SOCKET
        self._slot: Slot | None = None
        self._problem = ""
        self._config = config
        self._environ = environ
        self._common = common
        self._child_environ = child_environ
        self._tried_at = time.monotonic()
        if config.enabled:
            self._try()

    def can_start(self, now: float) -> bool:
        """If no slot could be taken, try again after a while. Return whether one was taken now."""
        if not self._problem or now < self._tried_at + _RETRY_INTERVAL:
            return False
        self._tried_at = now
        self._try()
        return self.child is not None

    def statuses(self) -> list[ProcessStatus]:
        """Return the status of a collector that does not run because no slot could be taken."""
        return [ProcessStatus(COLLECTOR, None, "off", 0, self._problem)] if self._problem else []

    def _try(self) -> None:
        try:
            self._slot = take_slot(data_directory(self._config, self._environ))
        except (SlotError, ConfigurationError) as error:
            if str(error) != self._problem:
                logger.warning("spans are not stored", extra={"reason": str(error)})
            self._problem = str(error)
            return
        if self._problem:
            logger.warning("spans are stored again")
            self._problem = ""
        self.worker_options = ["--data", str(self._slot.path)]
        command = [sys.executable, "-m", "headrace_engine", COLLECTOR, *self._common, *self.worker_options]
        self.child = Child(COLLECTOR, command, self._child_environ, RestartPolicy(COLLECTOR, gives_up=False))

    def end(self) -> None:
        """End the collector, and let go of the slot. To be called when all processes that send spans have ended."""
        if (child := self.child) is not None and child.process is not None:
            deadline = time.monotonic() + _END_TIMEOUT
            while not self._socket.exists() and not child.wait(0.0) and time.monotonic() < deadline:
                time.sleep(_POLL)  # while it starts it handles no signal, and would end without storing spans
            child.leave()
            if not child.wait(max(deadline - time.monotonic(), _POLL)):
                child.kill()
                child.wait()
        if self._slot is not None:
            self._slot.close()
