"""One run in its worker: from the provider's bytes to chunks and a terminal message. Pure.

The shell tells what happened, carries the returned commands out, and calls :meth:`ProviderRun.take` for what is to be sent.
Exactly one terminal message is handed out, after the last chunk, and nothing after it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import msgspec

from headrace.types import RunEvent, Usage, UsageUpdate
from headrace.wire.messages import (
    AbortMode,
    Chunk,
    Credit,
    FailureKind,
    Run,
    RunRequest,
    Terminal,
)
from headrace_workers.clocks import Clocks, Expired
from headrace_workers.outflow import Outflow
from headrace_workers.portable import TooDeepError, portable
from headrace_workers.providers.protocol import (
    Completion,
    HttpRequest,
    ProviderApi,
    ProviderFailedError,
    ProviderFailure,
    StreamMapper,
)
from headrace_workers.sse import EventTooLargeError, SSEParser
from headrace_workers.terminal import Ending, Told, prompt_characters, terminal_message, unfinished_usage, without_key

MAX_ERROR_BODY = 64 * 1024
MAX_JSON_BODY = 48 * 1024 * 1024


class Command(enum.Enum):
    """What the shell is to do."""

    SEND = "send"  # there is something to take, when it suits
    SEND_NOW = "send now"  # a first chunk or a terminal: at once
    PAUSE = "pause"  # stop reading the response
    RESUME = "resume"
    CLOSE = "close"  # the response is not wanted any more
    CONTINUE = "continue"  # send the request that continues the response
    RELEASE = "release"  # nothing more is needed of it; the connection may be used again


Commands = tuple[Command, ...]

_BROKEN = (ProviderFailedError, EventTooLargeError, RecursionError)
"""What reading a response raises when it cannot be read; nesting without end is found wherever a value is gone through."""

_NOTHING: Commands = ()
_SEND = (Command.SEND,)
_SEND_NOW = (Command.SEND_NOW,)
_PAUSE = (Command.PAUSE,)
_CONTINUED = (Command.RELEASE, Command.CONTINUE)
_CLOSED = (Command.CLOSE, Command.SEND_NOW)
_RELEASED = (Command.RELEASE, Command.SEND_NOW)


class _Body(enum.Enum):
    """What the response's body is read as."""

    NONE = "none"
    EVENTS = "events"
    JSON = "json"
    ERROR = "error"


