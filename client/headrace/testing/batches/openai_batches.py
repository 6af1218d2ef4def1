"""Simulates OpenAI's batch API: ``/v1/files`` and ``/v1/batches``."""

from __future__ import annotations

import copy
import re
from typing import Any

import msgspec

from headrace.testing.batches import pages
from headrace.testing.batches.batch_store import BatchStore, StoredFile, new_id
from headrace.testing.batches.multipart import form_of
from headrace.testing.batches.openai_batch_file import rows_of
from headrace.testing.batches.simulated_batch import BatchOrigin, RowAnswer, SimulatedBatch, SimulatedRow
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.openai_errors import refused
from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_log import LogEntry
from headrace.testing.shared.request_rules import OpenAIRefusal, check_metadata

_PATH = re.compile(r"/v1/(?P<kind>files|batches)(?:/(?P<id>[^/]+)(?:/(?P<verb>content|cancel))?)?")
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings")
"""The endpoints that batches can have here; OpenAI has a few more."""

_STATUS_OF_PHASE = {"pending": "validating", "running": "in_progress", "canceling": "cancelling"}
_STATUS_OF_ENDING = {"partial": "completed"}
_MAX_PAGE = {"files": 10_000, "batches": 100}
_NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def takes(path: str) -> bool:
    """Return whether this is a path of the API."""
    return _PATH.fullmatch(path) is not None


def state_of(batch: SimulatedBatch) -> str:
    """Return the status of a batch."""
    if batch.ending is not None:
        return _STATUS_OF_ENDING.get(batch.ending, batch.ending)
    return _STATUS_OF_PHASE.get(batch.phase, batch.phase)


