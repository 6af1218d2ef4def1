"""Simulates Anthropic's batch API: ``/v1/messages/batches``."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.testing.anthropic.answer import PATH as MESSAGES_PATH
from headrace.testing.anthropic.answer import error_body, refused
from headrace.testing.anthropic.rules import VERSIONS
from headrace.testing.batches import pages
from headrace.testing.batches.batch_store import BatchStore, new_id
from headrace.testing.batches.simulated_batch import BatchOrigin, RowAnswer, SimulatedBatch, SimulatedRow
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_log import LogEntry

_PATH = re.compile(r"/v1/messages/batches(?:/(?P<id>[^/]+)(?:/(?P<verb>results|cancel))?)?")
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MAX_ROWS = 100_000
_MAX_BYTES = 256 * 1024 * 1024
_MAX_PAGE = 1000


def takes(path: str) -> bool:
    """Return whether this is a path of the API."""
    return _PATH.fullmatch(path) is not None


def state_of(batch: SimulatedBatch) -> str:
    """Return the processing status of a batch."""
    return {"ended": "ended", "canceling": "canceling"}.get(batch.phase, "in_progress")


class SimulatedAnthropicBatches:
    """Answers requests about batches."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def reply(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request with a valid key."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            return refused(404, "Not found")
        if request.headers.get("anthropic-version") not in VERSIONS:
            return refused(400, "anthropic-version: header is required")
        batch_id = match["id"]
        if batch_id is None:
            match request.method:
                case "POST":
                    return self._create(request, entry, wall_time)
                case "GET":
                    return self._page(request, entry)
                case _:
                    return refused(405, "Method Not Allowed")
        batch = self._store.batch("anthropic", batch_id, entry.key)
        if batch is None:
            return refused(404, f"No message batch found with ID '{batch_id}'.")
        return self._batch_reply(batch, match["verb"], request)

    def _batch_reply(self, batch: SimulatedBatch, verb: str | None, request: Request) -> Reply:
        match request.method, verb:
            case "GET", None:
                return json_reply(_batch_object(batch, request))
            case "GET", "results":
                return _results(batch)
            case "POST", "cancel":
                if batch.is_ended:
                    return refused(400, f"Batch {batch.id} has ended, and cannot be canceled.")
                self._store.cancel(batch)
                return json_reply(_batch_object(batch, request))
            case "DELETE", None:
                if not batch.is_ended:
                    return refused(400, f"Batch {batch.id} is still in progress; cancel it before you delete it.")
                self._store.remove(batch)
                return json_reply({"id": batch.id, "type": "message_batch_deleted"})
            case _:
                return refused(405, "Method Not Allowed")

    def _create(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        if len(request.body) > _MAX_BYTES:
            return refused(413, "Request exceeds the maximum size")
        try:
            body = entry.body = msgspec.json.decode(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return refused(400, f"The request body is not valid JSON: {error}")
        if (fault := _fault_of(body)) is not None:
            return refused(400, fault)
        rows = [SimulatedRow(one["custom_id"], MESSAGES_PATH, one["params"]) for one in body["requests"]]
        origin = BatchOrigin(entry.key, request.headers, entry.arrived_at, wall_time)
        batch = self._store.add("anthropic", new_id("msgbatch_01"), origin, rows, {})
        return json_reply(_batch_object(batch, request))

    def _page(self, request: Request, entry: LogEntry) -> Reply:
        asked = pages.parameters(request.query)
        limit = pages.limit_of(asked.get("limit"), 20, _MAX_PAGE)
        if limit is None:
            return refused(400, f"limit: must be a number from 1 to {_MAX_PAGE}")
        batches = self._store.batches_of("anthropic", entry.key)
        if "before_id" in asked:
            found = pages.before(batches, asked["before_id"], lambda batch: batch.id, limit)
            has_more = bool(found) and batches[0] is not found[0]
        else:
            rest = pages.after(batches, asked.get("after_id"), lambda batch: batch.id)
            found, has_more = rest[:limit], len(rest) > limit
        data = [_batch_object(batch, request) for batch in found]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return json_reply({"data": data, "has_more": has_more} | ends)


def _fault_of(body: Any) -> str | None:
    """Return what is wrong with the whole batch. Wrong ``params`` are told at the end, as errors of their requests."""
    requests = body.get("requests") if isinstance(body, dict) else None
    if not isinstance(requests, list) or not requests:
        return "requests: Field required, with at least one request"
    if len(requests) > _MAX_ROWS:
        return f"requests: at most {_MAX_ROWS} requests can be in one batch"
    if unknown := body.keys() - {"requests"}:
        return f"{min(unknown)}: Extra inputs are not permitted"
    ids: set[str] = set()
    for index, one in enumerate(requests):
        custom_id = one.get("custom_id") if isinstance(one, dict) else None
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            return f"requests.{index}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
        if custom_id in ids:
            return f"requests.{index}.custom_id: '{custom_id}' is used by an earlier request of the batch"
        ids.add(custom_id)
        if not isinstance(one.get("params"), dict):
            return f"requests.{index}.params: Field required"
    return None


def _batch_object(batch: SimulatedBatch, request: Request) -> dict[str, Any]:
    times = batch.times
    ended = times.get("ended")
    cancelled = times.get("canceling", times.get("cancelled"))
    results = f"{pages.host_of(request.headers)}/v1/messages/batches/{batch.id}/results"
    return {
        "id": batch.id,
        "type": "message_batch",
        "processing_status": state_of(batch),
        "request_counts": _counts(batch),
        "created_at": pages.timestamp(batch.origin.wall),
        "expires_at": pages.timestamp(batch.expires_at),
        "ended_at": None if ended is None else pages.timestamp(ended),
        "cancel_initiated_at": None if cancelled is None else pages.timestamp(cancelled),
        "archived_at": None,
        "results_url": None if ended is None else results,
    }


def _counts(batch: SimulatedBatch) -> dict[str, int]:
    counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
    if not batch.is_ended:
        return counts | {"processing": len(batch.rows)}
    for _, answer in batch.results():
        counts[_result_of(batch, answer)["type"]] += 1
    return counts


def _results(batch: SimulatedBatch) -> Reply:
    """Return the result of each request, in another order than the requests."""
    if not batch.is_ended:
        return refused(404, f"Batch {batch.id} has no results yet.")
    lines = [
        msgspec.json.encode({"custom_id": row.custom_id, "result": _result_of(batch, answer)}) + b"\n"
        for row, answer in reversed(batch.results())
    ]
    return pages.bytes_reply(b"".join(lines), "application/x-jsonl")


def _result_of(batch: SimulatedBatch, answer: RowAnswer | None) -> dict[str, Any]:
    if batch.faults:
        return {"type": "errored", "error": error_body(batch.faults[0].message, batch.faults[0].code)}
    if answer is None:
        return {"type": "canceled" if batch.ending == "cancelled" else "expired"}
    if answer.body is None:
        return {"type": "errored", "error": error_body("Internal server error", "api_error")}
    if answer.is_success:
        return {"type": "succeeded", "message": msgspec.Raw(answer.body)}
    return {"type": "errored", "error": msgspec.Raw(answer.body)}