class ProviderRun:
    """One run, from its start on the worker to its terminal message."""

    __slots__ = (
        "_api",
        "_api_key",
        "_body",
        "_body_kind",
        "_clocks",
        "_content_type",
        "_continued_with",
        "_ended",
        "_has_sent_terminal",
        "_headers",
        "_is_draining",
        "_is_paused",
        "_mapper",
        "_outflow",
        "_parser",
        "_request",
        "_run",
        "_status",
        "_unsent",
    )

    def __init__(
        self, run: Run, request: RunRequest, api: ProviderApi, clocks: Clocks, api_key: str | None = None
    ) -> None:
        self._run = run
        self._request = request
        self._api = api
        self._clocks = clocks
        self._api_key = api_key
        self._outflow = Outflow(run.sequence_limit, run.character_limit)
        self._parser = SSEParser()
        self._mapper: StreamMapper | None = None
        self._body_kind = _Body.NONE
        self._body = bytearray()
        self._status = 0
        self._headers: Mapping[str, str] = {}
        self._content_type = ""
        self._is_paused = False
        self._is_draining = False
        self._ended: Ending | None = None
        self._has_sent_terminal = False
        self._unsent: list[str] = []
        # A response that repeats the token it was asked with would go on for ever.
        self._continued_with: str | None = None

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self._run.span_id

    @property
    def attempt(self) -> int:
        """Which attempt this is."""
        return self._run.attempt

    @property
    def clocks(self) -> Clocks:
        """The run's clocks, for the shell to time."""
        return self._clocks

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is wanted of the provider."""
        return self._ended is not None

    @property
    def is_over(self) -> bool:
        """Whether the terminal message has been handed out."""
        return self._has_sent_terminal

    # What happens to the response.

    def responded(self, status: int, headers: Mapping[str, str], now: float) -> Commands:
        """The response's head is there. ``headers`` has lower-case names."""
        self._clocks.alive(now)
        self._status = status
        self._headers = headers
        self._content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if status != 200:  # noqa: PLR2004 - the one status that is a success here
            self._body_kind = _Body.ERROR
        elif self._is_event_stream():
            self._body_kind = _Body.EVENTS
            if self._mapper is None:
                self._mapper = self._api.open_stream(self._request)
        else:
            self._body_kind = _Body.JSON
        return _NOTHING

    def received(self, data: bytes, now: float) -> Commands:
        """A piece of the body is there."""
        self._clocks.alive(now)
        if self._ended is not None:
            return _NOTHING
        if self._body_kind is not _Body.EVENTS:
            return self._collect(data)
        events = self._outflow.pending
        before = len(events)
        try:
            self._map(self._parser.feed(data), events)
        except _BROKEN as error:
            return self._end(self._failure_of(error), Command.CLOSE)
        if self._mapper is not None and self._mapper.is_complete:
            return self._finish(Command.RELEASE)
        return self._grown() if len(events) > before else _NOTHING

    def completed(self, now: float) -> Commands:
        """The body ended as HTTP says."""
        self._clocks.alive(now)
        if self._ended is not None:
            return _NOTHING
        match self._body_kind:
            case _Body.EVENTS:
                return self._body_ended()
            case _Body.JSON:
                return self._read_json()
            case _:
                failure = self._api.read_error(self._status, self._headers, bytes(self._body))
                return self._end(failure, Command.RELEASE)

    def failed(self, stage: str, reason: str) -> Commands:
        """The exchange failed: ``stage`` is connect, send or read."""
        if self._ended is not None:
            return _NOTHING
        if self._body_kind is _Body.ERROR:
            return self._end(self._api.read_error(self._status, self._headers, bytes(self._body)), Command.CLOSE)
        if self._body_kind is _Body.NONE or stage != "read":
            return self._end(self._failure("provider_unavailable", reason), Command.CLOSE)
        if self._body_kind is _Body.EVENTS and self._mapper is not None:
            try:
                return self._end(self._mapper.finish(), Command.CLOSE)
            except _BROKEN:
                pass
        return self._end(self._failure("provider_protocol", f"the response was cut: {reason}"), Command.CLOSE)

    # What the client says.

    def credited(self, credit: Credit) -> Commands:
        """The client allows more."""
        self._outflow.credited(credit.sequence_limit, credit.character_limit)
        # A paused run may have nothing waiting: what it waits for is this credit.
        if self._outflow.pending or self._is_paused or self._ended is not None:
            return _SEND_NOW
        return _NOTHING

    def aborted(self, mode: AbortMode, now: float) -> Commands:
        """The client wants no more. Told again, nothing changes."""
        self._outflow.pending.clear()
        if self._ended is not None:
            if not isinstance(self._ended, Usage):
                self._ended = self._ended.usage if isinstance(self._ended, Completion) else self._best_usage()
            return _SEND_NOW
        if mode == "drain" and self._body_kind in (_Body.NONE, _Body.EVENTS):
            self._is_draining = True
            return self._resume(now) if self._is_paused else _NOTHING
        return self._end(self._best_usage(), Command.CLOSE)

    # What time does.

    def due(self, now: float) -> Commands:
        """A clock may have run out."""
        if self._ended is not None or (expired := self._clocks.expired(now)) is None:
            return _NOTHING
        return self._end(expired, Command.CLOSE)

    def continue_request(self, sent: HttpRequest) -> HttpRequest:
        """Return the request that continues the response, after a CONTINUE command; its response is read as part of it."""
        assert self._mapper is not None  # noqa: S101 - it is the mapper that asked
        token = self._continued_with = self._mapper.continuation or ""
        self._parser = SSEParser()
        self._body_kind = _Body.NONE
        return self._api.continue_request(sent, token)

    # What is to be sent.

    def take(self, now: float) -> tuple[list[Chunk | Terminal], Commands]:
        """Return the messages that may leave now, and what follows from their leaving."""
        messages: list[Chunk | Terminal] = []
        if self._outflow.pending:
            sequence, events = self._outflow.take()
            if events:
                messages.append(Chunk(self.span_id, self.attempt, sequence, events))
        if self._ended is not None and not self._outflow.pending and not self._has_sent_terminal:
            self._has_sent_terminal = True
            messages.append(self._terminal(self._ended))
        if self._is_paused and self._ended is None and self._outflow.waiting_is_low():
            return messages, self._resume(now)
        return messages, _NOTHING

    def refused(self, failure: ProviderFailure) -> Commands:
        """The request could not be made."""
        return self._end(failure, Command.CLOSE)

    def _resume(self, now: float) -> Commands:
        self._is_paused = False
        self._clocks.resumed(now)
        return (Command.RESUME,)

    def _map(self, server_events: list[tuple[str, bytes]], events: list[RunEvent]) -> None:
        mapper = self._mapper
        assert mapper is not None  # noqa: S101 - set with the response's head
        for name, data in server_events:
            mapper.feed(name, data, events)
            if mapper.is_complete:
                return

    def _grown(self) -> Commands:
        """Events were added."""
        if self._outflow.sequence == 0 and any(not isinstance(event, UsageUpdate) for event in self._outflow.pending):
            self._clocks.content()
        if self._is_draining or not self._request.stream:
            self._keep_text()
            return _NOTHING
        if not self._outflow.has_credit:
            if not self._is_paused and self._outflow.waiting_is_full():
                self._is_paused = True
                self._clocks.paused()
                return _PAUSE
            return _NOTHING
        if self._outflow.sequence == 0:
            return _SEND_NOW
        return _SEND

    def _keep_text(self) -> None:
        """Nobody is to be sent these events; a failure would tell of their text."""
        self._unsent += [event for event in self._outflow.pending if type(event) is str]
        self._outflow.pending.clear()

    def _is_event_stream(self) -> bool:
        """A provider that streams says so; one that was asked to may leave it out."""
        if self._content_type == "text/event-stream":
            return True
        return self._request.stream and self._content_type not in ("application/json", "text/html")

    def _collect(self, data: bytes) -> Commands:
        self._body += data
        if self._body_kind is _Body.ERROR and len(self._body) > MAX_ERROR_BODY:
            del self._body[MAX_ERROR_BODY:]
            return self._end(self._api.read_error(self._status, self._headers, bytes(self._body)), Command.CLOSE)
        if len(self._body) > MAX_JSON_BODY:
            return self._end(self._failure("provider_protocol", "the response is too large"), Command.CLOSE)
        return _NOTHING

    def _body_ended(self) -> Commands:
        try:
            self._map(self._parser.finish(), self._outflow.pending)
        except _BROKEN as error:
            return self._end(self._failure_of(error), Command.RELEASE)
        if self._mapper is not None and self._mapper.continuation not in (None, self._continued_with):
            grown = self._grown() if self._outflow.pending else _NOTHING
            return (*grown, *_CONTINUED)
        return self._finish(Command.RELEASE)

    def _finish(self, command: Command) -> Commands:
        assert self._mapper is not None  # noqa: S101 - only a stream is finished so
        try:
            return self._end(self._mapper.finish(), command)
        except _BROKEN as error:
            return self._end(self._failure_of(error), Command.CLOSE)

    def _read_json(self) -> Commands:
        """A whole response: asked for, or sent by a server that does not stream."""
        if self._content_type == "text/html":
            reason = "an HTML page came where the API's answer was due; is the base URL right, or a proxy in the way?"
            return self._end(self._failure("provider_protocol", reason), Command.RELEASE)
        try:
            completion = self._api.read_body(self._request, bytes(self._body))
        except _BROKEN as error:
            return self._end(self._failure_of(error), Command.RELEASE)
        if self._request.stream and completion.message is not None and completion.message.text:
            self._outflow.pending.append(completion.message.text)
        return self._end(completion, Command.RELEASE)

    def _end(self, ended: Ending, command: Command) -> Commands:
        if self._ended is not None:
            return _NOTHING
        if self._is_draining:
            ended = ended.usage if isinstance(ended, Completion) else self._best_usage()
        if self._is_draining or not self._request.stream:
            self._keep_text()
        self._ended = self._portable(ended) if isinstance(ended, Completion) else ended
        return _RELEASED if command is Command.RELEASE else _CLOSED

    def _portable(self, completion: Completion) -> Ending:
        if completion.message is None:
            return completion
        try:
            return msgspec.structs.replace(completion, message=portable(completion.message))
        except TooDeepError as error:
            return self._failure("provider_protocol", str(error))

    def _failure_of(self, error: Exception) -> ProviderFailure:
        """Return why a response could not be read."""
        if isinstance(error, ProviderFailedError):
            return error.failure
        reason = "the response is nested too deeply" if isinstance(error, RecursionError) else str(error)
        return self._failure("provider_protocol", reason)

    def _failure(self, kind: FailureKind, reason: str) -> ProviderFailure:
        return ProviderFailure(kind, reason, self._status or None)

    def _best_usage(self) -> Usage:
        if self._mapper is None:
            return Usage()
        return unfinished_usage(self._mapper.usage, prompt_characters(self._request), self._outflow.text_length)

    def _terminal(self, ending: Ending) -> Terminal:
        told = Told(
            span_id=self.span_id,
            attempt=self.attempt,
            sequence=self._outflow.sequence,
            text_length=self._outflow.text_length,
            usage=self._best_usage() if isinstance(ending, (ProviderFailure, Expired)) else Usage(),
            request_id=self._headers.get("x-request-id") or self._headers.get("request-id"),
            unsent_text="".join(self._unsent),
        )
        if isinstance(ending, ProviderFailure):
            ending = without_key(ending, self._api_key)
        return terminal_message(ending, told)
