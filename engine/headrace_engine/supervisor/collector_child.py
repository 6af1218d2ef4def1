"""The supervisor's part in keeping spans: the slot, and the collector that is started first and ends last.

An engine whose spans cannot be kept runs without: its runs matter more. It looks every few seconds whether they can be.
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
"""Seconds that the collector has to store what there is, and its sinks to send some of it."""


class SpanKeeping:
    """The slot that this engine has, if it keeps spans. ``common`` is what each process is told on its command line.

    ``environ`` is the supervisor's environment, ``child_environ`` the collector's.
    """

    def __init__(
        self,
        config: SpansConfig,
        environ: Mapping[str, str],
        directory: Path,
        common: Sequence[str],
        child_environ: Mapping[str, str],
    ) -> None:
        self.options: list[str] = []
        """What workers are told of it."""
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

    def due(self, now: float) -> bool:
        """Try again where spans could not be kept; return whether they can be from now on."""
        if not self._problem or now < self._tried_at + _RETRY_INTERVAL:
            return False
        self._tried_at = now
        self._try()
        return self.child is not None

    def statuses(self) -> list[ProcessStatus]:
        """Return what the engine's status says of a collector that is not there, though it is wanted."""
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
        self.options = ["--data", str(self._slot.path)]
        command = [sys.executable, "-m", "headrace_engine", COLLECTOR, *self._common, *self.options]
        self.child = Child(COLLECTOR, command, self._child_environ, RestartPolicy(COLLECTOR, gives_up=False))

    def end(self) -> None:
        """End the collector, once all who send to it have ended; and let go of the slot."""
        if (child := self.child) is not None and child.process is not None:
            deadline = time.monotonic() + _END_TIMEOUT
            while not self._socket.exists() and not child.wait(0.0) and time.monotonic() < deadline:
                time.sleep(_POLL)  # one that is starting yet knows no signal, and would leave all to the next one
            child.leave()
            if not child.wait(max(deadline - time.monotonic(), _POLL)):
                child.kill()
                child.wait()
        if self._slot is not None:
            self._slot.close()
