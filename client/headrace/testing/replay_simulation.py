"""Answers requests with recorded answers. A request gets the first unused recording of an equal request.

Has no socket and reads no clock.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from headrace.testing.recording.body_differences import first_difference, likeness
from headrace.testing.recording.endpoints import endpoint_of
from headrace.testing.recording.key_overwriting import RequestSecrets, decoded
from headrace.testing.recording.recorded_exchange import Ending, RecordedExchange
from headrace.testing.shared.http_request import CONTROL_PREFIX, Request
from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_log import LogEntry, Outcome, RequestLog
from headrace.testing.simulation import ServedConnections, refusal_in_format

_NOT_RECORDED = 404
_FRAMING = frozenset(
    {"connection", "content-encoding", "content-length", "content-type", "keep-alive", "trailer", "transfer-encoding"}
)
"""Headers that say how the recorded connection framed the body; and the content type, which a reply has apart."""

_OUTCOMES: dict[Ending, Outcome] = {"complete": "complete", "cut": "cut", "closed_by_client": "open"}
"""How an answer ends. If the recorded client closed the connection, the answer goes no further, until this client closes it."""


class ReplayState(msgspec.Struct, frozen=True):
    """``unused``: the names of recordings that were not played. ``unmatched``: what was asked and is not recorded."""

    unused: list[str]
    unmatched: list[str]


class ReplaySimulation:
    """Chooses the recording for each request, and keeps the log."""

    def __init__(self, recordings: Sequence[RecordedExchange], ignored_keys: Collection[str] = ()) -> None:
        self._recordings = list(recordings)
        self._unused = list(recordings)
        self._ignored_keys = frozenset(ignored_keys)
        self._unmatched: list[str] = []
        self._log = RequestLog()

    def arrived(self, request: Request, connection: int, now: float) -> LogEntry:
        """Open the log entry of a request. Control requests are not kept in the log."""
        return self._log.arrived(request.method, request.path, request.headers, connection, now, request.is_control)

    def reply_to(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:  # noqa: ARG002
        """Return the recorded answer; for a request that is not recorded an error in the provider's form."""
        target = f"{request.path}?{request.query}" if request.query else request.path
        entry.body = decoded(request.body)
        secrets = RequestSecrets(request.headers, target, entry.body)
        asked = self._compared(decoded(secrets.overwritten(request.body)))
        for recording in self._unused:
            if self._is_of(recording, request) and self._difference(recording, asked) is None:
                self._unused.remove(recording)
                return _reply(recording)
        problem = self._problem(request, asked)
        self._unmatched.append(f"{request.method} {request.path}: {problem}")
        return refusal_in_format(request, _NOT_RECORDED, f"headrace replay: {problem}")

    def control(self, request: Request, connections: ServedConnections) -> Reply:
        """Carry out a control request."""
        match request.method, request.path.removeprefix(CONTROL_PREFIX):
            case "GET", "requests":
                return json_reply(self._log.records())
            case "GET", "connections":
                return json_reply(connections.count())
            case "GET", "replay":
                return json_reply(ReplayState([recording.name for recording in self._unused], self._unmatched))
            case "POST", "clear":
                self._log.clear()
                self._unused = list(self._recordings)
                self._unmatched.clear()
                return json_reply(None)
            case _:
                return refusal_in_format(request, 404, f"Invalid URL ({request.method} {request.path})")

    def _is_of(self, recording: RecordedExchange, request: Request) -> bool:
        """Return whether a recording is of the same API, and of the model that the path names."""
        recorded, asked = recording.request, endpoint_of(request.path)
        return recorded.method == request.method and recorded.endpoint.name == asked.name

    def _difference(self, recording: RecordedExchange, asked: Any) -> str | None:
        recorded = recording.request.body
        return None if recorded is None else first_difference(self._compared(recorded), asked)

    def _compared(self, body: Any) -> Any:
        if not self._ignored_keys or not isinstance(body, dict):
            return body
        return {key: value for key, value in body.items() if key not in self._ignored_keys}

    def _problem(self, request: Request, asked: Any) -> str:
        of_api = [recording for recording in self._recordings if self._is_of(recording, request)]
        if not of_api:
            names = sorted({f"{each.request.method} {each.request.endpoint.name}" for each in self._recordings})
            return f"no request to this path is recorded; recorded are: {', '.join(names)}"
        equal = [recording.name for recording in of_api if self._difference(recording, asked) is None]
        if equal:
            return f"all recordings of this request were played already: {', '.join(equal)}; record it once more"
        nearest = max(of_api, key=lambda recording: likeness(self._compared(recording.request.body), asked))
        return f"this request is not recorded; the nearest is {nearest.name}, but {self._difference(nearest, asked)}"


def _reply(recording: RecordedExchange) -> Reply:
    headers = {name.lower(): value for name, value in recording.response.headers}
    content_type = headers.get("content-type", "application/json")
    is_whole = recording.ending == "complete" and "event-stream" not in content_type
    pieces = [recording.body] if is_whole else recording.pieces
    return Reply(
        frames=iter([(piece, "", 1) for piece in pieces if piece]),
        status=recording.response.status,
        content_type=content_type,
        headers={name: value for name, value in headers.items() if name not in _FRAMING},
        content_length=len(recording.body) if is_whole else None,
        ending=_OUTCOMES[recording.ending],
        one_frame_per_turn=True,
    )
