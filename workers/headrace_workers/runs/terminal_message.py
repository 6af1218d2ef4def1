"""Builds the terminal message of a run: how it ended, how much was sent, and the best known usage. Pure."""

from __future__ import annotations

from typing import cast

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace.types import AudioPart, FilePart, ImagePart, Part, TextPart, Usage
from headrace.wire.messages import (
    Aborted,
    Failed,
    Finished,
    Terminal,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.answer_limits import LimitError
from headrace_workers.providers.shared.sse import EventTooLargeError
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailedError, ProviderFailure
from headrace_workers.runs.completeness import incomplete_reason
from headrace_workers.runs.sendable_answer import TooDeepError, sendable_completion
from headrace_workers.runs.timeouts import Expired

TOO_LARGE = "answer_too_large"
"""The error code for an answer that is larger than a limit."""
CHARACTERS_PER_TOKEN = 4
"""The average length of a token of English text. For estimates only."""

_CLOCKS = {
    "connect": "no connection to the provider within {limit} (connect timeout)",
    "first_chunk": "no content from the provider within {limit} (first_chunk timeout)",
    "idle": "the provider was silent for {limit} (idle timeout)",
    "total": "not finished within {limit} (total timeout)",
    "reader": "the program read no event of a full stream for {limit} (reader timeout)",
}
"""Name of a clock → what has happened when it runs out."""

RunEnd = Completion | ProviderFailure | Expired | Usage
"""How a run ended. ``Usage`` means that it was aborted, and used so much."""


class TerminalFacts(msgspec.Struct, frozen=True):
    """What a terminal message says about its run, however the run ended.

    ``sequence`` and ``text_length`` count the events and the characters of text that were sent. ``unsent_text`` came
    from the provider and was not sent. ``maybe_billed``: the provider may bill an answer that was not read to its end.
    """

    span_id: str
    attempt: int
    sequence: int
    text_length: int
    usage: Usage
    request_id: str | None
    unsent_text: str
    wire_format: str | None = None
    maybe_billed: bool = False


def finished_message(
    completion: Completion, span_id: str, attempt: int, sequence: int, text_length: int, wire_format: str | None
) -> Finished:
    """Return the message that tells the client that its run has a complete answer. See :class:`TerminalFacts`."""
    return Finished(
        span_id=span_id,
        attempt=attempt,
        sequence=sequence,
        text_length=text_length,
        finish_reason=completion.finish_reason,
        provider_finish_reason=completion.provider_finish_reason,
        usage=completion.usage,
        tool_calls=completion.tool_calls,
        model=completion.model,
        message=completion.message,
        refusal=completion.refusal,
        vectors=cast("list[list[float]] | None", completion.vectors),  # msgspec.Raw has the same form in a frame
        wire_format=wire_format,
        logprobs=completion.logprobs,
    )


def terminal_message(ending: RunEnd, facts: TerminalFacts) -> Terminal:
    """Return the message that tells the client how its run ended."""
    span_id, attempt, sequence = facts.span_id, facts.attempt, facts.sequence
    match ending:
        case Completion():
            return finished_message(ending, span_id, attempt, sequence, facts.text_length, facts.wire_format)
        case ProviderFailure():
            return Failed(
                span_id=span_id,
                attempt=attempt,
                sequence=sequence,
                kind=ending.kind,
                reason=well_formed_text(ending.reason),
                usage=facts.usage,
                status_code=ending.status_code,
                request_id=ending.request_id or facts.request_id,
                code=None if ending.code is None else well_formed_text(ending.code),
                retry_after=ending.retry_after,
                partial_text=well_formed_text(facts.unsent_text),
                argument=ending.argument,
                may_retry=ending.may_retry,
                is_final=ending.is_final,
                maybe_billed=facts.maybe_billed,
            )
        case Expired():
            return Failed(
                span_id=span_id,
                attempt=attempt,
                sequence=sequence,
                kind="timeout",
                reason=_CLOCKS[ending.clock].format(limit=f"{ending.limit:g} s"),
                usage=facts.usage,
                clock=ending.clock,
                limit=ending.limit,
                partial_text=facts.unsent_text,
                may_retry=ending.clock == "connect",
                maybe_billed=facts.maybe_billed,
            )
        case Usage():
            return Aborted(span_id, attempt, sequence, ending, facts.wire_format)


def sendable_end(completion: Completion, status: int) -> Completion | ProviderFailure:
    """Return the completion as a frame can carry it.

    If it is not whole, or no frame can carry it, return the failure instead.
    """
    problem = incomplete_reason(completion)
    if problem is None:
        try:
            return sendable_completion(completion)
        except TooDeepError as error:
            problem = str(error)
    return ProviderFailure("provider_protocol", problem, status or None)


def unreadable(error: Exception, status: int) -> ProviderFailure:
    """Return the failure for an ``error`` that reading a response has raised."""
    if isinstance(error, ProviderFailedError):
        return error.failure
    reason = "the response is nested too deeply" if isinstance(error, RecursionError) else str(error)
    code = TOO_LARGE if isinstance(error, (LimitError, EventTooLargeError)) else None
    return ProviderFailure("provider_protocol", reason, status or None, code=code)


def cut_short(failure: ProviderFailure) -> ProviderFailure:
    """Return the failure of an answer that was cut, and is not wrong in itself: another attempt may succeed."""
    if failure.kind != "provider_protocol" or failure.code == TOO_LARGE:
        return failure
    return msgspec.structs.replace(failure, may_retry=True)


def with_status(failure: ProviderFailure, status: int) -> ProviderFailure:
    """Return the failure with the HTTP status of a response that broke the protocol.

    ``status`` 0 means that none has come.
    """
    if failure.kind != "provider_protocol" or failure.status_code is not None or not status:
        return failure
    return msgspec.structs.replace(failure, status_code=status)


def unfinished_usage(known: Usage, prompt_characters: int, text_characters: int) -> Usage:
    """Return the usage of an unfinished run: the provider's so far, else an estimate from the characters."""
    if known.source != "none":
        return msgspec.structs.replace(known, source="partial")
    tokens_in = prompt_characters // CHARACTERS_PER_TOKEN
    tokens_out = text_characters // CHARACTERS_PER_TOKEN
    return Usage(tokens_in, tokens_out, tokens_in + tokens_out, source="estimated")


def prompt_characters(request: RunRequest) -> int:
    """Return the number of characters in a request's texts, text files and addresses."""
    total = 0
    for message in request.messages:
        if isinstance(message.content, str):
            total += len(message.content)
        else:
            total += sum(map(_characters, message.content))
    return total


def _characters(part: Part) -> int:
    """Return the characters of a part that are counted: text, and addresses. Base64 is no measure of tokens."""
    match part:
        case TextPart():
            return len(part.text)
        case FilePart():
            return len(part.text or part.url or "")
        case ImagePart() | AudioPart():
            return 0 if part.data else len(part.url or "")
        case _:
            return 0
