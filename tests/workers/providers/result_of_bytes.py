"""Turns the bytes of a response into the caller's result, by a worker's run and a client's assembly, in one process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import msgspec

from headrace.answers.assembly import InvalidArgumentsError, ResultFacts, finished_result, joined_text
from headrace.types import Message, RunEvent, RunLocalResult
from headrace.wire.messages import Chunk, Failed, Finished, Run, Terminal
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import ClockLimits, Clocks

FORMATS = ("openai-chat", "openai-responses", "anthropic", "google")

_NO_LIMITS = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
_FACTS = ResultFacts("sp_0123456789abcdef", "tr_0123456789abcdef", "p", "m", 1.0, 1)
_ENOUGH = 10**9


class Failure(msgspec.Struct, frozen=True):
    """A failed answer: the kind of the error, its reason, the text before it, and the HTTP status."""

    kind: str
    reason: str
    partial_text: str
    status_code: int | None


class Heard(msgspec.Struct, frozen=True):
    """All that a run sent to its client, decoded from its frames."""

    events: list[RunEvent]
    terminal: Any


def sse(*events: Any) -> bytes:
    """Return events as bytes. An event that is bytes is not changed."""
    data = (event if isinstance(event, bytes) else json.dumps(event).encode() for event in events)
    return b"".join(b"data: " + each + b"\n\n" for each in data)


def of_stream(api: str, body: bytes, **options: Any) -> RunLocalResult | Failure:
    """Return the result of a streamed run."""
    return answer(api, [body], content_type="text/event-stream", stream=True, **options)


def of_body(api: str, body: Any, **options: Any) -> RunLocalResult | Failure:
    """Return the result of a run without ``stream``. ``body`` is JSON, or its value."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(api, [data], content_type="application/json", stream=False, **options)


def answer(
    api: str, reads: Iterable[bytes], *, content_type: str, stream: bool, **options: Any
) -> RunLocalResult | Failure:
    """Return the result of a response that arrives in these reads."""
    heard = heard_of(api, reads, content_type=content_type, stream=stream, **options)
    return result_of(heard, stream=stream)


def heard_of(
    api: str,
    reads: Iterable[bytes],
    *,
    content_type: str,
    stream: bool,
    logprobs: bool | None = None,
    **options: Any,
) -> Heard:
    """Return what the client receives for a response that arrives in these reads."""
    request = RunRequest(
        provider="p",
        model="m",
        messages=[Message("user", "hi")],
        stream=stream,
        custom_options=options,
        logprobs=logprobs,
    )
    core = ProviderRun(
        Run(_FACTS.span_id, 1, 7, b"", _ENOUGH, _ENOUGH, None), request, WIRE_FORMATS[api].api, Clocks(_NO_LIMITS, 0.0)
    )
    core.responded(200, {"content-type": content_type}, 0.0)
    sent: list[Chunk | Terminal] = []
    for read in reads:
        core.received(read, 0.0)
        sent += core.take(0.0)[0]
    core.completed(0.0)
    sent += core.take(0.0)[0]
    # Messages that cannot be encoded would never arrive.
    messages = [msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=type(message)) for message in sent]
    events = [event for message in messages if isinstance(message, Chunk) for event in message.events]
    return Heard(events, messages[-1])


def result_of(heard: Heard, *, stream: bool) -> RunLocalResult | Failure:
    """Return the caller's result."""
    terminal, events = heard.terminal, heard.events
    if isinstance(terminal, Failed):
        return Failure(
            terminal.kind, terminal.reason, joined_text(events) + terminal.partial_text, terminal.status_code
        )
    assert isinstance(terminal, Finished)
    assert terminal.text_length == len(joined_text(events))
    try:
        return finished_result(_FACTS, events, terminal, aborted=False if stream else None)
    except InvalidArgumentsError as error:
        return Failure("provider_protocol", str(error), joined_text(events), 200)
