"""The state of the simulated provider: its scripts, and the log of its requests. Has no socket and reads no clock.

``SimulatedProvider`` sends scripts and reads the log by requests to ``/_headrace/``.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from headrace.testing.anthropic import answer as anthropic
from headrace.testing.anthropic import limits as anthropic_limits
from headrace.testing.batches import endpoints as batch_endpoints
from headrace.testing.batches.batch_store import UnknownBatchError
from headrace.testing.batches.endpoints import BatchEndpoints
from headrace.testing.batches.simulated_batch import RowAnswer, SimulatedBatch, SimulatedRow
from headrace.testing.google import answer as google
from headrace.testing.google import embeddings as google_embeddings
from headrace.testing.google import limits as google_limits
from headrace.testing.openai_chat import answer as openai_chat
from headrace.testing.openai_chat import embeddings as openai_embeddings
from headrace.testing.openai_responses import answer as openai_responses
from headrace.testing.shared import continuation, openai_limits
from headrace.testing.shared.conditions import Change, Conditions, SetLimits
from headrace.testing.shared.http_request import CONTROL_PREFIX, Request
from headrace.testing.shared.provider_limits import LimitForm, ProviderLimits
from headrace.testing.shared.reply import Reply, json_reply, reset
from headrace.testing.shared.request_log import LogEntry, RequestLog
from headrace.testing.shared.script import Script


class SimulatedFormat(Protocol):
    """The functions that a simulated wire format must have: a module, or an object."""

    def headers(self, request_id: str) -> dict[str, str]:
        """Return the headers of each response."""

    def refused(self, status: int, message: str, param: str | None = None, code: str | None = None) -> Reply:
        """Return an error reply for a request that no API takes: wrong method, JSON or ``simulate`` field."""

    def refused_key(self, headers: dict[str, str]) -> Reply | None:
        """Return the error reply for a missing or wrong API key; None for a valid key."""

    def refused_body(self, body: object, headers: dict[str, str]) -> Reply | None:
        """Return the error reply for a body that the real API would refuse; None for a valid body."""

    def reply(self, body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
        """Return the reply to a valid request."""


FORMAT_AT_PATH: dict[str, SimulatedFormat] = {
    openai_chat.PATH: openai_chat,
    openai_embeddings.PATH: openai_embeddings,
    openai_responses.PATH: openai_responses,
    anthropic.PATH: anthropic,
}
"""Path → wire format. Google's paths are not here, because they have the name of the model."""

LIMIT_FORM_AT_PATH: dict[str, LimitForm] = {
    openai_chat.PATH: openai_limits,
    openai_embeddings.PATH: openai_limits,
    openai_responses.PATH: openai_limits,
    anthropic.PATH: anthropic_limits,
}
"""Path → how its API speaks of limits; Google's at all other paths."""

_A_WRONG_KEY = {"authorization": "Bearer sk-invalid", "x-api-key": "sk-invalid", "x-goog-api-key": "sk-invalid"}

_decode_scripts = msgspec.json.Decoder(list[Script]).decode
_decode_change: Callable[[bytes], Change] = msgspec.json.Decoder(Change).decode


class ServedConnections(Protocol):
    """The server's connections."""

    def count(self) -> int:
        """Return the number of open connections of clients."""

    def accept(self, are_accepted: bool) -> None:
        """Take new connections, or refuse them and close those of clients that wait for nothing. Takes effect soon."""


