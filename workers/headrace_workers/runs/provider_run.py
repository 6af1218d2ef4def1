"""One run in its worker, from its request to its terminal message: its states, and the commands to its shell. Pure.

The shell reports what happens, carries out the commands that it gets back, and calls :meth:`ProviderRun.take` for the
messages to send. A run hands out exactly one terminal message, after its last chunk. Nothing follows the terminal
message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.text.secret_mask import NO_SECRETS, SecretMask
from headrace.types import RunEvent
from headrace.wire.messages import BAD_SETTINGS, AbortMode, Chunk, Credit, Run, Terminal
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.masking import masked_events
from headrace_workers.providers.shared.answer_limits import MAX_PIECES, MAX_WIDE_TEXT, LimitError
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi, ProviderFailure
from headrace_workers.runs.answer_bounds import AnswerBounds
from headrace_workers.runs.answer_reader import UNREADABLE, AnswerReader
from headrace_workers.runs.body_kind import BodyKind
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.repeated_deltas import NO_DELTAS
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.run_commands import SEND, Command, Commands
from headrace_workers.runs.run_ending import RunEnding
from headrace_workers.runs.run_summary import RunSummary
from headrace_workers.runs.terminal_message import cut_short, unreadable
from headrace_workers.runs.timeouts import Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.runs.whole_answer import is_content
from headrace_workers.spans.run_span import EndedRun

MAX_ERROR_BODY = 64 * 1024
"""Bytes of an error response that are read."""
_AFTER_SENDING = ("read", "unreadable")
"""Stages of an HTTP exchange in which the provider has, or may have, the request."""
_NOTHING: Commands = ()
_PAUSE = (Command.PAUSE,)
_SET_TIMER = (Command.SET_TIMER,)


class ProviderRun:
    """One run on its worker. ``terminal`` is its terminal message, None until it was handed out.

    ``attempt`` is the number of this attempt. ``mask`` holds the secrets that the run must not tell: its key, and those
    of the worker. Each ``now`` is in monotonic seconds.

    While the stream flows, the shell may take what is plain text by itself: see ``outgoing``. For text that it adds there it makes no
    call, and asks ``outgoing`` for a chunk before it calls :meth:`take`. If there is one, it sets ``clocks.last_life``.
    """

    __slots__ = (
        "_answer",
        "_bounds",
        "_ending",
        "_is_paused",
        "_summary",
        "attempt",
        "clocks",
        "mask",
        "outgoing",
        "request",
        "response",
        "span_id",
        "terminal",
    )

    def __init__(
        self,
        run: Run,
        request: RunRequest,
        api: ProviderApi,
        clocks: Clocks,
        mask: SecretMask = NO_SECRETS,
        transcript: Transcript | None = None,
        wire_format: str | None = None,
    ) -> None:
        self.span_id = run.span_id
        self.attempt = run.attempt
        self.request = request
        self.clocks = clocks
        self.mask = mask
        self.response = Response()
        self.terminal: Terminal | None = None
        self._answer = AnswerReader(api, request, self.response)
        self._bounds = AnswerBounds(has_vectors=bool(request.inputs))
        copies = transcript.tail if transcript is not None else None
        self.outgoing = OutgoingEvents(run.sequence_limit, run.character_limit, run.span_id, run.attempt, copies)
        self._summary = RunSummary(run, request, self.response, self._answer, self.outgoing, mask, wire_format)
        self._ending = RunEnding(
            self.response,
            self._answer,
            self.outgoing,
            clocks,
            self._summary,
            transcript,
            is_gathered=not request.stream,
        )
        self._is_paused = False

    @property
    def wants_next_turn(self) -> bool:
        """Whether the shell must call :meth:`next_turn` to map the rest of the input. False while the run is paused."""
        return self._answer.is_behind and self._ending.end is None and not self._is_paused

    @property
    def is_behind(self) -> bool:
        """Whether the run has read input from the provider that it has not mapped to events yet."""
        return self._answer.is_behind and self._ending.end is None

    @property
    def is_paused(self) -> bool:
        """Whether the shell must stop reading from the provider until the client has taken more chunks."""
        return self._is_paused

    def limit_turn(self, may_continue: Callable[[], bool] | None) -> None:
        """Set the function that says whether the run may continue in this turn of the loop. None: it always may.

        If ``may_continue`` returns False, the run leaves the rest of its input for :meth:`next_turn`.
        """
        self._answer.may_continue = may_continue

    @property
    def has_ended(self) -> bool:
        """Whether the answer of the provider has ended, or is not wanted any more."""
        return self._ending.end is not None

    @property
    def is_over(self) -> bool:
        """Whether :meth:`take` has returned the terminal message."""
        return self.terminal is not None

    @property
    def response_id(self) -> str | None:
        """The provider's id of the response, masked. None while it is unknown."""
        return self._summary.response_id(self._ending.end)

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, masked. None before the response's head has come."""
        return self._summary.request_id

    # Events of the response.

    def responded(self, status: int, headers: Mapping[str, str], now: float) -> Commands:
        """The response's head has come. ``headers`` has lower-case names."""
        self.clocks.last_life = now
        self.response.began(status, headers, now, is_streamed=self.request.stream)
        if self.response.expects_events and self.response.is_success:
            self._answer.open_stream()
        elif self.response.kind is BodyKind.ERROR:
            self.clocks.finishing()
        return _NOTHING

    def received(self, data: bytes, now: float) -> Commands:
        """A piece of the body has come."""
        self.clocks.last_life = now
        ending, outgoing = self._ending, self.outgoing
        if ending.end is not None:
            return _NOTHING
        events, deltas = outgoing.pending, outgoing.deltas
        outgoing.read = outgoing.read + len(data) if events else len(data)
        if deltas is not NO_DELTAS and (texts := deltas.take(data)) is not None:
            events += texts
            return SEND if not outgoing.is_flooded else self._grown()
        outgoing.deltas = NO_DELTAS
        if self.response.kind is not BodyKind.EVENTS:
            return self._collect(data, now)
        before, answer = len(events), self._answer
        if ending.is_gathered and self._bounds.add_gathered(len(data)):
            return ending.fail(self._bounds.body_too_large(), Command.CLOSE)
        is_behind = bool(answer.waiting)
        try:
            answer.read(data, events)
        except UNREADABLE as error:
            return self._ending.fail(error, Command.CLOSE)
        return _NOTHING if is_behind else self._mapped(before)

    def next_turn(self, now: float) -> Commands:
        """The next turn of the loop has begun: map the input that the last turn had no time for."""
        self.clocks.last_life = now
        if self._answer.is_reading_whole:
            return self._read(self._answer.read_on)
        self.outgoing.deltas = NO_DELTAS
        events = self.outgoing.pending
        before = len(events)
        try:
            self._answer.map_waiting(events)
        except UNREADABLE as error:
            return self._ending.fail(error, Command.CLOSE)
        return self._mapped(before)

    def completed(self, now: float) -> Commands:
        """The body has come to the end that HTTP gives it."""
        self.clocks.last_life = now
        if self._ending.end is not None or self._answer.is_reading_whole:
            return _NOTHING
        self.response.ended()
        match self.response.kind:
            case BodyKind.JSON if not self._answer.is_continuation:
                return self._read(self._answer.read_whole)
            case BodyKind.EVENTS | BodyKind.JSON:
                return self._body_ended()
            case _:
                return self._ending.finish(self._answer.read_error(), Command.RELEASE)

    def failed(self, stage: str, reason: str, now: float) -> Commands:
        """The HTTP exchange failed. ``stage`` is settings, connect, send, read or unreadable: see ``Receiver``."""
        self._note_life(now)
        is_cut = stage != "unreadable"
        if stage in _AFTER_SENDING:
            self.clocks.connected()
        if self._ending.end is not None or self._answer.is_reading_whole:
            return _NOTHING
        if self.response.kind is BodyKind.ERROR:
            return self._ending.finish(self._answer.read_error(), Command.CLOSE)
        if stage == "settings":
            return self._ending.finish(ProviderFailure("invalid_request", reason, code=BAD_SETTINGS), Command.CLOSE)
        if self.response.kind is BodyKind.NONE or stage not in _AFTER_SENDING:
            failure = self.response.failure("provider_unavailable", reason, may_retry=is_cut)
            return self._ending.finish(failure, Command.CLOSE)
        if self.response.kind is BodyKind.EVENTS and self._answer.mapper is not None:
            try:
                return self._ending.finish(self._answer.finish(self.outgoing.pending), Command.CLOSE)
            except UNREADABLE:
                pass
        elif (commands := self._end_early()) is not None:
            return commands
        reason = f"the response could not be read to its end: {reason}"
        return self._ending.finish(self.response.failure("provider_protocol", reason, may_retry=is_cut), Command.CLOSE)

    def refused(self, failure: ProviderFailure) -> Commands:
        """The request could not be made."""
        return self._ending.finish(failure, Command.CLOSE)

    # Messages of the client.

    def credit_received(self, credit: Credit) -> Commands:
        """The client sent credit. At most one window beyond what it was sent counts."""
        sequence_limit, character_limit = self.outgoing.within_window(credit.sequence_limit, credit.character_limit)
        return self.allow_more(Credit(credit.span_id, credit.attempt, sequence_limit, character_limit))

    def allow_more(self, credit: Credit) -> Commands:
        """Raise the limits of what may be sent."""
        self.outgoing.allow_more(credit.sequence_limit, credit.character_limit)
        if self._ending.transcript is not None:
            self._ending.transcript.shorten()
        # A paused run may have no pending events. It waits for this credit all the same.
        if self.outgoing.pending or self._is_paused or self._ending.end is not None:
            return SEND
        return _NOTHING

    def aborted(self, mode: AbortMode, now: float, *, is_beaten: bool = False) -> Commands:
        """The client has aborted the run. Further aborts change nothing.

        ``is_beaten``: another attempt of the same run was faster.
        """
        self._note_life(now)
        self._ending.is_beaten = self._ending.is_beaten or is_beaten
        self.outgoing.stop()
        self._ending.drop_pending()
        if self._ending.end is not None:
            self._ending.abort()
            return SEND
        if mode == "drain" and self._may_be_stream:
            self._ending.is_draining = True
            return self._resume(now) if self._is_paused else _NOTHING
        return self._ending.finish(self._summary.best_usage(), Command.CLOSE)

    # Time, and faults of the worker.

    def due(self, now: float) -> Commands:
        """The time is ``now``: end the run if one of its clocks has run out."""
        self._note_life(now)
        expired = self.clocks.expired(now)
        if expired is None or self.is_over:
            return _NOTHING
        if expired.clock == "reader":
            return self._ending.finish_without_rest(expired)
        if (commands := self._end_early()) is not None:
            return commands
        if expired.clock == "finish":  # the JSON only looked whole
            self.clocks.continued()
            return _NOTHING
        return self._ending.finish(expired, Command.CLOSE)

    def stopped(self, reason: str, now: float) -> Commands:
        """The worker stops before the run has ended."""
        self._note_life(now)
        if self._ending.end is None:
            self._end_early()
        return self._ending.finish_without_rest(self.response.failure("worker_stopping", reason))

    def broke(self, reason: str) -> Terminal:
        """The worker itself failed at this run. Return the terminal message; make no other call afterwards."""
        self.terminal = self._ending.break_off(reason)
        return self.terminal

    # Output.

    def take(self, now: float) -> tuple[list[Chunk | Terminal], Commands]:
        """Return the messages that may leave now, and the commands that follow from their leaving."""
        ending, outgoing = self._ending, self.outgoing
        messages: list[Chunk | Terminal] = []
        # Usage alone waits for the first content: a run that fails before it can then be tried again.
        if outgoing.pending and (self.clocks.content_at is not None or ending.end is not None):
            sequence, events = outgoing.take()
            if events:
                if type(events[0]) is not str or len(events) > 1:
                    events = masked_events(events, self.mask)
                messages.append(Chunk(self.span_id, self.attempt, sequence, events))
                if ending.transcript is not None:
                    ending.transcript.add(events)
                if self._is_paused or ending.end is not None:
                    self.clocks.taken(now)
        if ending.end is not None and not outgoing.pending and self.terminal is None:
            self.terminal = ending.terminal(ending.end)
            messages.append(self.terminal)
        if self._is_paused and ending.end is None and outgoing.waiting_is_low():
            return messages, self._resume(now)
        return messages, _NOTHING

    @property
    def can_continue(self) -> bool:
        """Whether the request may be needed again after its response has begun, for a request that continues the answer."""
        return self._answer.can_continue

    def continue_request(self, sent: HttpRequest) -> HttpRequest:
        """Return the request for a SEND_CONTINUATION command. Its response is read as part of the same answer."""
        self.clocks.continued()
        self.outgoing.deltas = NO_DELTAS
        return self._answer.continue_request(sent)

    def for_span(self) -> EndedRun:
        """Return the facts for the run's span."""
        return self._summary.for_span(
            self._ending.end,
            self.terminal,
            self.clocks,
            self._ending.transcript,
            is_answered=self._ending.is_answered,
            is_beaten=self._ending.is_beaten,
        )

    # A stream.

    def _mapped(self, before: int) -> Commands:
        """Return the commands for the events that were just mapped: the pending events after the first ``before``."""
        outgoing, mapper, bounds = self.outgoing, self._answer.mapper, self._bounds
        events = outgoing.pending
        grown_by = len(events) - before
        count = outgoing.came
        if count > MAX_PIECES or outgoing.length > MAX_WIDE_TEXT:
            excess = bounds.excess(count, outgoing.length, events[before:], self._ending.earlier_events)
            if excess is not None:
                return self._ending.fail(excess, Command.CLOSE)
        if mapper is not None and mapper.is_complete:
            return self._finish(Command.RELEASE)
        if mapper is not None and mapper.has_end:
            commands = self._nearly_ended(events[before:])
        else:
            commands = self._grown() if grown_by else _NOTHING
        return (*commands, Command.NEXT_TURN) if self._answer.waiting and not self._is_paused else commands

    def _grown(self) -> Commands:
        """Events were added: send or keep them, and pause if too many wait."""
        if self.clocks.content_at is None:
            pending = self.outgoing.pending
            if not any(map(is_content, pending)):
                self.outgoing.drop_all_but_last()  # the newest usage is enough
                return _NOTHING
            self.clocks.content()
        if self._ending.is_draining or self._ending.is_gathered:
            self._ending.keep_unsent()
            return _NOTHING
        outgoing = self.outgoing
        if not outgoing.has_credit:
            return self._pause() if outgoing.waiting_is_full() else _NOTHING
        if outgoing.is_flooded:
            return (*self._pause(), *SEND)
        if not outgoing.flows_until and outgoing.sequence and not self._is_paused and type(outgoing.pending[-1]) is str:
            outgoing.flow()
        if outgoing.flows_until:
            outgoing.deltas = self._answer.repeated or NO_DELTAS
        return SEND

    def _nearly_ended(self, new: list[RunEvent]) -> Commands:
        """The answer has said why it ends. Its end, and usage before it, may still come: set the clock for them."""
        grown = self._grown() if new else _NOTHING
        if self._answer.has_end_of_former:
            return grown
        if any(map(is_content, new)) and self.clocks.is_finishing:
            self.clocks.goes_on()
        elif self.clocks.finishing():
            return (*grown, Command.SET_TIMER)
        return grown

    def _body_ended(self) -> Commands:
        self._answer.open_stream()
        try:
            self._answer.read_last(self.response.take_body(), self.outgoing.pending)
        except UNREADABLE as error:
            return self._ending.fail(error, Command.RELEASE)
        return self._end_response(Command.RELEASE)

    def _end_response(self, command: Command) -> Commands:
        """Read nothing more of this response: end the run, or ask the provider to continue the answer."""
        if self._answer.wants_continuation:
            try:
                self._answer.check_continuation()
            except LimitError as error:
                return self._ending.fail(error, Command.CLOSE)
            grown = self._grown() if self.outgoing.pending else _NOTHING
            return (*grown, command, Command.SEND_CONTINUATION)
        return self._finish(command)

    def _finish(self, command: Command) -> Commands:
        is_cut = not self._answer.has_end
        try:
            return self._ending.finish(self._answer.finish(self.outgoing.pending), command)
        except UNREADABLE as error:
            failure = unreadable(error, self.response.status)
            return self._ending.finish(cut_short(failure) if is_cut else failure, Command.CLOSE)

    @property
    def _may_be_stream(self) -> bool:
        kind = self.response.kind
        return kind in (BodyKind.NONE, BodyKind.EVENTS) or (kind is BodyKind.UNDECIDED and self.response.expects_events)

    # A body that is read as a whole.

    def _collect(self, data: bytes, now: float) -> Commands:
        """Keep a piece of a body that is no stream, or not known to be one."""
        response = self.response
        if self._answer.is_reading_whole:
            return _NOTHING  # the whole answer has come: ignore what follows
        response.add(data)
        self.clocks.continued()
        if response.kind is BodyKind.EVENTS:
            self._answer.open_stream()
            return self.received(response.take_body(), now)
        if response.kind is BodyKind.ERROR and len(response.body) > MAX_ERROR_BODY:
            del response.body[MAX_ERROR_BODY:]
            return self._ending.finish(self._answer.read_error(), Command.CLOSE)
        if self.request.inputs and response.kind is not BodyKind.ERROR:
            try:
                self._answer.take_vectors()
            except UNREADABLE as error:
                return self._ending.fail(error, Command.CLOSE)
        if len(response.body) > self._bounds.max_body:
            return self._ending.fail(self._bounds.body_too_large(), Command.CLOSE)
        # The connection may stay open after the answer. JSON shows its own end; of an error the status is enough.
        if response.kind is BodyKind.ERROR:
            self.clocks.finishing()
        elif data.rstrip().endswith((b"}", b"]")):
            self.clocks.finishing()
            return _SET_TIMER
        return _NOTHING

    def _read(self, read: Callable[[list[RunEvent]], Completion | ProviderFailure | None]) -> Commands:
        """Call ``read`` to read a whole answer, or more of it.

        What this turn has no time for is read in the next turn.
        """
        end = read(self.outgoing.pending)
        if end is not None:
            return self._ending.finish(end, Command.RELEASE)
        self.clocks.continued()  # the whole body is here: wait for its end no longer
        return (Command.NEXT_TURN,)

    # The end of the run.

    def _end_early(self) -> Commands | None:
        """End the run if its whole answer has come, although the response goes on.

        Return None if the answer is not whole.
        """
        if self._answer.is_reading_whole:
            return None  # the run ends when it has been read
        match self.response.kind:
            case BodyKind.EVENTS if self.clocks.is_finishing:
                return self._end_response(Command.CLOSE)
            case BodyKind.ERROR:
                return self._ending.finish(self._answer.read_error(), Command.CLOSE)
            case BodyKind.JSON | BodyKind.UNDECIDED if not self._answer.is_continuation:
                if self._answer.holds_whole():
                    return self._read(self._answer.read_whole)
        return None

    # Pending events.

    def _note_life(self, now: float) -> None:
        """Set the time of the last bytes, if the shell has added text to the pending events in this turn."""
        if self.outgoing.has_flowing_text:
            self.clocks.last_life = now

    def _resume(self, now: float) -> Commands:
        self._is_paused = False
        self.clocks.resumed(now)
        return (Command.RESUME,)

    def _pause(self) -> Commands:
        if self._is_paused:
            return _NOTHING
        self._is_paused = True
        self.outgoing.stop()
        self.clocks.paused()
        return _PAUSE
