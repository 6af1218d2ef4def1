"""Simulates Gemini's batch API: ``batchGenerateContent``, ``asyncBatchEmbedContent``, and the operations of batches."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.testing.batches import pages
from headrace.testing.batches.batch_store import BatchStore, StoredFile, new_id
from headrace.testing.batches.google_batch_input import BadInputError, rows_of
from headrace.testing.batches.google_files import GENERATED
from headrace.testing.batches.simulated_batch import BatchOrigin, RowAnswer, SimulatedBatch, SimulatedRow
from headrace.testing.google.answer import error_body
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_log import LogEntry

_CREATE = re.compile(
    r"/(?P<version>v1|v1beta|v1alpha)/models/(?P<model>[^/:]+):(?P<method>batchGenerateContent|asyncBatchEmbedContent)"
)
_BATCH = re.compile(r"/(?P<version>v1|v1beta|v1alpha)/batches(?:/(?P<id>[^/:]+)(?P<verb>:cancel)?)?")
_TYPE = "type.googleapis.com/google.ai.generativelanguage.v1main."
_STATE_OF_PHASE = {"pending": "PENDING"}
_STATE_OF_ENDING = {"completed": "SUCCEEDED", "failed": "FAILED", "expired": "EXPIRED", "cancelled": "CANCELLED"}
_CANCELLED, _INTERNAL, _INVALID, _UNAVAILABLE = 1, 13, 3, 14  # google.rpc.Code
_CODES = {400: 3, 403: 7, 404: 5, 429: 8, 500: 13, 503: 14, 504: 4}


def takes(request: Request) -> bool:
    """Return whether a request is one of the API. OpenAI has ``/v1/batches`` too: the header of the key tells."""
    if _CREATE.fullmatch(request.path) is not None:
        return True
    is_openai = request.path.startswith("/v1/") and "x-goog-api-key" not in request.headers
    return not is_openai and _BATCH.fullmatch(request.path) is not None


def state_of(batch: SimulatedBatch) -> str:
    """Return the state of a batch. Only ``JOB_STATE_PARTIALLY_SUCCEEDED`` has another beginning, as the SDK knows it."""
    if batch.ending == "partial":
        return "JOB_STATE_PARTIALLY_SUCCEEDED"
    if batch.ending is not None:
        return f"BATCH_STATE_{_STATE_OF_ENDING[batch.ending]}"
    return f"BATCH_STATE_{_STATE_OF_PHASE.get(batch.phase, 'RUNNING')}"


class SimulatedGoogleBatches:
    """Answers requests about batches."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store

    def reply(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request with a valid key."""
        created = _CREATE.fullmatch(request.path)
        if created is not None:
            if request.method != "POST":
                return _refused(404, "Not found")
            is_embedding = created["method"] == "asyncBatchEmbedContent"
            return self._create(request, entry, wall_time, created["model"], is_embedding=is_embedding)
        match = _BATCH.fullmatch(request.path)
        if match is None:
            return _refused(404, "Not found")
        if match["id"] is None:
            return self._page(request, entry)
        batch = self._store.batch("google", f"batches/{match['id']}", entry.key)
        if batch is None:
            return _refused(404, f"The batch batches/{match['id']} does not exist.")
        return self._batch_reply(request.method, batch, match["verb"])

    def _batch_reply(self, method: str, batch: SimulatedBatch, verb: str | None) -> Reply:
        match method, verb:
            case "GET", None:
                return json_reply(self._operation(batch))
            case "POST", ":cancel":
                if batch.is_ended:
                    return _refused(400, f"{batch.id} has ended, and cannot be cancelled.", "FAILED_PRECONDITION")
                self._store.cancel(batch)
                return json_reply({})
            case "DELETE", None:
                self._store.remove(batch)
                return json_reply({})
            case _:
                return _refused(404, "Not found")

    def _create(self, request: Request, entry: LogEntry, wall_time: int, model: str, *, is_embedding: bool) -> Reply:
        if model == "no-such-model":
            return _refused(404, f"models/{model} is not found, or is not supported for batches.")
        try:
            body = entry.body = msgspec.json.decode(request.body)
            batch_of_body = pages.json_object(pages.json_object(body).get("batch"))
            details = _details(batch_of_body, model, is_embedding=is_embedding)
            config = pages.json_object(batch_of_body.get("inputConfig") or batch_of_body.get("input_config"))
            rows, faults = rows_of(config, request.path, lambda name: self._store.file(name, entry.key))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _refused(400, f"Invalid JSON payload received. {error}")
        except BadInputError as error:
            return _refused(400, str(error))
        details["is_inline"] = "requests" in config
        origin = BatchOrigin(entry.key, request.headers, entry.arrived_at, wall_time)
        batch = self._store.add("google", new_id("batches/"), origin, rows, details, faults)
        return json_reply(self._operation(batch))

    def _page(self, request: Request, entry: LogEntry) -> Reply:
        asked = pages.parameters(request.query)
        limit = pages.limit_of(asked.get("pageSize"), 50, 1000)
        if request.method != "GET" or limit is None:
            return _refused(400, "pageSize must be a number from 1 to 1000.")
        rest = pages.after(self._store.batches_of("google", entry.key), asked.get("pageToken"), lambda batch: batch.id)
        found = rest[:limit]
        page: dict[str, Any] = {"operations": [self._operation(batch, is_in_list=True) for batch in found]}
        return json_reply(page | ({"nextPageToken": found[-1].id} if len(rest) > limit else {}))

    def _operation(self, batch: SimulatedBatch, *, is_in_list: bool = False) -> dict[str, Any]:
        output = self._output(batch, is_in_list=is_in_list)
        metadata = _metadata(batch) | ({"output": output} if output else {})
        operation: dict[str, Any] = {"name": batch.id, "metadata": metadata}
        if batch.is_ended:
            operation["done"] = True
            operation |= _ending_of(batch, output)
        return operation

    def _output(self, batch: SimulatedBatch, *, is_in_list: bool) -> dict[str, Any]:
        """Return where the results are. A list has no inline results; a batch that failed or expired has none at all."""
        if batch.ending not in {"completed", "cancelled", "partial"}:
            return {}
        if batch.details["is_inline"]:
            if is_in_list:
                return {}
            return {"inlinedResponses": {"inlinedResponses": [_inline(batch, *one) for one in batch.results()]}}
        if "file" not in batch.details:
            lines = [_line(batch, *one) for one in reversed(batch.results()) if one[1] is not None]
            content = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
            name = new_id("files/batch-")[:24]
            file = StoredFile(
                name, batch.origin.owner, "", GENERATED, content, batch.times["ended"], "application/jsonl"
            )
            self._store.put_file(file)
            batch.details["file"] = file.id
        return {"responsesFile": batch.details["file"]}


def _details(batch: dict[str, Any], model: str, *, is_embedding: bool) -> dict[str, Any]:
    name = batch.get("displayName", batch.get("display_name"))
    if not isinstance(name, str) or not name:
        raise BadInputError("batch.display_name: is required.")
    return {"displayName": name, "model": f"models/{model}", "is_embedding": is_embedding}


def _metadata(batch: SimulatedBatch) -> dict[str, Any]:
    times = batch.times
    kind = "EmbedContentBatch" if batch.details["is_embedding"] else "GenerateContentBatch"
    stats: dict[str, int] = {
        "requestCount": len(batch.rows),
        "successfulRequestCount": batch.succeeded,
        "failedRequestCount": len(batch.answers) - batch.succeeded,
        "pendingRequestCount": len(batch.rows) - len(batch.answers),
    }
    metadata: dict[str, Any] = {
        "@type": _TYPE + kind,
        "model": batch.details["model"],
        "displayName": batch.details["displayName"],
        "createTime": pages.timestamp(batch.origin.wall),
        "updateTime": pages.timestamp(max(times.values())),
        "batchStats": {name: str(count) for name, count in stats.items() if count},
        "state": state_of(batch),
        "name": batch.id,
    }
    return metadata | ({"endTime": pages.timestamp(times["ended"])} if batch.is_ended else {})


def _ending_of(batch: SimulatedBatch, output: dict[str, Any]) -> dict[str, Any]:
    if batch.ending in {"completed", "partial"}:
        kind = "EmbedContentBatchOutput" if batch.details["is_embedding"] else "GenerateContentBatchOutput"
        return {"response": {"@type": _TYPE + kind} | output}
    if batch.ending == "cancelled":
        return {"error": {"code": _CANCELLED, "message": "The batch was cancelled."}}
    message = batch.faults[0].message if batch.faults else f"The batch has ended: {batch.ending}."
    return {"error": {"code": _INVALID if batch.faults else _INTERNAL, "message": message}}


def _line(batch: SimulatedBatch, row: SimulatedRow, answer: RowAnswer | None) -> dict[str, Any]:
    return _result(batch, answer) | {"key": row.custom_id}


def _inline(batch: SimulatedBatch, row: SimulatedRow, answer: RowAnswer | None) -> dict[str, Any]:
    """Return one element of the inline results. They are in the order of the input, so each request has one."""
    return _result(batch, answer) | ({"metadata": row.metadata} if row.metadata is not None else {})


def _result(batch: SimulatedBatch, answer: RowAnswer | None) -> dict[str, Any]:
    if answer is None:
        code, reason = (_CANCELLED, "cancelled") if batch.ending == "cancelled" else (_UNAVAILABLE, "not answered")
        return {"error": {"code": code, "message": f"The request was {reason}."}}
    if answer.body is None:
        return {"error": {"code": _INTERNAL, "message": "An internal error has occurred."}}
    if not answer.is_success:
        told = pages.json_object(pages.json_object(msgspec.json.decode(answer.body)).get("error"))
        code = _CODES.get(answer.status, _INTERNAL)
        error = {"code": code, "message": told.get("message", "The request failed.")}
        return {"error": error | ({"details": told["details"]} if told.get("details") else {})}
    if batch.details["is_embedding"]:
        answered = msgspec.json.decode(answer.body)
        return {"response": {"embedding": answered["embeddings"][0], "tokenCount": answer.usage["promptTokenCount"]}}
    return {"response": msgspec.Raw(answer.body)}


def _refused(status: int, message: str, word: str | None = None) -> Reply:
    return json_reply(error_body(message, status, word), status)