class ProviderSimulation:
    """Chooses the script for each request, makes the reply, and keeps the log."""

    def __init__(self, script: Script | None = None, limits: ProviderLimits | None = None) -> None:
        self._script = script or Script()
        self._conditions = Conditions()
        if limits is not None:
            self._conditions.change(SetLimits("", limits))
        self._queue: deque[Script] = deque()
        self._tries: dict[bytes, int] = {}
        self._log = RequestLog()
        self._batches = BatchEndpoints(self._answer_row)

    def arrived(self, request: Request, connection: int, now: float) -> LogEntry:
        """Open the log entry of a request. Control requests are not kept in the log."""
        self._batches.tick(now)
        return self._log.arrived(request.method, request.path, request.headers, connection, now, request.is_control)

    def reply_to(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a client's request."""
        reply = self._reply_to(request, entry, wall_time)
        if not self._conditions.are_usual:
            reply = self._reply_under_conditions(request, entry, reply, wall_time)
        reply = self._batches.begin_in_background(request, entry, reply, wall_time)
        wire_format = _wire_format_of(request) or openai_chat
        headers = wire_format.headers(f"req_{uuid.uuid4().hex}") | reply.headers
        return msgspec.structs.replace(reply, headers=headers)

    def _reply_to(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        wire_format = _wire_format_of(request)
        if wire_format is None:
            return openai_chat.refused(404, f"Invalid URL ({request.method} {request.path})")
        if request.path not in FORMAT_AT_PATH and batch_endpoints.format_of(request) is not None:
            return self._batch_reply(wire_format, request, entry, wall_time)
        if request.method != "POST":
            message = f"Not allowed to {request.method} on {request.path} (HINT: Perhaps you meant to use a different HTTP method?)"
            return wire_format.refused(405, message, code="method_not_supported")
        if (refusal := wire_format.refused_key(request.headers)) is not None:
            return refusal
        try:
            entry.body = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return wire_format.refused(400, f"We could not parse the JSON body of your request. ({error})")
        return self._answer(wire_format, entry, request.headers, wall_time)

    def _answer(self, wire_format: SimulatedFormat, entry: LogEntry, headers: dict[str, str], wall_time: int) -> Reply:
        try:
            simulated, body = _simulated(entry.body)
        except msgspec.ValidationError as error:
            return wire_format.refused(400, f"simulate: {error}", "simulate", "invalid_script")
        if (refusal := wire_format.refused_body(body, headers)) is not None:
            return refusal
        is_live = entry.batch_id is None
        outage = self._conditions.outage_script(entry.key) if is_live and not self._conditions.are_usual else None
        script = outage or simulated or continuation.script_of(body) or self._next_script()
        if script.failures:
            script = self._tried(script)
        return wire_format.reply(body, script, f"chatcmpl-{uuid.uuid4().hex[:29]}", wall_time)

    def _batch_reply(self, wire_format: SimulatedFormat, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request about files, batches or background responses."""
        if not batch_endpoints.has_own_key(request):
            headers = _A_WRONG_KEY if self._conditions.refuses(entry.key) else request.headers
            if (refusal := wire_format.refused_key(headers)) is not None:
                return refusal
        if (outage := self._conditions.outage_script(entry.key)) is not None:
            return wire_format.reply({}, outage, "", wall_time)
        if self._conditions.resets(entry.key):  # before a batch is created, as a live request is not answered
            return reset()
        return self._batches.reply_to(request, entry, wall_time)

    def _answer_row(self, batch: SimulatedBatch, row: SimulatedRow, now: float, wall_time: int) -> RowAnswer:
        """Answer one request of a batch as a live one, and log it."""
        entry = self._log.arrived("POST", row.path, batch.origin.headers, 0, now, is_control=False)
        entry.body, entry.batch_id, entry.custom_id = row.body, batch.id, row.custom_id
        wire_format = _wire_format_of(Request("POST", row.path, batch.origin.headers, b"")) or openai_chat
        if isinstance(row.body, dict) and row.body.get("stream"):
            reply = wire_format.refused(400, "stream: a request of a batch cannot be streamed", "stream")
        else:
            reply = self._answer(wire_format, entry, batch.origin.headers, wall_time)
        frames = [] if reply.is_silent else list(reply.frames)
        answer = batch_endpoints.row_answer_of(msgspec.structs.replace(reply, frames=iter(frames)))
        entry.answered(answer.status, frames if answer.is_success else [], now)
        return answer

    def _reply_under_conditions(self, request: Request, entry: LogEntry, reply: Reply, wall_time: int) -> Reply:
        conditions = self._conditions
        if conditions.resets(entry.key):
            return reset()
        wire_format = _wire_format_of(request)
        if wire_format is None:
            return reply
        if conditions.refuses(entry.key):
            return wire_format.refused_key(_A_WRONG_KEY) or reply
        if reply.usage is None:  # an error
            return reply
        if (delay := conditions.delay(entry.key)) > 0:
            reply = msgspec.structs.replace(reply, first_token_delay=reply.first_token_delay + delay)
        return self._limited(request, entry, reply, wall_time) if conditions.limits else reply

    def _limited(self, request: Request, entry: LogEntry, reply: Reply, wall_time: int) -> Reply:
        form = LIMIT_FORM_AT_PATH.get(request.path, google_limits)
        model = entry.model or ""
        entry.tokens = form.tokens_of(entry.body, reply.usage() if reply.usage is not None else {})
        check = self._conditions.limits.check(entry.key, model, entry.tokens, entry.arrived_at)
        if check is None:
            return reply
        if check.exceeded is not None:
            entry.tokens = 0
            reply = form.limited(check, model)
        told = form.limit_headers(check, wall_time) if check.limits.headers else {}
        return msgspec.structs.replace(reply, headers=told | reply.headers)

    def _next_script(self) -> Script:
        if not self._queue:
            return self._script
        return msgspec.structs.replace(self._queue.popleft(), calls_again=True)

    def _tried(self, script: Script) -> Script:
        """Return the answer to the next request with a script that has failures before it."""
        known = msgspec.json.encode(script)
        count = self._tries[known] = self._tries.get(known, 0) + 1
        return script if count > len(script.failures) else script.failures[count - 1]

    def control(self, request: Request, connections: ServedConnections) -> Reply:
        """Carry out a control request."""
        match request.method, request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "requests":
                return json_reply(self._log.records())
            case "GET", "connections":
                return json_reply(connections.count())
            case "GET", "arrivals":
                return json_reply(self._log.arrivals())
            case "GET", "batches":
                return json_reply(self._batches.records())
            case "POST", "batches":
                return self._change_batches(request.body)
            case "POST", "scripts":
                return self._enqueue(request.body)
            case "POST", "clear":
                self._log.clear()
                self._queue.clear()
                self._tries.clear()
                return json_reply(None)
            case "POST", "conditions":
                return self._change(request.body, connections)
            case "POST", "recover":
                self._conditions.clear()
                self._batches.recover()
                connections.accept(True)
                return json_reply(None)
            case _:
                return openai_chat.refused(404, f"Invalid URL ({request.method} {request.path})")

    def _change(self, body: bytes, connections: ServedConnections) -> Reply:
        try:
            self._conditions.change(_decode_change(body))
        except msgspec.DecodeError as error:
            return openai_chat.refused(400, str(error))
        connections.accept(self._conditions.accepts)
        return json_reply(None)

    def _change_batches(self, body: bytes) -> Reply:
        try:
            self._batches.change(body)
        except (msgspec.DecodeError, UnknownBatchError) as error:
            return openai_chat.refused(400, str(error))
        return json_reply(None)

    def _enqueue(self, body: bytes) -> Reply:
        try:
            self._queue.extend(_decode_scripts(body))
        except msgspec.DecodeError as error:
            return openai_chat.refused(400, str(error), code="invalid_script")
        return json_reply(None)


def refusal_in_format(request: Request, status: int, message: str) -> Reply:
    """Return an error reply in the form of the API that a request is for; in OpenAI's form for an unknown path."""
    return (_wire_format_of(request) or openai_chat).refused(status, message)


def _wire_format_of(request: Request) -> SimulatedFormat | None:
    known = FORMAT_AT_PATH.get(request.path)
    known = known or google.endpoint(request.path, request.query) or google_embeddings.endpoint(request.path)
    return known or batch_endpoints.format_of(request)


def _simulated(body: Any) -> tuple[Script | None, Any]:
    """Take the script out of the ``simulate`` field.

    The field is no part of a wire format, so the body is checked without it.
    """
    if not isinstance(body, dict) or "simulate" not in body:
        return None, body
    rest = {name: value for name, value in body.items() if name != "simulate"}
    return msgspec.convert(body["simulate"], Script), rest
