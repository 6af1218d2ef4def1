"""Simulates OpenAI's background responses: a Responses request with ``background``, which is asked for until it ends."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.testing.batches.batch_store import BatchStore, new_id
from headrace.testing.batches.simulated_batch import BatchOrigin, RowAnswer, SimulatedBatch, SimulatedRow
from headrace.testing.openai_responses.answer import PATH as RESPONSES_PATH
from headrace.testing.openai_responses.answer import response_head
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.openai_errors import refused
from headrace.testing.shared.reply import Reply, json_reply, reset
from headrace.testing.shared.request_log import LogEntry

_PATH = re.compile(r"/v1/responses/(?P<id>[^/]+)(?:/(?P<verb>cancel))?")
_STATUS_OF_PHASE = {"pending": "queued", "ended": "completed"}
_STATUS_OF_ENDING = {"cancelled": "cancelled", "failed": "failed", "expired": "failed", "partial": "failed"}


def takes(path: str) -> bool:
    """Return whether this is a path of the API."""
    return _PATH.fullmatch(path) is not None


def is_begun_by(request: Request, body: Any) -> bool:
    """Return whether a request begins a background response."""
    is_background = isinstance(body, dict) and body.get("background") is True and not body.get("stream")
    return is_background and (request.method, request.path) == ("POST", RESPONSES_PATH)


def state_of(batch: SimulatedBatch) -> str:
    """Return the status of a background response."""
    if batch.ending in _STATUS_OF_ENDING:
        return _STATUS_OF_ENDING[batch.ending]
    if batch.is_ended:
        return str(_answered(batch).get("status", "failed"))
    return _STATUS_OF_PHASE.get(batch.phase, "in_progress")


class BackgroundResponses:
    """Answers requests about background responses."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def begin(
        self, request: Request, entry: LogEntry, reply: Reply, wall_time: int, answer_of: Callable[[Reply], RowAnswer]
    ) -> Reply:
        """Keep the answer ``reply`` for later, and return the reply to the request that begins the response."""
        answer = answer_of(reply)
        row = SimulatedRow("", request.path, entry.body)
        origin = BatchOrigin(entry.key, request.headers, entry.arrived_at, wall_time)
        batch = self._store.add(
            "background",
            new_id("resp_"),
            origin,
            [row],
            {"metadata": entry.body.get("metadata")},
            None,
            lambda *_: answer,
        )
        if self._store.loses_reply():
            return reset()
        begun = json_reply(_response(batch), headers=reply.headers)
        return msgspec.structs.replace(begun, usage=reply.usage)

    def reply(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:  # noqa: ARG002 - as all batch APIs
        """Return the reply to a request with a valid key."""
        match = _PATH.fullmatch(request.path)
        batch = None if match is None else self._store.batch("background", match["id"], entry.key)
        if match is None or batch is None:
            return refused(404, f"Response with id '{match['id'] if match else ''}' not found.", "id")
        match request.method, match["verb"]:
            case "GET", None:
                return json_reply(_response(batch))
            case "POST", "cancel":
                self._store.end_cancelled(batch)  # a response that has ended stays as it is
                return json_reply(_response(batch))
            case "DELETE", None:
                self._store.remove(batch)
                return json_reply({"id": batch.id, "object": "response", "deleted": True})
            case _:
                return refused(405, f"Not allowed to {request.method} on {request.path}", code="method_not_supported")


def _response(batch: SimulatedBatch) -> dict[str, Any]:
    status = state_of(batch)
    own = {"id": batch.id, "background": True, "created_at": batch.origin.wall}
    if batch.is_ended and status not in {"failed", "cancelled"}:
        return _answered(batch) | own | {"completed_at": batch.times["ended"]}
    head = response_head(batch.rows[0].body, batch.id, batch.origin.wall, status)
    error = {"code": "server_error", "message": _failure(batch)} if status == "failed" else None
    return head | own | {"output": [], "usage": None, "error": error}


def _answered(batch: SimulatedBatch) -> dict[str, Any]:
    """Return the whole response; an empty object if the answer failed."""
    body = batch.answers[0].body if batch.answers else None
    return {} if body is None else msgspec.json.decode(body, type=dict[str, Any])


def _failure(batch: SimulatedBatch) -> str:
    if batch.faults:
        return batch.faults[0].message
    if batch.ending == "expired":
        return "The response was not made within its completion window."
    return "The model produced invalid content."
