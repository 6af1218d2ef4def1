"""Reads a batch's answer to a row as a live answer is read: by the wire format, with all checks, and without secrets. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from headrace.text.secret_mask import SecretMask
from headrace.wire.batch_messages import ProviderAnswer
from headrace.wire.bounds import cut
from headrace.wire.messages import WINDOW_CHARACTERS, WINDOW_EVENTS, Aborted, Chunk, Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.wire_format import ProviderApi, ProviderFailure
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import ClockLimits, Clocks

_NO_LIMITS = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
_JSON: Mapping[str, str] = {"content-type": "application/json"}


def read_answer(
    answer: ProviderAnswer, request: RunRequest, api: ProviderApi, wire_format: str, span_id: str, mask: SecretMask
) -> Finished | Failed:
    """Return how the row ended. ``request``: the row's, which was not streamed."""
    message = Run(span_id, 1, 0, b"", WINDOW_EVENTS, WINDOW_CHARACTERS)
    run = ProviderRun(message, request, api, Clocks(_NO_LIMITS, 0.0), mask, None, wire_format)
    headers = {**_JSON, "x-request-id": answer.request_id} if answer.request_id else _JSON
    run.clocks.connected()
    run.responded(answer.status_code, headers, 0.0)
    if not run.has_ended:
        run.received(answer.body, 0.0)
    run.completed(0.0)
    while run.wants_next_turn:
        run.next_turn(0.0)
    end: Chunk | Finished | Failed | Aborted | None = next(reversed(run.take(0.0)[0]), None)
    if isinstance(end, Finished | Failed):
        return end
    return Failed(span_id, 1, 0, "provider_protocol", "the answer in the batch's results has no end", status_code=200)


def failed_of(failure: ProviderFailure) -> Failed:
    """Return the failure of a call as a message."""
    return Failed(
        "",
        0,
        0,
        failure.kind,
        cut(failure.reason),
        status_code=failure.status_code,
        request_id=failure.request_id,
        code=failure.code,
        retry_after=failure.retry_after,
        argument=failure.argument,
        may_retry=failure.may_retry,
        is_final=failure.is_final,
    )
