"""A run without streaming, until its answer has come. Most answers come in one piece, and end the run here at once.

Everything else belongs to :class:`headrace_workers.runs.live_run.LiveRun`: a body in several pieces, an error, an abort, a time limit.
The short run then makes a live run, which takes its place and goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from headrace.answers.assembly import Assembled
from headrace.text.secret_mask import SecretMask
from headrace.types import Usage
from headrace.wire.messages import Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_client import HttpExchange
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.answer_limits import LIGHT
from headrace_workers.providers.shared.request_parts import wants_logprobs
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi
from headrace_workers.runs.live_run import ConnectedClient, LiveRun, WorkerServices
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.response_body import request_id_of
from headrace_workers.runs.shared_deadlines import RemoveDeadline
from headrace_workers.runs.terminal_message import finished_message
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.spans.run_span import EndedRun
from headrace_workers.spans.tracer import OpenSpan

logger = logging.getLogger(__name__)

_OK = 200
_NO_EVENTS = Assembled(text="", reasoning="", refusal="", tool_calls=[], usage=Usage())
"""What a whole answer has besides its message."""

ReadPlain = Callable[[RunRequest, bytes], Completion | None]


def plain_reader(api: ProviderApi, request: RunRequest) -> ReadPlain | None:
    """Return the function that reads a plain whole answer to this request; None if the answer must be read in steps."""
    if request.stream or request.inputs or wants_logprobs(request):
        return None
    read: ReadPlain | None = getattr(
        api, "read_plain", None
    )  # of a PlainApi; isinstance would take longer than reading
    return read


class ShortRun:
    """The shell and the core of one run without streaming. ``size`` is the weight of its request in bytes, as the worker counts it.

    ``message``: the message that started the run, without its request. ``limits``: of its clocks. ``read_plain``: see
    :func:`plain_reader`. ``mask``, ``http_request``, ``span``: as :class:`LiveRun` and :class:`ProviderRun` take them.
    """

    __slots__ = (
        "_api",
        "_exchange",
        "_limits",
        "_live",
        "_mask",
        "_message",
        "_read_plain",
        "_remove_deadline",
        "_request",
        "_sent",
        "_span",
        "_started_at",
        "_wire_format",
        "attempt",
        "client",
        "size",
        "span_id",
        "worker",
    )

    def __init__(
        self,
        worker: WorkerServices,
        client: ConnectedClient,
        message: Run,
        request: RunRequest,
        http_request: HttpRequest,
        api: ProviderApi,
        read_plain: ReadPlain,
        limits: ClockLimits,
        mask: SecretMask,
        span: OpenSpan | None,
        size: int,
        wire_format: str | None = None,
    ) -> None:
        self.worker = worker
        self.client = client
        self.span_id = message.span_id
        self.attempt = message.attempt
        self.size = size
        self._message = message
        self._request = request
        self._sent = http_request
        self._api = api
        self._read_plain = read_plain
        self._limits = limits
        self._mask = mask
        self._span = span
        self._wire_format = wire_format
        self._started_at = time.monotonic()
        self._exchange: HttpExchange | None = None
        self._remove_deadline: RemoveDeadline | None = None
        self._live: LiveRun | None = None

    def start(self) -> None:
        """Send the request. If the run has a span, send it after the span's first record is written."""
        if self._span is None or self.worker.tracer is None:
            self._send()
        else:
            self.worker.tracer.start(self)

    def start_now(self) -> None:
        """Send the request now, unless the run has ended meanwhile."""
        if self._live is not None:
            self._live.start_now()
        elif self.client.runs.get(self.span_id) is self:
            try:
                self._send()
            except Exception as error:  # noqa: BLE001 - any exception ends the run, as in LiveRun
                self.as_live().broke(error)

    def _send(self) -> None:
        worker = self.worker
        exchange = self._exchange = worker.http.send(self._sent, self, self.on_whole)
        limit = only_limit(self._limits)
        if exchange.is_connected and limit is not None:
            self._remove_deadline = worker.deadlines.add(self, self._started_at, limit)
        if self._remove_deadline is None:
            self.as_live()  # a run that still connects, or has several time limits, needs all its clocks

    def as_live(self) -> LiveRun:
        """Return the run in its general form. From now on it stands in the place of this one."""
        if self._live is None:
            clocks = Clocks(self._limits, self._started_at)
            transcript = Transcript() if self._span is not None and self._span.keeps_content else None
            core = ProviderRun(
                self._message, self._request, self._api, clocks, self._mask, transcript, self._wire_format
            )
            self._live = LiveRun(self.worker, self.client, core, self._sent, self._span, self.size, self._message)
            self._forget_deadline()
            if self.client.runs.get(self.span_id) is self:
                self.client.runs[self.span_id] = self._live
            if self._exchange is not None:
                self._live.carry_on(self._exchange)
        return self._live

    def time_is_over(self) -> None:
        """The run's only time limit has passed."""
        self._remove_deadline = None
        self.as_live().look_at_clocks()

    # Calls by the HTTP exchange.

    def on_whole(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Take a response that has come in one piece, from its first to its last byte."""
        if self._live is None:
            try:
                if status == _OK and len(body) <= LIGHT and self._ends_with(headers, body):
                    return
            except Exception as error:  # noqa: BLE001
                self.as_live().broke(error)
                return
        live = self.as_live()
        live.on_response(status, headers)
        if body:
            live.on_bytes(body)
        live.on_complete()

    def on_response(self, status: int, headers: dict[str, str]) -> None:
        self.as_live().on_response(status, headers)

    def on_chunk(self, data: bytes) -> bool:  # noqa: ARG002 - no short run is a stream
        return False

    def on_bytes(self, data: bytes) -> None:
        self.as_live().on_bytes(data)

    def on_complete(self) -> None:
        self.as_live().on_complete()

    def on_failure(self, stage: str, reason: str) -> None:
        self.as_live().on_failure(stage, reason)

    # Calls by the worker.

    def stop(self, reason: str) -> None:
        """The worker stops: end the run."""
        self.as_live().stop(reason)

    def abandon(self) -> None:
        """The client is gone: close the provider's connection."""
        self.as_live().abandon()

    def broke(self, error: Exception) -> None:
        """The worker failed at this run."""
        self.as_live().broke(error)

    # The end.

    def _ends_with(self, headers: dict[str, str], body: bytes) -> bool:
        """End the run if the body is plain, and nothing in it needs a mask. Return whether it has ended."""
        completion = self._read_plain(self._request, body)
        if completion is None:
            return False
        request_id = request_id_of(headers)
        response_id = completion.response_id
        names = f"{completion.model}\n{completion.provider_finish_reason}\n{response_id}\n{request_id}"
        if not self._mask.is_clean(names):
            return False
        now, worker, span_id, message = time.monotonic(), self.worker, self.span_id, self._message
        worker.limits.responded(message, self._request, _OK, headers)
        finished = finished_message(completion, span_id, self.attempt, 0, 0, self._wire_format)
        self._forget_deadline()
        span = self._span
        if span is not None and worker.tracer is not None:
            ended = EndedRun(
                request=self._request,
                terminal=finished,
                headers_at=now,
                content_at=None,
                status_code=_OK,
                request_id=request_id,
                response_id=response_id,
                maybe_billed=False,
                usage=finished.usage,
                received=_NO_EVENTS if span.keeps_content else None,
                mask=self._mask,
            )
            worker.tracer.end(span, lambda: ended)
        self._note_end(finished)
        self.client.runs.pop(span_id, None)
        worker.tell(self.client, finished)
        return True

    def _note_end(self, finished: Finished) -> None:
        if self.worker.history is not None:
            self.worker.history.note("let go", span_id=self.span_id, attempt=self.attempt)
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("provider answers", extra={"span_id": self.span_id, "status": _OK})
            logger.debug("run ends", extra={"span_id": self.span_id, "outcome": type(finished).__name__})

    def _forget_deadline(self) -> None:
        if self._remove_deadline is not None:
            self._remove_deadline(self, None)
            self._remove_deadline = None


def only_limit(limits: ClockLimits) -> float | None:
    """Return the seconds from a run's start to its only time limit while its request is under way; None if there are several."""
    has_others = limits.first_chunk < _NEVER or limits.idle < _NEVER or limits.spent
    return None if has_others else limits.total


_NEVER = float("inf")
