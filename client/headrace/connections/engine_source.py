"""Tells a client where its engine is and whether it runs: the interface, and the code for an engine at an address.

``embedded_engine.py`` has the code for an embedded engine.
"""

from __future__ import annotations

from typing import Protocol

from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.files.engine_directory import LOCK_FILE, broker_endpoint, is_engine_running
from headrace.files.trusted_directory import directory_refusal
from headrace.process.clock import monotonic
from headrace.settings.settings import directory_of

_ABSENCE = 0.5
"""Seconds before an engine that does not run counts as absent: it may be starting, or a process manager restarts it."""


class EngineSource(Protocol):
    """Where the engine is, and whether it runs. All calls come from the I/O thread."""

    address: str
    hint: str

    @property
    def is_running(self) -> bool:
        """Whether an embedded engine runs or starts. True for an engine at an address, which has to be asked."""

    def open(self) -> str:
        """Return the broker's endpoint.

        Starts an embedded engine that does not run. Raises HeadraceError where that fails.
        """

    def is_broker(self, pid: int) -> bool:
        """Return whether a process may be the engine's broker."""

    def why_gone(self) -> str | None:
        """Return why the engine cannot be reached any more, or None."""

    def error(self, reason: str) -> HeadraceError:
        """Return the error for runs that have no engine, because of ``reason``."""

    def is_starting(self) -> bool:
        """Return whether the engine is starting. Runs wait for it then, even longer than the connect timeout."""

    def end_of_log(self) -> str:
        """Return the last lines of the engine's log, to be appended to a sentence.

        An empty text where they are unknown.
        """

    def close(self) -> None:
        """End what :meth:`open` started."""


class ExternalEngine:
    """An engine at an address. This program does not start it, and does not end it."""

    hint = "start one with `headrace serve`, or check the address"

    def __init__(self, address: str) -> None:
        self.address = address
        self._directory = directory_of(address)
        self._absent_since: float | None = None
        self.is_running = True

    def open(self) -> str:
        """Return the broker's endpoint. Raises EngineUnavailableError where the directory must not be trusted."""
        if (refusal := self._untrusted()) is not None:
            raise EngineUnavailableError(self.address, refusal)
        return broker_endpoint(self._directory)

    def is_broker(self, pid: int) -> bool:  # noqa: ARG002 - the source's form
        """Return True: the processes of an engine at an address are not known."""
        return True

    def why_gone(self) -> str | None:
        """Return why the directory must not be trusted; or that no engine has run there for half a second.

        A supervisor holds a lock while it lives: then its broker is starting, if it does not answer yet. A directory
        without that lock was made for an engine that has not started yet: this is no reason.
        """
        if (refusal := self._untrusted()) is not None:
            return refusal
        reason = self._absence()
        now = monotonic()
        if reason is None:
            self._absent_since = None
            return None
        if self._absent_since is None:
            self._absent_since = now
        return reason if now - self._absent_since >= _ABSENCE else None

    def is_starting(self) -> bool:
        """Return False: it is not known."""
        return False

    def end_of_log(self) -> str:
        """Return an empty text: the log belongs to the owner of the engine."""
        return ""

    def error(self, reason: str) -> HeadraceError:
        """Return an EngineUnavailableError with the address and ``reason``."""
        return EngineUnavailableError(self.address, reason)

    def close(self) -> None:
        """Do nothing: the engine goes on."""

    def _untrusted(self) -> str | None:
        refusal = directory_refusal(self._directory)
        return None if refusal is None or isinstance(refusal, FileNotFoundError) else refusal.strerror

    def _absence(self) -> str | None:
        if is_engine_running(self._directory):
            return None
        if (self._directory / LOCK_FILE).exists():
            return f"the engine in {self._directory} has ended; {self.hint}"
        if not self._directory.exists():
            return f"there is no directory {self._directory}; {self.hint}"
        return None
