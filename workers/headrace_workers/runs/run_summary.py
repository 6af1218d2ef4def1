"""Makes the terminal message of a run that has ended, and the facts for its span.

Both without secrets. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.answers.assembly import joined_text
from headrace.text.secret_mask import SecretMask
from headrace.types import RunEvent, Usage
from headrace.wire.messages import Failed, Run, Terminal
from headrace.wire.run_request import RunRequest
from headrace_workers.masking import masked_terminal, masked_usage
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure
from headrace_workers.runs.answer_reader import AnswerReader
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.terminal_message import (
    RunEnd,
    TerminalFacts,
    finished_message,
    prompt_characters,
    terminal_message,
    unfinished_usage,
    with_status,
)
from headrace_workers.runs.timeouts import Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.spans.run_span import EndedRun


class RunSummary:
    """Reads the parts of one run, and changes none of them."""

    __slots__ = ("_answer", "_has_no_secret", "_mask", "_outgoing", "_request", "_response", "_run", "_wire_format")

    def __init__(
        self,
        run: Run,
        request: RunRequest,
        response: Response,
        answer: AnswerReader,
        outgoing: OutgoingEvents,
        mask: SecretMask,
        wire_format: str | None = None,
    ) -> None:
        self._run = run
        self._request = request
        self._response = response
        self._answer = answer
        self._outgoing = outgoing
        self._mask = mask
        self._wire_format = wire_format
        self._has_no_secret = False  # whether the ids and names of the answer were searched, and hold no secret

    def response_id(self, end: RunEnd | None) -> str | None:
        """The provider's id of the response, masked. None while it is unknown."""
        source = end if isinstance(end, Completion) else self._answer.mapper
        return self._masked_id(None if source is None else source.response_id)

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request, masked. None before the response's head has come."""
        return self._masked_id(self._response.request_id)

    def best_usage(self) -> Usage:
        """Return the known usage of an unfinished run. Estimate it if the provider has sent none."""
        mapper = self._answer.mapper
        if mapper is None:
            return Usage()
        usage = unfinished_usage(mapper.usage, prompt_characters(self._request), self._outgoing.text_length)
        return masked_usage(usage, self._mask)

    def terminal(self, end: RunEnd, unsent: Sequence[RunEvent], *, was_sent: bool) -> Terminal:
        """Return the terminal message.

        ``unsent`` are the events that came and were not sent. ``was_sent``: the request may have reached the provider.
        """
        if isinstance(end, Completion):
            run, sent = self._run, self._outgoing
            finished = finished_message(
                end, run.span_id, run.attempt, sent.sequence, sent.text_length, self._wire_format
            )
            return finished if self._needs_no_mask(end) else masked_terminal(finished, self._mask)
        facts = TerminalFacts(
            span_id=self._run.span_id,
            attempt=self._run.attempt,
            sequence=self._outgoing.sequence,
            text_length=self._outgoing.text_length,
            usage=Usage() if isinstance(end, Usage) else self.best_usage(),
            request_id=self._response.request_id,
            unsent_text=joined_text(unsent),
            wire_format=self._wire_format,
            maybe_billed=self._response.is_maybe_billed(was_sent=was_sent),
        )
        if isinstance(end, ProviderFailure):
            end = with_status(end, self._response.status)
        return masked_terminal(terminal_message(end, facts), self._mask)

    def worker_failure(self, reason: str, unsent: Sequence[RunEvent], *, was_sent: bool) -> Failed:
        """Return the terminal message of a run that the worker itself broke."""
        return Failed(
            self._run.span_id,
            self._run.attempt,
            self._outgoing.sequence,
            "worker_failed",
            reason,
            status_code=self._response.status or None,
            partial_text=joined_text(unsent),
            maybe_billed=self._response.is_maybe_billed(was_sent=was_sent),
        )

    def for_span(
        self,
        end: RunEnd | None,
        terminal: Terminal | None,
        clocks: Clocks,
        transcript: Transcript | None,
        *,
        is_answered: bool,
        is_beaten: bool = False,
    ) -> EndedRun:
        """Return the facts for the run's span.

        ``terminal`` is None if the client went away before the run ended. ``transcript`` is None if the span keeps no
        content.
        """
        response = self._response
        return EndedRun(
            request=self._request,
            terminal=terminal,
            headers_at=response.began_at,
            content_at=clocks.content_at,
            status_code=response.status,
            request_id=self.request_id,
            response_id=self.response_id(end),
            maybe_billed=not is_answered and response.is_maybe_billed(was_sent=clocks.is_connected),
            usage=self.best_usage() if terminal is None else terminal.usage,
            received=None if transcript is None else transcript.assembled(self._outgoing.pending),
            mask=self._mask,
            is_beaten=is_beaten,
        )

    def _masked_id(self, provider_id: str | None) -> str | None:
        if provider_id is None or self._has_no_secret:
            return provider_id
        return self._mask.masked(provider_id, words=False)

    def _needs_no_mask(self, completion: Completion) -> bool:
        """Return whether no name or id of an answer holds a secret. Searches them together, which is quicker."""
        ids = f"{completion.response_id}\n{self._response.request_id}"
        self._has_no_secret = self._mask.is_clean(f"{completion.model}\n{completion.provider_finish_reason}\n{ids}")
        message = completion.message
        has_parts = message is not None and type(message.content) is not str
        has_more = completion.tool_calls or has_parts or completion.usage.server_tool_requests
        return self._has_no_secret and not has_more