class SimulatedOpenAIBatches:
    """Answers requests about files and batches."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def reply(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request with a valid key."""
        match = _PATH.fullmatch(request.path)
        if match is None:
            return refused(404, f"Invalid URL ({request.method} {request.path})")
        match request.method, match["kind"], match["id"], match["verb"]:
            case "POST", "files", None, None:
                return self._upload(request, entry, wall_time)
            case "GET", kind, None, None:
                return self._page(kind, request, entry)
            case method, "files", str(file_id), verb:
                return self._file_reply(method, file_id, verb, entry)
            case "POST", "batches", None, None:
                return self._create(request, entry, wall_time)
            case "GET", "batches", str(batch_id), None:
                return self._batch_reply(batch_id, entry)
            case "POST", "batches", str(batch_id), "cancel":
                return self._cancel(batch_id, entry)
            case _:
                return refused(405, f"Not allowed to {request.method} on {request.path}", code="method_not_supported")

    def _upload(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        form = form_of(request.body, request.headers.get("content-type", ""))
        if form is None or "file" not in form:
            return refused(400, "'file' is a required property", "file")
        purpose = form["purpose"].content.decode("utf-8", "replace") if "purpose" in form else ""
        name = form["file"].file_name or "upload"
        entry.body = {"purpose": purpose, "file": name, "bytes": len(form["file"].content)}
        if purpose != "batch":
            return refused(400, f"'{purpose}' is not one of ['batch'] - 'purpose'", "purpose")
        file = StoredFile(new_id("file-"), entry.key, name, purpose, form["file"].content, wall_time)
        self._store.put_file(file)
        return json_reply(_file_object(file))

    def _file_reply(self, method: str, file_id: str, verb: str | None, entry: LogEntry) -> Reply:
        file = self._store.file(file_id, entry.key)
        if file is None:
            return refused(404, f"No such File object: {file_id}", "id")
        match method, verb:
            case "GET", None:
                return json_reply(_file_object(file))
            case "GET", "content":
                return pages.bytes_reply(file.content, "application/octet-stream")
            case "DELETE", None:
                self._store.remove_file(file)
                return json_reply({"id": file.id, "object": "file", "deleted": True})
            case _:
                return refused(405, f"Not allowed to {method} a file", code="method_not_supported")

    def _create(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        try:
            body = entry.body = msgspec.json.decode(request.body)
            file = self._input_of(body, entry.key)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return refused(400, f"We could not parse the JSON body of your request. ({error})")
        except OpenAIRefusal as refusal:
            return refused(refusal.status, refusal.message, refusal.param, refusal.code)
        rows, faults = rows_of(file.content, body["endpoint"])
        origin = BatchOrigin(entry.key, request.headers, entry.arrived_at, wall_time)
        batch = self._store.add("openai", new_id("batch_"), origin, rows, body, faults)
        return json_reply(self._batch_object(batch))

    def _input_of(self, body: Any, owner: str) -> StoredFile:
        if not isinstance(body, dict):
            raise OpenAIRefusal("We could not parse the JSON body of your request: it is not an object.")
        for name in ("input_file_id", "endpoint", "completion_window"):
            if not isinstance(body.get(name), str):
                raise OpenAIRefusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
        if unknown := body.keys() - {
            "input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after",
        }:  # fmt: skip
            raise OpenAIRefusal(f"Unknown parameter: '{min(unknown)}'.", min(unknown), "unknown_parameter")
        if body["completion_window"] != "24h":
            raise OpenAIRefusal("Invalid value: the completion window must be '24h'.", "completion_window")
        if body["endpoint"] not in ENDPOINTS:
            raise OpenAIRefusal(
                f"Invalid value: '{body['endpoint']}' is no endpoint of batches.", "endpoint", "invalid_value"
            )
        check_metadata(body.get("metadata"))
        file = self._store.file(body["input_file_id"], owner)
        if file is None or file.purpose != "batch":
            raise OpenAIRefusal(
                f"There is no file '{body['input_file_id']}' with the purpose 'batch'.", "input_file_id"
            )
        return file

    def _batch_reply(self, batch_id: str, entry: LogEntry) -> Reply:
        batch = self._store.batch("openai", batch_id, entry.key)
        return json_reply(self._batch_object(batch)) if batch is not None else _no_batch(batch_id)

    def _cancel(self, batch_id: str, entry: LogEntry) -> Reply:
        batch = self._store.batch("openai", batch_id, entry.key)
        if batch is None:
            return _no_batch(batch_id)
        if batch.is_ended:
            return refused(409, f"Cannot cancel a batch with status '{state_of(batch)}'.")
        self._store.cancel(batch)
        return json_reply(self._batch_object(batch))

    def _page(self, kind: str, request: Request, entry: LogEntry) -> Reply:
        asked = pages.parameters(request.query)
        limit = pages.limit_of(asked.get("limit"), 20 if kind == "batches" else 10_000, _MAX_PAGE[kind])
        if limit is None:
            return refused(400, f"Invalid 'limit': expected a number from 1 to {_MAX_PAGE[kind]}.", "limit")
        found: list[dict[str, Any]]
        if kind == "batches":
            found = [self._batch_object(batch) for batch in self._store.batches_of("openai", entry.key)]
        else:
            found = [_file_object(file) for file in self._store.files_of(entry.key)]
        rest = pages.after(found, asked.get("after"), lambda one: str(one["id"]))
        data = rest[:limit]
        ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
        return json_reply({"object": "list", "data": data, "has_more": len(rest) > limit} | ends)

    def _batch_object(self, batch: SimulatedBatch) -> dict[str, Any]:
        self._make_result_files(batch)
        times, details = batch.times, batch.details
        has_cancel = "canceling" in times or batch.ending == "cancelled"
        return {
            "id": batch.id,
            "object": "batch",
            "endpoint": details["endpoint"],
            "model": batch.rows[0].body.get("model") if batch.rows else None,
            "errors": {"object": "list", "data": [_fault_object(one) for one in batch.faults]}
            if batch.faults
            else None,
            "input_file_id": details["input_file_id"],
            "completion_window": details["completion_window"],
            "status": state_of(batch),
            "output_file_id": details.get("output_file_id"),
            "error_file_id": details.get("error_file_id"),
            "created_at": batch.origin.wall,
            "in_progress_at": times.get("running"),
            "expires_at": batch.expires_at,
            "finalizing_at": times.get("finalizing"),
            "completed_at": times.get("completed") or times.get("partial"),
            "failed_at": times.get("failed"),
            "expired_at": times.get("expired"),
            "cancelling_at": times.get("canceling", times.get("cancelled")) if has_cancel else None,
            "cancelled_at": times.get("cancelled"),
            "request_counts": {
                "total": len(batch.rows),
                "completed": batch.succeeded,
                "failed": len(batch.answers) - batch.succeeded,
            },
            "usage": _usage_of(batch),
            "metadata": details.get("metadata"),
        }

    def _make_result_files(self, batch: SimulatedBatch) -> None:
        """Make the output file and the error file of a batch that has ended. Both are in another order than the input."""
        if not batch.is_ended or batch.details.get("has_files"):
            return
        batch.details["has_files"] = True
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for row, answer in reversed(batch.results()):
            if answer is not None:
                (done if answer.is_success else failed).append(_result_line(batch, row, answer))
            elif batch.ending == "expired":
                failed.append(_expired_line(batch, row))
        for name, lines in (("output_file_id", done), ("error_file_id", failed)):
            if lines:
                content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
                file_name = f"{batch.id}_{name.partition('_')[0]}.jsonl"
                at = batch.times["ended"]
                file = StoredFile(new_id("file-"), batch.origin.owner, file_name, "batch_output", content, at)
                self._store.put_file(file)
                batch.details[name] = file.id


def _result_line(batch: SimulatedBatch, row: SimulatedRow, answer: RowAnswer) -> dict[str, Any]:
    line = {"id": new_id("batch_req_"), "custom_id": row.custom_id}
    if answer.body is None:
        error = {"code": "server_error", "message": f"A request of {batch.id} failed."}
        return line | {"response": None, "error": error}
    response = {
        "status_code": answer.status,
        "request_id": new_id(""),
        "body": msgspec.Raw(answer.body),
    }
    return line | {"response": response, "error": None}


def _expired_line(batch: SimulatedBatch, row: SimulatedRow) -> dict[str, Any]:
    message = f"This request was not made before the completion window of {batch.id} ended."
    error = {"code": "batch_expired", "message": message}
    return {"id": new_id("batch_req_"), "custom_id": row.custom_id, "response": None, "error": error}


def _usage_of(batch: SimulatedBatch) -> dict[str, Any]:
    usage: dict[str, Any] = copy.deepcopy(_NO_USAGE)
    for answer in batch.answers:
        one = answer.usage
        usage["input_tokens"] += one.get("prompt_tokens") or one.get("input_tokens") or 0
        usage["output_tokens"] += one.get("completion_tokens") or one.get("output_tokens") or 0
    usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
    return usage


def _fault_object(fault: Any) -> dict[str, Any]:
    return {"code": fault.code, "message": fault.message, "param": fault.param, "line": fault.line}


def _file_object(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": len(file.content),
        "created_at": file.created_at,
        "expires_at": None,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def _no_batch(batch_id: str) -> Reply:
    return refused(404, f"No batch found with id '{batch_id}'.", "batch_id")
