"""The link to the broker of an engine: opens it for the first question, and opens it again after its end.

Used on the I/O thread only. Messages about runs go to ``engine_runs.py``; answers about the engine go to the
callers that asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec

from headrace.connections.client_spans import RunSpans
from headrace.connections.engine_source import EngineSource
from headrace.connections.run_links import Links, TurnLink, start_failure, watch_start
from headrace.errors import EngineUnavailableError, HeadraceError
from headrace.process.callbacks import log
from headrace.process.clock import monotonic
from headrace.process.event_loop import CallingLoop
from headrace.process.lifecycle import origin
from headrace.transport.link import REOPEN_DELAY
from headrace.wire.groups import grants_of
from headrace.wire.messages import (
    Acquire,
    FromBroker,
    Goodbye,
    Grant,
    GrantMany,
    Heartbeat,
    Hold,
    Joined,
    LeaseQuery,
    Refuse,
    Release,
    Restart,
    RestartAnswer,
    Revoke,
    Silent,
    SpanBatch,
    Status,
    StatusRequest,
    Vacated,
    Welcome,
)

# The logging settings of a program may have this name: so it does not change with the modules of the client.
logger = logging.getLogger("headrace.connections.connection")


class BrokerListener(Protocol):
    """Receives the broker's messages about runs."""

    @property
    def are_any(self) -> bool:
        """Whether there are runs that have not ended."""

    def granted(self, grant: Grant) -> None:
        """The broker gave a run a lease."""

    def refused(self, refusal: Refuse) -> None:
        """The broker gives a run no lease."""

    def revoked(self, revocation: Revoke) -> None:
        """The broker has ended a lease, because the worker did not know the run."""

    def limit(self, total_timeout: float) -> None:
        """The engine has said its total timeout, in seconds, for runs without one of their own."""

    def ask_again(self) -> None:
        """The broker is a new one: tell it of all leases, and ask again for the runs that wait."""

    def fail_waiting(self, error: HeadraceError) -> None:
        """No broker answers. End the runs that wait for a lease."""


