"""The worker process: serves clients, starts their runs, sends the runs' messages, and keeps the links to broker and collector.

There is no task, future or timer per chunk. A provider's bytes are pushed into their run. At the end of the loop's turn, all that the
runs of one client have to say leaves in one frame.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.files.engine_directory import broker_endpoint, collector_endpoint, worker_endpoint
from headrace.process.descriptors import raise_limit, worker_shares
from headrace.process.garbage_collection import collect_young
from headrace.process.history import open_history
from headrace.process.lifecycle import is_orphan
from headrace.settings.known_secrets import provider_secrets, proxy_secrets, request_secrets
from headrace.settings.settings import Settings, SpansConfig
from headrace.transport.inbox import Inbox
from headrace.transport.link import HEARTBEAT_INTERVAL, hello_of
from headrace.transport.peer_server import PeerServer, ServedPeer, ServerSettings
from headrace.transport.router import SendResult
from headrace.wire.codec import decode_request, encode_frame, to_worker
from headrace.wire.messages import (
    MAX_FRAME_BYTES,
    NOT_BEGUN,
    WINDOW_CHARACTERS,
    WINDOW_EVENTS,
    Abort,
    Credit,
    Failed,
    Heartbeat,
    Hello,
    Query,
    Run,
    RunState,
    ToWorker,
)
from headrace.wire.roles import TO_WORKER
from headrace.wire.run_request import RunRequest
from headrace_workers.broker_link import BrokerLink, RunKey
from headrace_workers.http.http_client import HttpClient
from headrace_workers.limit_reports import LimitReports
from headrace_workers.masking import RunMasks, masked_failure
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.limit_headers import read_limits
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure
from headrace_workers.run_limits import RunLimits
from headrace_workers.runs.live_run import ClientRun, ConnectedClient, LiveRun, messages_of
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.shared_deadlines import SharedDeadlines
from headrace_workers.runs.short_run import ShortRun, plain_reader
from headrace_workers.runs.timeouts import Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.runs.turn_end import TurnEnd
from headrace_workers.shutdown import Shutdown
from headrace_workers.spans.tracer import OpenSpan, Tracer, TracerSettings
from headrace_workers.worker_settings import Prepared, Providers, clock_limits

logger = logging.getLogger(__name__)

_TICK = HEARTBEAT_INTERVAL
"""Seconds between two heartbeats, which are also checks whether the supervisor still runs."""
_RUN_WEIGHT = 40
"""As how many messages a run counts, of the 500 messages that are handled in one turn of the loop."""
_RUNS_PER_FRAME = 64
"""Runs with messages in one frame. It limits the frame's size: a run adds at most one window of events."""
_LINGER = 1.0
"""Seconds that the last messages may take to leave."""


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments on the command line of a worker process."""

    directory: Path
    name: str
    epoch: int
    parent: int
    slot: Path | None = None
    """The slot of this engine in the data directory. Without a slot the worker makes no spans."""


class Worker:
    """The shell of the process: it carries out what runs decide. It is the owner of a :class:`PeerServer`."""

    def __init__(self, settings: WorkerSettings, engine: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._settings = settings
        self.history = open_history("worker", settings.epoch)
        self._config = engine.engine
        self._providers = Providers(engine, os.environ)
        secrets = [*provider_secrets(engine, os.environ), *self._providers.keys.secrets()]
        self.masks = RunMasks([*secrets, *proxy_secrets(os.environ)])
        self._endpoint = worker_endpoint(settings.directory, settings.name, settings.epoch)
        shares = worker_shares(raise_limit())
        server_settings = ServerSettings(
            endpoint=self._endpoint, epoch=settings.epoch, parent=settings.parent, max_peers=shares.peers
        )
        # Runs begin a few in each turn of the loop. The chunks of other runs come between.
        inbox: Inbox[ToWorker] = Inbox(lambda message: _RUN_WEIGHT if type(message) is Run else 1)
        self._server = PeerServer(loop, server_settings, to_worker, TO_WORKER, self, inbox=inbox, history=self.history)
        self._send_frame = self._server.send_frame
        self._clients: dict[bytes, ConnectedClient] = {}
        self._turn_end = TurnEnd(loop, self._flush, self._server.wait_for_input)
        self._limits = RunLimits(shares, self._config.max_runs_per_worker, self._clients, loop)
        self.http = HttpClient(
            loop,
            connect_timeout=self._config.connect_timeout + 1.0,
            max_idle_per_origin=min(512, shares.exchanges // 2),
        )
        self.tracer = self._new_tracer(engine.spans)
        place = broker_endpoint(settings.directory)
        self._link = BrokerLink(
            place,
            self._hello,
            self._heartbeat,
            self._run_keys,
            settings.epoch,
            loop,
            self._providers.keys.hashes(),
        )
        self.deadlines = SharedDeadlines(loop, time.monotonic)
        self.early_deadlines = SharedDeadlines(loop, time.monotonic)
        self.limits = LimitReports(loop.call_later, self._link.report_limits, read_limits)
        self._shutdown = Shutdown(loop, self._link, self._runs, self._finish)
        self._done: asyncio.Future[None] = loop.create_future()

    async def run(self) -> None:
        """Serve until the worker has ended its runs after a signal, or the supervisor has gone."""
        logger.info("worker serves", extra={"worker": self._settings.name, "epoch": self._settings.epoch})
        self._server.open()
        self.loop.add_signal_handler(signal.SIGTERM, self._shutdown.signalled)
        self._link.open()
        if self.tracer is not None:
            self.tracer.open()
        self._tick()
        self.loop.call_later(_TICK, self._import_formats)
        await self._done
        if self.tracer is not None:
            await self.tracer.close()
        self._close()

    def schedule(self, run: LiveRun) -> None:
        """Send what a run can send at the end of this turn."""
        client = run.client
        client.ready_runs[run.span_id] = run
        if not client.is_frame_due:
            self._turn_end.frame_is_due(client)

    def _flush(self, client: ConnectedClient) -> None:
        now = time.monotonic()
        messages, client.messages = client.messages, []
        ready_runs, client.ready_runs = list(client.ready_runs.values()), {}
        for start in range(0, max(len(ready_runs), 1), _RUNS_PER_FRAME):
            messages += messages_of(ready_runs[start : start + _RUNS_PER_FRAME], now)
            if messages and not self._send(client, messages):
                return
            messages = []

    def _send(self, client: ConnectedClient, messages: list[Any]) -> bool:
        if self.tracer is not None:
            self.tracer.commit()  # the end of a run is stored before its client hears of it
        try:
            frame = encode_frame(self._settings.epoch, messages)
        except (TypeError, ValueError, OverflowError, RecursionError):
            logger.exception(
                "message cannot be encoded", extra={"types": sorted({type(message).__name__ for message in messages})}
            )
            messages = [
                encodable(message, self.masks.masked_line) for message in messages
            ]  # ends its run, and no other
            frame = encode_frame(self._settings.epoch, messages)
        if len(frame) > MAX_FRAME_BYTES:
            if len(messages) > 1:
                return all(self._send(client, [message]) for message in messages)
            messages = [encodable(messages[0])]
            frame = encode_frame(self._settings.epoch, messages)
        if self.history is not None:
            self.history.frame("sent", messages, self._settings.epoch, client.identity)
        result = self._send_frame(client.identity, frame)
        if result is not SendResult.SENT:
            # Credit limits what waits for a client that reads. So a client that is full does not read at all.
            logger.warning(
                "client disconnected", extra={"pid": client.pid, "runs": len(client.runs), "reason": result.value}
            )
            self._server.end(client.identity, "it cannot be reached")
            return False
        return True

    def tell(self, client: ConnectedClient, message: msgspec.Struct) -> None:
        """Send a message to a client at the end of this turn."""
        client.messages.append(message)
        if not client.is_frame_due:
            self._turn_end.frame_is_due(client)

    # Messages of clients.

    def peer_joined(self, peer: ServedPeer) -> None:
        """A client has said hello."""
        self._clients[peer.identity] = ConnectedClient(peer.identity, peer.pid)

    def peer_said(self, peer: ServedPeer, message: ToWorker) -> None:
        """Handle a message. If it fails, only its run ends."""
        client = self._clients[peer.identity]
        try:
            if type(message) is Run:
                self._start(client, message)
            else:
                self._handle(client, message)
        except Exception as error:
            logger.exception("message of client failed", extra={"type": type(message).__name__})
            if not isinstance(message, Run | Credit | Abort | Query):
                return
            if (run := _current(client, message)) is not None:
                run.broke(error)
            elif isinstance(message, Run):
                reason = f"the worker could not start the run: {type(error).__name__}"
                self._refuse_run(client, message, ProviderFailure("worker_failed", reason))

    def peer_left(self, peer: ServedPeer, reason: str) -> None:  # noqa: ARG002 - the server's form
        """A client has gone: end its runs."""
        for run in list(self._clients.pop(peer.identity).runs.values()):
            run.abandon()

    def _handle(self, client: ConnectedClient, message: ToWorker) -> None:
        match message:
            case Credit():
                if (run := _current(client, message)) is not None:
                    live = run.as_live()
                    live.carry_out(live.core.credit_received(message))
            case Abort():
                if (run := _current(client, message)) is not None:
                    live = run.as_live()
                    live.carry_out(live.core.aborted(message.mode, time.monotonic(), is_beaten=message.is_beaten))
            case Query():
                self._answer(client, message)
            case _:
                pass  # the server has handled it

    def _answer(self, client: ConnectedClient, query: Query) -> None:
        is_running = _current(client, query) is not None
        self.tell(client, RunState(query.span_id, query.attempt, is_running))

    # Runs.

    def _start(self, client: ConnectedClient, message: Run) -> None:
        if message.epoch != self._settings.epoch:
            return  # it is for an earlier process of this worker
        if not self._is_connected(client):
            return  # its client has left this worker while the loop stood still, and may have asked another one
        if self._shutdown.has_begun:
            self._turn_away(client, message, "the worker is stopping")
            return
        weight, reason = self._limits.weigh(client, message.request)
        if reason:
            self._turn_away(client, message, reason)
        elif message.span_id in client.runs:
            self._refuse_run(
                client, message, ProviderFailure("duplicate_span_id", f"{message.span_id} is running already")
            )
        else:
            try:
                request = decode_request(message.request)
            except RemoteProtocolError as error:
                self._refuse_run(client, message, ProviderFailure("invalid_request", str(error)))
                return
            self._start_run(client, message, request, weight)

    def _is_connected(self, client: ConnectedClient) -> bool:
        """Return whether a client is still there. The kernel is asked once in a turn of the loop."""
        if not client.is_there:
            client.is_there = self._server.is_connected(client.identity)
            if client.is_there:
                self.loop.call_soon(client.next_turn)
        return client.is_there

    def _start_run(self, client: ConnectedClient, message: Run, request: RunRequest, weight: int) -> None:
        others = request_secrets(request.tools, request.custom_options)
        try:
            prepared = self._providers.prepare(request, message.api_key, message.base_url, message.key)
        except ProviderFailedError as error:
            failure = masked_failure(error.failure, self.masks.mask_of(message.api_key, message.base_url, others))
            self._refuse_run(client, message, failure)
            return
        span = self.tracer.begin(message, request, prepared.wire_format) if self.tracer is not None else None
        run = client.runs[message.span_id] = self._run_of(client, message, request, prepared, span, weight, others)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug(
                "run begins",
                extra={"span_id": message.span_id, "provider": request.provider, "model": request.model},
            )
        if self.history is not None:
            self.history.note("start", span_id=message.span_id, attempt=message.attempt, epoch=message.epoch)
        run.start()

    def _run_of(
        self,
        client: ConnectedClient,
        message: Run,
        request: RunRequest,
        prepared: Prepared,
        span: OpenSpan | None,
        weight: int,
        others: tuple[str, ...],
    ) -> ClientRun:
        """Return a run in its short form, if its answer may come in one piece; else in its general form."""
        limits = clock_limits(request, self._config, message.time_left)
        mask = self.masks.mask_of(prepared.api_key, message.base_url, others)
        kept, api, name = _kept(message), prepared.api, prepared.wire_format.name
        if (read_plain := plain_reader(api, request)) is not None:
            return ShortRun(
                self, client, kept, request, prepared.request, api, read_plain, limits, mask, span, weight, name
            )
        transcript = Transcript() if span is not None and span.keeps_content else None
        core = ProviderRun(kept, request, api, Clocks(limits, time.monotonic()), mask, transcript, name)
        return LiveRun(self, client, core, prepared.request, span, weight, kept)

    def _turn_away(self, client: ConnectedClient, message: Run, reason: str) -> None:
        """Refuse a run that has not begun, so that its client asks another worker."""
        self._refuse_run(client, message, ProviderFailure("worker_stopping", reason, code=NOT_BEGUN))

    def _refuse_run(self, client: ConnectedClient, message: Run, why: ProviderFailure) -> None:
        code, argument = why.code, why.argument
        logger.info("run refused", extra={"span_id": message.span_id, "kind": why.kind, "code": code})
        failed = Failed(message.span_id, message.attempt, 0, why.kind, why.reason, code=code, argument=argument)
        if self.tracer is not None:
            self.tracer.refuse(message, failed)
        self.tell(client, failed)

    # The process.

    def _hello(self) -> Hello:
        name, endpoint = self._settings.name, self._endpoint
        return hello_of("worker", name, endpoint, self._capacity())

    def _new_tracer(self, config: SpansConfig) -> Tracer | None:
        settings = self._settings
        if settings.slot is None:
            return None
        endpoint = collector_endpoint(settings.directory)
        place = TracerSettings(slot=settings.slot, endpoint=endpoint, worker=settings.name, epoch=settings.epoch)
        return Tracer(place, config, self._hello, self.loop)

    def _tick(self) -> None:
        if self._done.done():
            return  # the sockets are being closed
        if is_orphan(self._settings.parent):
            self._finish()
            return
        self._link.beat_if_connected()
        if self.tracer is not None:
            self.tracer.beat()
        collect_young()
        self.loop.call_later(_TICK, self._tick)

    def _import_formats(self) -> None:
        """Import a wire format that no run has needed yet, and later the next one. Runs that are under way would wait meanwhile."""
        if any(client.runs for client in self._clients.values()) or WIRE_FORMATS.import_next():
            self.loop.call_later(_TICK, self._import_formats)

    def _heartbeat(self) -> Heartbeat:
        return Heartbeat(self._capacity(), self._shutdown.has_begun)

    def _capacity(self) -> int:
        """Return how many runs the worker can have. If no more clients can connect, it takes no new runs: they may be theirs."""
        capacity = self._limits.capacity
        return min(capacity, self._limits.run_count()) if self._server.is_full else capacity

    def _runs(self) -> Iterator[ClientRun]:
        for client in self._clients.values():
            yield from client.runs.values()

    def _run_keys(self) -> list[RunKey]:
        return [
            (span_id, run.attempt, client.pid)
            for client in self._clients.values()
            for span_id, run in client.runs.items()
        ]

    def _finish(self) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            self._done.set_result(None)

    def _close(self) -> None:
        """Close all sockets. Wait until the last messages have left."""
        self._server.close(_LINGER)
        self._link.close()


def encodable(message: Any, masked: Callable[[str], str] = str) -> Any:
    """Return ``message``, or if it cannot be encoded or is too long, the failure of its run. ``masked`` takes secrets out of a text."""
    try:
        if len(encode_frame(0, [message])) <= MAX_FRAME_BYTES:
            return message
        reason = f"the provider's answer cannot be passed on: it is over {MAX_FRAME_BYTES // 2**20} MiB; ask for less at a time"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = masked(f"the provider's answer cannot be passed on: {error}")
    # The response was a success: only its content cannot be encoded.
    return Failed(message.span_id, message.attempt, message.sequence, "provider_protocol", reason, status_code=200)


def _kept(message: Run) -> Run:
    """Return the message without its request, and with no more credit than one window: all that the run still needs of it."""
    sequence_limit = min(message.sequence_limit, WINDOW_EVENTS)
    character_limit = min(message.character_limit, WINDOW_CHARACTERS)
    return msgspec.structs.replace(message, request=b"", sequence_limit=sequence_limit, character_limit=character_limit)


def _current(client: ConnectedClient, message: Run | Credit | Abort | Query) -> ClientRun | None:
    """Return the run that a message is about. Return None if the message is about an earlier attempt, or the run has ended."""
    run = client.runs.get(message.span_id)
    return run if run is not None and run.attempt == message.attempt else None
