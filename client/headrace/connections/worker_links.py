"""The links of one connection to workers, and the runs on each link. Used on the I/O thread only.

A message of a worker goes to the session of its run. If a worker is lost, each of its runs is told.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial

from headrace.connections.engine_source import EngineSource
from headrace.connections.run_links import Links, WorkerLink, watch_welcome
from headrace.errors import HeadraceError, ProtocolError, RemoteProtocolError
from headrace.process.callbacks import log
from headrace.process.clock import monotonic
from headrace.process.event_loop import CallingLoop
from headrace.runs.open_runs import OpenRun
from headrace.runs.session_commands import Command, TellWorker
from headrace.transport.checked_connection import OTHER_PROCESS
from headrace.wire.messages import Chunk, FromWorker, Goodbye, Grant, RunState, Terminal, Welcome

# The logging settings of a program may have this name: so it does not change with the modules of the client.
logger = logging.getLogger("headrace.connections.connection")


_ABOUT_RUN = Terminal | RunState
"""Made once: for each message, making it would take longer than the question."""


class WorkerLinks:
    """The links to the workers that have runs of this connection.

    ``carry_out`` does what a session decides. ``chunk`` takes the events of a run. ``run_failed`` ends a run after an
    exception in the handling of its message.
    """

    def __init__(
        self,
        reactor: CallingLoop,
        links: Links,
        source: EngineSource,
        carry_out: Callable[[OpenRun, list[Command]], None],
        chunk: Callable[[OpenRun, int, Chunk], None],
        run_failed: Callable[[OpenRun, BaseException], None],
    ) -> None:
        self._reactor = reactor
        self._links = links
        self._source = source
        self._carry_out = carry_out
        self._chunk = chunk
        self._run_failed = run_failed
        self._by_endpoint: dict[str, WorkerLink] = {}

    def has(self, endpoint: str) -> bool:
        """Return whether there is a link to this endpoint."""
        return endpoint in self._by_endpoint

    def tell(self, delivery: OpenRun, command: TellWorker, *, knows_pids: bool) -> None:
        """Send a message of a run to its worker.

        Opens the link if there is none; raises HeadraceError where that fails. ``knows_pids``: the engine numbers
        processes as this process does.
        """
        if command.former is not None:
            if (former := self._by_endpoint.get(command.former.endpoint)) is not None:
                former.deliveries.pop(command.message.span_id, None)
                self._links.queue(former, command.message)
            return
        if (lease := command.lease or delivery.session.lease) is not None:
            link = self._by_endpoint.get(lease.endpoint) or self._open(lease, knows_pids=knows_pids)
            link.deliveries[command.message.span_id] = delivery
            self._links.queue(link, command.message)

    def release(self, delivery: OpenRun) -> None:
        """Take a run that has ended from the link to its worker."""
        lease = delivery.session.lease
        if lease is not None and (link := self._by_endpoint.get(lease.endpoint)) is not None:
            link.deliveries.pop(delivery.session.span_id, None)

    def check_silence(self, now: float) -> None:
        """Ask workers for the runs that have been silent for long.

        Some versions of workers cannot be asked.
        """
        for link in list(self._by_endpoint.values()):
            for span_id, delivery in list(link.deliveries.items()) if "query" in link.capabilities else ():
                if span_id == delivery.session.span_id:  # nobody waits for a hedge
                    self._carry_out(delivery, delivery.session.check_silence(now))

    def close(self, linger: float) -> None:
        """Close all links once what was sent has left, within ``linger`` seconds."""
        deadline = monotonic() + linger
        for link in list(self._by_endpoint.values()):
            self._links.close(link, deadline - monotonic())
        self._by_endpoint.clear()

    def drop(self) -> None:
        """Close all links at once. Does not raise."""
        links = list(self._by_endpoint.values())
        self._by_endpoint.clear()
        for link in links:
            with contextlib.suppress(Exception):  # the others must be closed, too
                self._links.close(link)

    def _open(self, grant: Grant, *, knows_pids: bool) -> WorkerLink:
        link = self._by_endpoint[grant.endpoint] = self._links.open_worker(
            grant, self._received, self._ended, self._unreadable, knows_pids=knows_pids
        )
        watch_welcome(self._reactor, link, partial(self._lose, link))
        return link

    def _ended(self, link: WorkerLink) -> None:
        if link.refusal == OTHER_PROCESS:
            self._lose(link, f"another process listens where worker {link.name} was")
        elif link.refusal is not None:
            self._lose(link, link.refusal, self._source.error(link.refusal))
        else:
            self._lose(link, f"worker {link.name} (process epoch {link.epoch:#x}) went away")

    def _unreadable(self, link: WorkerLink, error: ProtocolError) -> None:
        self._lose(link, str(error), error)

    def _lose(self, link: WorkerLink, reason: str, error: HeadraceError | None = None) -> None:
        """Close a link, and tell its runs. Without ``error`` the worker is lost: some runs are retried then."""
        if not link.is_open:
            return
        self._links.close(link)
        del self._by_endpoint[link.endpoint]
        log(
            logger,
            logging.INFO,
            "worker lost",
            extra={"worker": link.name, "epoch": link.epoch, "reason": reason, "runs": len(link.deliveries)},
        )
        for span_id, delivery in list(link.deliveries.items()):
            session = delivery.session
            now = monotonic()
            commands = session.worker_lost(reason, now, span_id) if error is None else session.failed(error, now)
            self._carry_out(delivery, commands)

    def _received(self, link: WorkerLink, messages: list[FromWorker]) -> None:
        """Handle messages of a worker. An exception ends only the run of its message."""
        deliveries = link.deliveries
        for message in messages:
            try:
                if type(message) is not Chunk:
                    self._other(link, message)
                elif (delivery := deliveries.get(message.span_id)) is not None:
                    self._chunk(delivery, link.link.peer_epoch, message)
            except BaseException as error:
                span_id = getattr(message, "span_id", "")
                if (delivery := deliveries.get(span_id)) is None:
                    raise
                self._run_failed(delivery, error)
                deliveries.pop(span_id, None)  # the session may have given its lease back before the exception

    def _other(self, link: WorkerLink, message: FromWorker) -> None:
        """Handle a message that is not a chunk."""
        if isinstance(message, _ABOUT_RUN):
            self._about_run(link, message)
        elif isinstance(message, Welcome):
            if link.link.peer_epoch != link.epoch:
                self._lose(link, f"another process answers where worker {link.name} was")
        elif isinstance(message, Goodbye):
            self._lose(link, message.reason, RemoteProtocolError(f"worker {link.name}: {message.reason}"))

    def _about_run(self, link: WorkerLink, message: Terminal | RunState) -> None:
        if (delivery := link.deliveries.get(message.span_id)) is None:
            return
        session, epoch = delivery.session, link.link.peer_epoch
        if isinstance(message, RunState):
            self._carry_out(delivery, session.run_state(epoch, message, monotonic()))
        else:
            self._carry_out(delivery, session.ended(epoch, message, monotonic()))
        if session.lease is None or (isinstance(message, Terminal) and message.span_id != session.span_id):
            # The run goes on with another attempt, and does not end with this link.
            link.deliveries.pop(message.span_id, None)
