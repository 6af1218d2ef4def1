"""Ends a run, once: checks a completion, drops what is not sent, and knows how the run ended. Pure."""

from __future__ import annotations

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import RunEvent, Usage, UsageUpdate
from headrace.wire.messages import Terminal
from headrace_workers.providers.shared.answer_limits import LimitError
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure
from headrace_workers.runs.answer_reader import AnswerReader
from headrace_workers.runs.event_merging import MergedEvents
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.run_commands import SEND, Command, Commands
from headrace_workers.runs.run_summary import RunSummary
from headrace_workers.runs.terminal_message import RunEnd, sendable_end, unreadable
from headrace_workers.runs.timeouts import Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.runs.whole_answer import is_content, with_message

_NOTHING: Commands = ()
_CLOSED = (Command.CLOSE, Command.SEND)
_RELEASED = (Command.RELEASE, Command.SEND)


class RunEnding:
    """The end of one run. ``end`` is how it ended, None while it goes on.

    ``is_gathered``: the events are kept until the end, because the caller does not stream. ``is_draining``: the run was
    aborted, and its response is still read. ``is_answered``: the provider's answer was whole. ``is_beaten``: it was aborted because another attempt of the run was
    faster. ``transcript`` is None if
    the run's span keeps no content.
    """

    __slots__ = (
        "_answer",
        "_clocks",
        "_outgoing",
        "_response",
        "_summary",
        "_unsent",
        "end",
        "is_answered",
        "is_beaten",
        "is_draining",
        "is_gathered",
        "transcript",
    )

    def __init__(
        self,
        response: Response,
        answer: AnswerReader,
        outgoing: OutgoingEvents,
        clocks: Clocks,
        summary: RunSummary,
        transcript: Transcript | None,
        *,
        is_gathered: bool,
    ) -> None:
        self._response = response
        self._answer = answer
        self._outgoing = outgoing
        self._clocks = clocks
        self._summary = summary
        self._unsent = MergedEvents()  # events that came and are not sent one by one
        self.transcript = transcript
        self.end: RunEnd | None = None
        self.is_answered = False
        self.is_beaten = False
        self.is_draining = False
        self.is_gathered = is_gathered

    def finish(self, end: RunEnd, command: Command) -> Commands:
        """End the run, unless it has ended. ``command`` says what to do with the connection to the provider."""
        if self.end is not None:
            return _NOTHING
        self._answer.end(self._outgoing.pending)
        if self._clocks.content_at is None and not isinstance(end, Completion):
            self._drop_lone_usage()
        if self.is_draining or self.is_gathered:
            self.keep_unsent()
        if isinstance(end, Completion):
            end = self._checked(end)
        self.is_answered = isinstance(end, Completion)
        if self.is_draining:
            end = self._usage_of(end)
        self._clocks.ended()
        self._outgoing.stop()
        self.end = end
        return _RELEASED if command is Command.RELEASE else _CLOSED

    def fail(self, error: Exception, command: Command) -> Commands:
        """End the run with the failure for an ``error`` that reading the response has raised."""
        return self.finish(unreadable(error, self._response.status), command)

    def finish_without_rest(self, end: RunEnd) -> Commands:
        """End the run, and drop the events that the client has not taken.

        An answer with dropped events is not complete.
        """
        is_whole = not self._outgoing.pending
        self.keep_unsent()
        if isinstance(self.end, Completion) and not is_whole:
            self.end = end
        return self.finish(end, Command.CLOSE) or SEND

    def abort(self) -> None:
        """The run has ended, and is aborted before its terminal message left: tell its usage only."""
        if self.end is not None:
            self.end = self._usage_of(self.end)

    def break_off(self, reason: str) -> Terminal:
        """The worker itself failed at this run: end it in any state. Return the terminal message."""
        self.end = self._response.failure("worker_failed", reason)
        self._outgoing.stop()
        self._outgoing.pending.clear()
        return self._summary.worker_failure(reason, self._unsent.events, was_sent=self._clocks.is_connected)

    def terminal(self, end: RunEnd) -> Terminal:
        """Return the terminal message for ``end``."""
        return self._summary.terminal(end, self._unsent.events, was_sent=self._clocks.is_connected)

    def keep_unsent(self) -> None:
        """Keep the pending events as unsent: a failure tells their text, and a whole answer is made of them."""
        self._unsent.add([event for event in self.drop_pending() if type(event) is not UsageUpdate])

    def drop_pending(self) -> list[RunEvent]:
        """Remove the pending events and return them. They are not sent, and stay in the transcript."""
        dropped = self._outgoing.drop()
        if self.transcript is not None:
            self.transcript.add(dropped)
        return dropped

    def _drop_lone_usage(self) -> None:
        """Drop the pending events if no content is among them: the terminal message tells the usage."""
        pending = self._outgoing.pending
        if pending and not any(map(is_content, pending)):
            self.drop_pending()

    def earlier_events(self) -> list[RunEvent]:
        """Return all events of the answer that are no longer pending."""
        return self._unsent.events if self.transcript is None else self.transcript.kept

    def _usage_of(self, end: RunEnd) -> Usage:
        match end:
            case Usage():
                return end
            case Completion():
                return end.usage
            case _:
                return self._summary.best_usage()

    def _checked(self, completion: Completion) -> Completion | ProviderFailure:
        """Return the completion as it is sent to the client. If the answer is not whole, return the failure instead."""
        if self.is_gathered:
            try:
                completion = with_message(completion, self._unsent.events)
            except LimitError as error:
                return unreadable(error, self._response.status)
        end = sendable_end(completion, self._response.status)
        if isinstance(end, ProviderFailure) and self.is_gathered and not self._unsent.events:
            # The failure's partial text is made of the unsent events.
            self._unsent.events.append(well_formed_text(completion.message.text if completion.message else ""))
        return end