class EngineLink:
    """The link to the broker of one engine, and the callbacks that wait for the engine's status or for a restart."""

    def __init__(
        self,
        reactor: CallingLoop,
        source: EngineSource,
        connect_timeout: float,
        links: Links,
        spans: RunSpans,
        runs: BrokerListener,
    ) -> None:
        self._reactor = reactor
        self._source = source
        self._connect_timeout = connect_timeout
        self._links = links
        self._spans = spans
        self._runs = runs
        self.directory = Path()
        """The directory of the engine. Known once a link was opened."""
        self.knows_pids = False
        """Whether a pid means the same process to the engine and to this process. Containers number processes on their
        own."""
        self._broker_pid = 0
        self._broker: TurnLink | None = None
        # Since when no broker has answered, over all links that were tried.
        self._awaited_since: float | None = None
        self._status_waiters: list[Callable[[Status | HeadraceError], None]] = []
        # The same, without a wish for an engine: none is started for them.
        self._status_lookers: list[Callable[[Status | HeadraceError], None]] = []
        self._restart_waiters: list[Callable[[RestartAnswer | HeadraceError], None]] = []
        self._wants_reload = False

    def ask(self, message: msgspec.Struct) -> None:
        """Send the broker a message. A message that needs an answer opens the link, and waits."""
        if self._broker is None:
            if isinstance(message, Release):
                return  # the lease ended with its broker, and the next broker does not know it
            self._reopen()  # this repeats the questions of all runs that wait, also of this run
            if self._broker is not None:
                _drop_repeat(self._broker.outbox, message)
        elif not (self._broker.is_awaited or isinstance(message, Hold | Release)):
            self._await(self._broker)
        if self._broker is not None:
            self._links.queue(self._broker, message)

    def give_back_late(self, release: Release) -> None:
        """Give a lease back within a few milliseconds, with other messages."""
        if self._broker is not None:
            self._links.queue_late(self._broker, release)

    def hurry(self) -> None:
        """Send what :meth:`give_back_late` has kept, at the end of this turn."""
        if self._broker is not None:
            self._links.send_late(self._broker)

    def ask_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask for the engine's status."""
        self._status_waiters.append(answer)
        self.ask(StatusRequest())

    def look_at_status(self, answer: Callable[[Status | HeadraceError], None]) -> None:
        """Ask for the engine's status, and start no engine for it: the answer is an error if none runs."""
        self._status_lookers.append(answer)
        if self._broker is not None or self._source.is_running:
            self.ask(StatusRequest())
        else:
            self._answer_lookers(self._not_running())

    def answer_status(self, status: Status | HeadraceError) -> None:
        """Call all that asked for the engine's status."""
        waiters, self._status_waiters = self._status_waiters, []
        for answer in waiters:
            answer(status)
        self._answer_lookers(status)

    def ask_restart(self, answer: Callable[[RestartAnswer | HeadraceError], None], *, reload: bool = False) -> None:
        """Have the engine replace its workers, and with ``reload`` read its settings again.

        Its answer to the hello says whether it can.
        """
        self._restart_waiters.append(answer)
        self._wants_reload |= reload
        if self._broker is None:
            self._reopen()
        elif not self._broker.is_awaited:
            self._await(self._broker)
        self._send_restart()

    def answer_restart(self, answer: RestartAnswer | HeadraceError) -> None:
        """Call all that asked for new workers."""
        waiters, self._restart_waiters = self._restart_waiters, []
        self._wants_reload = False
        for waiter in waiters:
            waiter(answer)

    def fail_waiting(self, error: HeadraceError) -> None:
        """No broker answers. Tell all that wait for one."""
        self._runs.fail_waiting(error)
        self.answer_status(error)
        self.answer_restart(error)

    def look(self) -> None:
        """Open a link for the runs, if there is none: a broker that starts late must hear of their leases."""
        if self._broker is None and self._runs.are_any and self._source.why_gone() is None:
            self._reopen(is_awaited=False)

    def is_beside_broker(self, pid: int) -> bool:
        """Return whether a process has the same parent as the broker; the collector has.

        True where that is not known.
        """
        broker, other = (origin(known) if known else None for known in (self._broker_pid, pid))
        return broker is None or other is None or broker.parent == other.parent

    def drop(self) -> None:
        """Close the link. The next question opens another one."""
        if self._broker is not None:
            self._links.close(self._broker)
            self._broker = None

    def leave(self, left: Iterable[SpanBatch]) -> None:
        """Give the broker the spans that are not stored anywhere yet."""
        self._links.leave(self._broker, left)

    def end(self, linger: float) -> None:
        """Close the link once what was sent has left, within ``linger`` seconds."""
        if self._broker is not None:
            self._links.close(self._broker, linger)
        self._broker = None

    def _open(self, *, is_awaited: bool = True) -> None:
        """Open a link, and say hello. If that fails, tell all that wait."""
        try:
            endpoint = self._source.open()
            link = self._links.open_broker(endpoint, self._from_broker, self._ended, self._lose, self._source.is_broker)
        except HeadraceError as error:
            self._reactor.call(partial(self.fail_waiting, error))
            return
        self._broker = link
        self.directory = Path(endpoint.removeprefix("ipc://")).parent
        self._spans.engine_is_at(endpoint)
        if is_awaited:
            self._await(link)

    def _await(self, link: TurnLink) -> None:
        link.is_awaited = True
        if self._awaited_since is None:
            self._awaited_since = monotonic()
        watch_start(self._reactor, self._source, link, self._awaited_since, self._connect_timeout, self._lose)

    def _lose(self, error: HeadraceError) -> None:
        log(logger, logging.INFO, "engine lost", extra={"address": self._source.address, "reason": str(error)})
        self._awaited_since = None
        self.drop()
        if self._source.why_gone() is not None:
            self._source.close()
        self.fail_waiting(error)

    def _ended(self, link: TurnLink) -> None:
        self.drop()
        if link.refusal is not None:
            self._lose(self._source.error(link.refusal))
        elif (gone := self._source.why_gone()) is not None:
            self._lose(self._source.error(gone))
        elif link.is_welcomed:
            self._reopen_if_awaited()
        elif self._awaited_since is not None and (
            late := start_failure(self._source, self._awaited_since, self._connect_timeout)
        ):
            self._lose(late)  # each new link may end before its watch has looked at it
        else:
            # The broker ended the link before it answered, and may do so again: not at once.
            self._reactor.call_later(REOPEN_DELAY, self._reopen_if_awaited)

    def _reopen_if_awaited(self) -> None:
        if self._broker is not None:
            return
        if self._runs.are_any or self._status_waiters or self._restart_waiters:
            self._reopen()
        elif self._status_lookers:
            if self._source.is_running:
                self._reopen()
            else:
                self._answer_lookers(self._not_running())

    def _answer_lookers(self, status: Status | HeadraceError) -> None:
        lookers, self._status_lookers = self._status_lookers, []
        for answer in lookers:
            answer(status)

    def _not_running(self) -> HeadraceError:
        return EngineUnavailableError(self._source.address, self._source.why_gone() or "it does not run")

    def _reopen(self, *, is_awaited: bool = True) -> None:
        """Open a link. Tell its broker of all leases, and ask again for the runs that wait."""
        self._open(is_awaited=is_awaited)
        if self._broker is None:
            return
        self._runs.ask_again()
        if self._status_waiters or self._status_lookers:
            self._links.queue(self._broker, StatusRequest())

    def _send_restart(self) -> None:
        link = self._broker
        if link is None or not link.is_welcomed or not self._restart_waiters:
            return
        if ("limits" if self._wants_reload else "restart") in link.capabilities:
            self._links.queue(link, Restart(reload=self._wants_reload))
        else:
            reason = "this version of the engine cannot be asked to replace its workers; send its supervisor SIGHUP"
            self.answer_restart(EngineUnavailableError(self._source.address, reason))

    def _from_broker(self, link: TurnLink, message: FromBroker) -> None:
        match message:
            case Grant() | GrantMany() | Refuse() | Revoke():
                self._about_runs(message)
            case Welcome():
                self._awaited_since = None
                self._broker_pid = link.peer_pid
                self.knows_pids = bool(link.peer_pid) and link.peer_pid == message.pid
                if message.total_timeout is not None:
                    self._runs.limit(message.total_timeout)
                log(
                    logger,
                    logging.INFO,
                    "connected to the engine",
                    extra={"address": self._source.address, "broker_pid": message.pid},
                )
                self._send_restart()
            case Status():
                self.answer_status(message)
            case RestartAnswer():
                self.answer_restart(message)
            case Heartbeat() | Silent() | Joined() | Vacated() | LeaseQuery() | Restart():
                pass  # these are for the supervisor and the workers
            case Goodbye():
                reason = message.reason + self._source.end_of_log()
                self._lose(EngineUnavailableError(self._source.address, reason))

    def _about_runs(self, message: Grant | GrantMany | Refuse | Revoke) -> None:
        match message:
            case Grant():
                self._runs.granted(message)
            case GrantMany():
                for grant in grants_of(message):
                    self._runs.granted(grant)
            case Refuse():
                self._runs.refused(message)
            case Revoke():
                self._runs.revoked(message)


def _drop_repeat(outbox: list[msgspec.Struct], message: msgspec.Struct) -> None:
    """Remove the repeated ``message`` from the outbox of a new link: the message itself is queued next."""
    if isinstance(message, Acquire):
        # The repeated question may differ in the time that is left.
        outbox[:] = [other for other in outbox if not isinstance(other, Acquire) or other.span_id != message.span_id]
    elif message in outbox:
        outbox.remove(message)
