"""The states of one run in its worker, from the request to the terminal message: credit, clocks, pauses, aborts. Pure.

The shell tells what happened, carries the returned commands out, and calls :meth:`ProviderRun.take` for what is to be sent.
Exactly one terminal message is handed out, after the last chunk, and nothing after it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.answers.assembly import joined_text
from headrace.answers.tool_arguments import well_formed_text
from headrace.text.secret_mask import NO_SECRETS, SecretMask
from headrace.types import RunEvent, Usage, UsageUpdate
from headrace.wire.messages import (
    BAD_SETTINGS,
    AbortMode,
    Chunk,
    Credit,
    Failed,
    Run,
    Terminal,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.http.request import HttpRequest
from headrace_workers.masking import masked_events, masked_terminal, masked_usage
from headrace_workers.providers.shared.answer_limits import (
    MAX_BODY,
    MAX_PIECES,
    MAX_TEXT,
    MAX_VECTORS_BODY,
    MAX_WIDE_TEXT,
    MIB,
    LimitError,
    too_large,
)
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi, ProviderFailure
from headrace_workers.runs.answer_reader import UNREADABLE, AnswerReader
from headrace_workers.runs.body_kind import BodyKind
from headrace_workers.runs.event_merging import merge_by_kind
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.run_commands import Command, Commands
from headrace_workers.runs.terminal_message import (
    RunEnd,
    TerminalFacts,
    prompt_characters,
    sendable_end,
    terminal_message,
    unfinished_usage,
    unreadable,
    with_status,
)
from headrace_workers.runs.timeouts import Clocks, Expired
from headrace_workers.runs.transcript import Transcript
from headrace_workers.runs.whole_answer import is_ascii, is_content, with_message
from headrace_workers.spans.record import EndedRun

MAX_ERROR_BODY = 64 * 1024
_MERGE_AT = 4096
"""Events that wait for the end of a run from which on they are put together, and then at twice as many."""
_NOTHING: Commands = ()
_SEND = (Command.SEND,)
_SEND_NOW = (Command.SEND_NOW,)
_PAUSE = (Command.PAUSE,)
_WATCH = (Command.WATCH,)
_CLOSED = (Command.CLOSE, Command.SEND_NOW)
_RELEASED = (Command.RELEASE, Command.SEND_NOW)


class ProviderRun:
    """One run, from its start on the worker to its terminal message."""

    __slots__ = (
        "_answer",
        "_ended",
        "_is_ascii",
        "_is_draining",
        "_is_gathered",
        "_is_paused",
        "_is_unquoting",
        "_max_body",
        "_merge_at",
        "_outflow",
        "_pieces",
        "_run",
        "_size",
        "_unsent",
        "clocks",
        "is_answered",
        "mask",
        "request",
        "response",
        "terminal",
        "transcript",
    )

    def __init__(
        self,
        run: Run,
        request: RunRequest,
        api: ProviderApi,
        clocks: Clocks,
        mask: SecretMask = NO_SECRETS,
        transcript: Transcript | None = None,
    ) -> None:
        self._run = run
        self.request = request
        self.clocks = clocks
        self._is_unquoting = False  # whether the answer is known to have no secret in what it tells beside its content
        self.mask = mask  # of what may not be told of the run: its key, and the worker's own secrets
        self._outflow = OutgoingEvents(run.sequence_limit, run.character_limit)
        self._is_paused = False
        self._is_draining = False
        self._ended: RunEnd | None = None
        self._is_gathered = not request.stream
        self._is_ascii: bool | None = None  # whether all of a long answer is; not asked of others
        self._pieces = 0  # in which the answer came
        self._max_body = MAX_VECTORS_BODY if request.inputs else MAX_BODY
        self._size = 0  # of a response that nobody is sent as it comes
        self._unsent: list[RunEvent] = []
        self._merge_at = _MERGE_AT
        self.response = Response()
        self._answer = AnswerReader(api, request, self.response)
        self.is_answered = False  # whether the provider's answer came to its end, and was one
        self.terminal: Terminal | None = None  # once it has been handed out
        self.transcript = transcript  # what the provider sent; None where it is not to be kept

    @property
    def span_id(self) -> str:
        """The run's id."""
        return self._run.span_id

    @property
    def attempt(self) -> int:
        """Which attempt this is."""
        return self._run.attempt

    @property
    def wants_next_turn(self) -> bool:
        """Whether something read waits for the next turn of the loop, and the run for nothing else: see :meth:`next_turn`."""
        return self._answer.is_behind and self._ended is None and not self._is_paused

    @property
    def is_behind(self) -> bool:
        """Whether events wait that have been read, or the rest of a whole answer."""
        return self._answer.is_behind and self._ended is None

    @property
    def is_paused(self) -> bool:
        """Whether nothing is to be read until its reader has caught up."""
        return self._is_paused

    def limit_turn(self, may_continue: Callable[[], bool] | None) -> None:
        """Ask ``may_continue`` now and then whether to go on in this turn of the loop, or to leave the rest for the next.

        With None nobody is asked any more.
        """
        self._answer.may_continue = may_continue

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is wanted of the provider."""
        return self._ended is not None

    @property
    def is_over(self) -> bool:
        """Whether the terminal message has been handed out."""
        return self.terminal is not None

    @property
    def response_id(self) -> str | None:
        """The provider's id of the response, once it is known."""
        said = self._ended if isinstance(self._ended, Completion) else self._answer.mapper
        response_id = None if said is None else said.response_id
        return response_id if response_id is None or self._is_unquoting else self.mask.masked(response_id, words=False)

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, once the response's head is there."""
        request_id = self.response.request_id
        return request_id if request_id is None or self._is_unquoting else self.mask.masked(request_id, words=False)

    # What happens to the response.

    def responded(self, status: int, headers: Mapping[str, str], now: float) -> Commands:
        """The response's head is there. ``headers`` has lower-case names."""
        self.clocks.alive(now)
        self.response.began(status, headers, now, is_streamed=self.request.stream)
        if self.response.expects_events and self.response.is_success:
            self._answer.open_stream()
        elif self.response.kind is BodyKind.ERROR:
            self.clocks.finishing()
        return _NOTHING

    def received(self, data: bytes, now: float) -> Commands:
        """A piece of the body is there."""
        self.clocks.alive(now)
        if self._ended is not None:
            return _NOTHING
        if self.response.kind is not BodyKind.EVENTS:
            return self._collect(data, now)
        outflow, answer = self._outflow, self._answer
        events = outflow.pending
        before = len(events)
        outflow.has_read(len(data))
        if self._is_gathered and self._is_beyond(len(data)):
            return self._end(self._too_large(), Command.CLOSE)
        try:
            if answer.waiting:
                answer.waiting += answer.parser.feed(data)
                return _NOTHING
            answer.map(answer.parser.feed(data), events)
        except UNREADABLE as error:
            return self._end(self._failure_of(error), Command.CLOSE)
        return self._mapped(before)

    def next_turn(self, now: float) -> Commands:
        """Another turn of the loop has begun: map what had no time in the one before."""
        self.clocks.alive(now)
        if self._answer.is_reading_whole:
            return self._read(self._answer.read_on)
        events = self._outflow.pending
        before = len(events)
        try:
            self._answer.map_waiting(events)
        except UNREADABLE as error:
            return self._end(self._failure_of(error), Command.CLOSE)
        return self._mapped(before)

    def _mapped(self, before: int) -> Commands:
        """Return what follows from the events that were just read: all behind the first ``before`` pending ones."""
        events, mapper = self._outflow.pending, self._answer.mapper
        grown_by = len(events) - before
        self._pieces += grown_by
        is_long = self._pieces > MAX_PIECES or self._outflow.length > MAX_WIDE_TEXT
        if is_long and (excess := self._excess(events[before:])) is not None:
            return self._end(self._failure_of(excess), Command.CLOSE)
        if mapper is not None and mapper.is_complete:
            return self._finish(Command.RELEASE)
        if mapper is not None and mapper.has_end:
            commands = self._nearly_ended(events[before:])
        else:
            commands = self._grown() if grown_by else _NOTHING
        return (*commands, Command.NEXT_TURN) if self._answer.waiting and not self._is_paused else commands

    def _excess(self, fresh: list[RunEvent]) -> LimitError | None:
        """Return how a long answer, which ``fresh`` events have come to, goes beyond a limit; None where it does not."""
        if self._pieces > MAX_PIECES:
            return too_large(f"{MAX_PIECES} pieces")
        if self._outflow.length > MAX_TEXT:
            return too_large(f"{MAX_TEXT} characters")
        if self._is_ascii is None:
            earlier = self._unsent if self.transcript is None else self.transcript.kept
            self._is_ascii = all(map(is_ascii, earlier))
        if self._is_ascii and all(map(is_ascii, fresh)):
            return None
        return too_large(f"{MAX_WIDE_TEXT} characters, and not all of them are ASCII")

    def completed(self, now: float) -> Commands:
        """The body ended as HTTP says."""
        self.clocks.alive(now)
        if self._ended is not None or self._answer.is_reading_whole:
            return _NOTHING
        self.response.ended()
        match self.response.kind:
            case BodyKind.JSON if not self._answer.is_continuation:
                return self._read(self._answer.read_whole)
            case BodyKind.EVENTS | BodyKind.JSON:
                return self._body_ended()
            case _:
                return self._end(self._answer.read_error(), Command.RELEASE)

    def failed(self, stage: str, reason: str) -> Commands:
        """The exchange failed: ``stage`` is settings, connect, send or read."""
        if self._ended is not None or self._answer.is_reading_whole:
            return _NOTHING
        if self.response.kind is BodyKind.ERROR:
            return self._end(self._answer.read_error(), Command.CLOSE)
        if stage == "settings":
            return self._end(ProviderFailure("invalid_request", reason, code=BAD_SETTINGS), Command.CLOSE)
        if self.response.kind is BodyKind.NONE or stage != "read":
            return self._end(self.response.failure("provider_unavailable", reason), Command.CLOSE)
        if self.response.kind is BodyKind.EVENTS and self._answer.mapper is not None:
            try:
                return self._end(self._answer.finish(self._outflow.pending), Command.CLOSE)
            except UNREADABLE:
                pass
        elif (commands := self._end_early()) is not None:
            return commands
        return self._end(
            self.response.failure("provider_protocol", f"the response could not be read to its end: {reason}"),
            Command.CLOSE,
        )

    # What the client says.

    def credit_received(self, credit: Credit) -> Commands:
        """The client says how much it allows, which counts up to a window beyond what it was sent."""
        sequence_limit, character_limit = self._outflow.within_window(credit.sequence_limit, credit.character_limit)
        return self.allow_more(Credit(credit.span_id, credit.attempt, sequence_limit, character_limit))

    def allow_more(self, credit: Credit) -> Commands:
        """The client allows more."""
        self._outflow.allow_more(credit.sequence_limit, credit.character_limit)
        # A paused run may have nothing waiting: what it waits for is this credit.
        if self._outflow.pending or self._is_paused or self._ended is not None:
            return _SEND_NOW
        return _NOTHING

    def aborted(self, mode: AbortMode, now: float) -> Commands:
        """The client wants no more. TerminalFacts again, nothing changes."""
        self._drop_pending()
        if self._ended is not None:
            if not isinstance(self._ended, Usage):
                self._ended = self._ended.usage if isinstance(self._ended, Completion) else self.best_usage()
            return _SEND_NOW
        if mode == "drain" and self._may_be_stream:
            self._is_draining = True
            return self._resume(now) if self._is_paused else _NOTHING
        return self._end(self.best_usage(), Command.CLOSE)

    # What time does.

    def due(self, now: float) -> Commands:
        """A clock may have run out."""
        expired = self.clocks.expired(now)
        if expired is None or self.is_over:
            return _NOTHING
        if expired.clock == "reader":
            return self._end_without_rest(expired)
        if (commands := self._end_early()) is not None:
            return commands
        if expired.clock == "finish":  # of JSON that only looked as if it were whole
            self.clocks.continued()
            return _NOTHING
        return self._end(expired, Command.CLOSE)

    def _end_early(self) -> Commands | None:
        """End a run whose whole answer has come, although its response does not end. Return None if the answer is not whole."""
        if self._answer.is_reading_whole:
            return None  # its end is on its way
        match self.response.kind:
            case BodyKind.EVENTS if self.clocks.is_finishing:
                return self._end_response(Command.CLOSE)
            case BodyKind.ERROR:
                return self._end(self._answer.read_error(), Command.CLOSE)
            case BodyKind.JSON | BodyKind.UNDECIDED if not self._answer.is_continuation:
                if self._answer.holds_whole():
                    return self._read(self._answer.read_whole)
        return None

    def _read(self, read: Callable[[list[RunEvent]], Completion | ProviderFailure | None]) -> Commands:
        """Read a whole answer, or more of it; what has no time left is read in the next turn."""
        ended = read(self._outflow.pending)
        if ended is not None:
            return self._end(ended, Command.RELEASE)
        self.clocks.continued()  # its end is not waited for any more
        return (Command.NEXT_TURN,)

    def stopped(self, reason: str) -> Commands:
        """The worker ends before the run has."""
        if self._ended is None:
            self._end_early()
        return self._end_without_rest(self.response.failure("worker_stopping", reason))

    def broke(self, reason: str) -> Terminal:
        """The worker itself failed at this run, which is of no further use. Return its terminal message all the same."""
        self._ended = self.response.failure("worker_failed", reason)
        self._outflow.pending.clear()
        text, status = joined_text(self._unsent), self.response.status or None
        self.terminal = Failed(
            self.span_id,
            self.attempt,
            self._outflow.sequence,
            "worker_failed",
            reason,
            status_code=status,
            partial_text=text,
        )
        return self.terminal

    def continue_request(self, sent: HttpRequest) -> HttpRequest:
        """Return the request that continues the response, after a CONTINUE command; its response is read as part of it."""
        self.clocks.continued()
        return self._answer.continue_request(sent)

    # What is to be sent.

    def take(self, now: float) -> tuple[list[Chunk | Terminal], Commands]:
        """Return the messages that may leave now, and what follows from their leaving."""
        messages: list[Chunk | Terminal] = []
        if self._outflow.pending:
            sequence, events = self._outflow.take()
            if events:
                if type(events[0]) is not str or len(events) > 1:
                    events = masked_events(events, self.mask)
                messages.append(Chunk(self.span_id, self.attempt, sequence, events))
                if self.transcript is not None:
                    self.transcript.add(events)
                if self._is_paused or self._ended is not None:
                    self.clocks.taken(now)
        if self._ended is not None and not self._outflow.pending and self.terminal is None:
            self.terminal = self._terminal(self._ended)
            messages.append(self.terminal)
        if self._is_paused and self._ended is None and self._outflow.waiting_is_low():
            return messages, self._resume(now)
        return messages, _NOTHING

    def refused(self, failure: ProviderFailure) -> Commands:
        """The request could not be made."""
        return self._end(failure, Command.CLOSE)

    @property
    def _may_be_stream(self) -> bool:
        kind = self.response.kind
        return kind in (BodyKind.NONE, BodyKind.EVENTS) or (kind is BodyKind.UNDECIDED and self.response.expects_events)

    def _resume(self, now: float) -> Commands:
        self._is_paused = False
        self.clocks.resumed(now)
        return (Command.RESUME,)

    def _grown(self) -> Commands:
        """Events were added."""
        if self.clocks.content_at is None and any(map(is_content, self._outflow.pending)):
            self.clocks.content()
        if self._is_draining or not self.request.stream:
            self._keep_unsent()
            return _NOTHING
        if not self._outflow.has_credit:
            return self._pause() if self._outflow.waiting_is_full() else _NOTHING
        send = _SEND_NOW if self._outflow.sequence == 0 else _SEND
        return (*self._pause(), *send) if self._outflow.is_flooded else send

    def _pause(self) -> Commands:
        if self._is_paused:
            return _NOTHING
        self._is_paused = True
        self.clocks.paused()
        return _PAUSE

    def _keep_unsent(self) -> None:
        """Keep the events that wait, which are not sent: a failure tells their text, and a whole answer is made of them."""
        self._unsent += [event for event in self._drop_pending() if type(event) is not UsageUpdate]
        if len(self._unsent) > self._merge_at:
            self._unsent = merge_by_kind(self._unsent)
            self._merge_at = _MERGE_AT + 2 * len(self._unsent)

    def _drop_pending(self) -> list[RunEvent]:
        """Return what waits, which is not to be sent; it was received all the same."""
        dropped = self._outflow.drop()
        if self.transcript is not None:
            self.transcript.add(dropped)
        return dropped

    def _collect(self, data: bytes, now: float) -> Commands:
        response = self.response
        if self._answer.is_reading_whole:
            return _NOTHING  # nothing follows a whole answer
        response.add(data)
        self.clocks.continued()
        if response.kind is BodyKind.EVENTS:
            self._answer.open_stream()
            return self.received(response.take_body(), now)
        if response.kind is BodyKind.ERROR and len(response.body) > MAX_ERROR_BODY:
            del response.body[MAX_ERROR_BODY:]
            return self._end(self._answer.read_error(), Command.CLOSE)
        if self.request.inputs and response.kind is not BodyKind.ERROR:
            try:
                self._answer.take_vectors()
            except UNREADABLE as error:
                return self._end(self._failure_of(error), Command.CLOSE)
        if len(response.body) > self._max_body:
            return self._end(self._too_large(), Command.CLOSE)
        # JSON says itself where it ends, and an error its status, though the connection may not end.
        if response.kind is BodyKind.ERROR:
            self.clocks.finishing()
        elif data.rstrip().endswith((b"}", b"]")):
            self.clocks.finishing()
            return _WATCH
        return _NOTHING

    def _body_ended(self) -> Commands:
        self._answer.open_stream()
        try:
            self._answer.read_last(self.response.take_body(), self._outflow.pending)
        except UNREADABLE as error:
            return self._end(self._failure_of(error), Command.RELEASE)
        return self._end_response(Command.RELEASE)

    def _nearly_ended(self, fresh: list[RunEvent]) -> Commands:
        """Why the answer ended was said; the end itself may still come, and usage before it."""
        grown = self._grown() if fresh else _NOTHING
        if self._answer.has_end_of_former:
            return grown
        if any(map(is_content, fresh)) and self.clocks.is_finishing:
            self.clocks.goes_on()
        elif self.clocks.finishing():
            return (*grown, Command.WATCH)
        return grown

    def _end_response(self, command: Command) -> Commands:
        """End the response: its answer is whole, is to be continued, or was cut. Nothing more of the response is read."""
        if self._answer.wants_continuation:
            try:
                self._answer.check_continuation()
            except LimitError as error:
                return self._end(self._failure_of(error), Command.CLOSE)
            grown = self._grown() if self._outflow.pending else _NOTHING
            return (*grown, command, Command.SEND_CONTINUATION)
        return self._finish(command)

    def _finish(self, command: Command) -> Commands:
        try:
            return self._end(self._answer.finish(self._outflow.pending), command)
        except UNREADABLE as error:
            return self._end(self._failure_of(error), Command.CLOSE)

    def _end(self, ended: RunEnd, command: Command) -> Commands:
        if self._ended is not None:
            return _NOTHING
        self._answer.end(self._outflow.pending)
        if self._is_draining or not self.request.stream:
            self._keep_unsent()
        if isinstance(ended, Completion):
            ended = self._whole(ended)
        self.is_answered = isinstance(ended, Completion)
        if self._is_draining:
            ended = ended.usage if isinstance(ended, Completion) else self.best_usage()
        self.clocks.ended()
        self._ended = ended
        return _RELEASED if command is Command.RELEASE else _CLOSED

    def _whole(self, completion: Completion) -> Completion | ProviderFailure:
        """Return the completion as it can be passed on; where it is no whole success, why, after the text that it has."""
        if not self.request.stream:
            try:
                completion = with_message(completion, self._unsent)
            except LimitError as error:
                return self._failure_of(error)
        ending = sendable_end(completion, self.response.status)
        if isinstance(ending, ProviderFailure) and not (self.request.stream or self._unsent):
            self._unsent.append(well_formed_text(completion.message.text if completion.message else ""))
        return ending

    def _end_without_rest(self, ended: RunEnd) -> Commands:
        """End the run without what its reader has not taken; a response that was complete is so no more."""
        is_whole = not self._outflow.pending
        self._keep_unsent()
        if isinstance(self._ended, Completion) and not is_whole:
            self._ended = ended
        return self._end(ended, Command.CLOSE) or _SEND_NOW

    def _failure_of(self, error: Exception) -> ProviderFailure:
        return unreadable(error, self.response.status)

    def _is_beyond(self, size: int) -> bool:
        """Count the bytes of an answer that is collected and sent at its end; return whether they are too many."""
        self._size += size
        return self._size > self._max_body

    def _too_large(self) -> ProviderFailure:
        return self._failure_of(too_large(f"{self._max_body // MIB} MiB"))

    def for_span(self) -> EndedRun:
        """Return what the run's span says of it. A run without a terminal message was left by its client."""
        terminal, response, clocks = self.terminal, self.response, self.clocks
        return EndedRun(
            request=self.request,
            terminal=terminal,
            headers_at=response.began_at,
            content_at=clocks.content_at,
            status_code=response.status,
            request_id=self.request_id,
            response_id=self.response_id,
            maybe_billed=not self.is_answered and response.is_maybe_billed(was_sent=clocks.is_connected),
            usage=self.best_usage() if terminal is None else terminal.usage,
            received=None if self.transcript is None else self.transcript.assembled(self._outflow.pending),
            mask=self.mask,
        )

    def best_usage(self) -> Usage:
        """Return what is known of the tokens of a run that did not come to its end."""
        mapper = self._answer.mapper
        if mapper is None:
            return Usage()
        usage = unfinished_usage(mapper.usage, prompt_characters(self.request), self._outflow.text_length)
        return masked_usage(usage, self.mask)

    def _terminal(self, ending: RunEnd) -> Terminal:
        facts = TerminalFacts(
            span_id=self.span_id,
            attempt=self.attempt,
            sequence=self._outflow.sequence,
            text_length=self._outflow.text_length,
            usage=self.best_usage() if isinstance(ending, (ProviderFailure, Expired)) else Usage(),
            request_id=self.response.request_id,
            unsent_text=joined_text(self._unsent),
        )
        if isinstance(ending, ProviderFailure):
            ending = with_status(ending, self.response.status)
        elif isinstance(ending, Completion) and self._is_plain(ending):
            return terminal_message(ending, facts)
        return masked_terminal(terminal_message(ending, facts), self.mask)

    def _is_plain(self, completion: Completion) -> bool:
        """Return whether no secret is in the names and ids of an answer, so that nothing of it is masked; looks at them once."""
        said = (completion.model, completion.provider_finish_reason, completion.response_id, self.response.request_id)
        self._is_unquoting = self.mask.is_clean("\n".join([text for text in said if text]))
        wants_next_turn = (
            completion.tool_calls or completion.message is not None or completion.usage.server_tool_requests
        )
        return self._is_unquoting and not wants_next_turn
