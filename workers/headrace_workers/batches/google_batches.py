"""Google's batch API: the requests inline, or in an uploaded file; also for embeddings, one text a request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from headrace.wire.batch_messages import BatchEnd, BatchesFound, BatchGroup, BatchPolled, BatchProblem, ProviderAnswer
from headrace_workers.batches.batch_api import (
    EARLIER,
    BatchAccess,
    EncodedRows,
    count_in,
    object_in,
    objects_in,
    only,
    request_id,
    row_of_id,
    text_in,
)
from headrace_workers.batches.batch_http import unexpected
from headrace_workers.batches.upload_file import UploadFile, upload_file
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.google.request import API_VERSION
from headrace_workers.providers.shared.wire_format import ProviderSettings, WireFormat

_PIECE = 8 * 1024 * 1024
"""Bytes of one piece of an upload; all but the last must be a multiple of 256 KiB."""
_PAGE = 100
_MOST_PAGES = 100
_INLINE = "inline"
_ENDS: dict[str, BatchEnd] = {
    "SUCCEEDED": "completed",
    "PARTIALLY_SUCCEEDED": "completed",
    "FAILED": "failed",
    "CANCELLED": "cancelled",
    "EXPIRED": "expired",
}
_CANCELLED = 1
_ERRORS: dict[int, tuple[int, str]] = {
    1: (499, "CANCELLED"),
    2: (500, "UNKNOWN"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    12: (501, "UNIMPLEMENTED"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    16: (401, "UNAUTHENTICATED"),
}
"""Code of an error in results (google.rpc.Code) → the HTTP status and the word that a live request gets."""


class _Line(msgspec.Struct):
    response: msgspec.Raw = msgspec.Raw()
    error: Any = None
    key: Any = None
    metadata: Any = None
    code: Any = None
    message: Any = None
    details: Any = None


_decode = msgspec.json.Decoder(_Line).decode
_decode_many = msgspec.json.Decoder(list[_Line]).decode


class _Operation(msgspec.Struct):
    """The parts of a batch where its inline results may be."""

    metadata: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()


class GoogleBatches:
    """Google's batch API. The token is the batch's display name."""

    is_embeddings = False
    _method = "batchGenerateContent"

    def group(self, declared: WireFormat, sent: HttpRequest, model: str, settings: ProviderSettings) -> BatchGroup:
        """Return the group of a row: a batch has one model."""
        del sent
        name = model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"
        api = "google-embeddings" if self.is_embeddings else "google"
        return BatchGroup(settings.name, api, declared.name, model=name)  # type: ignore[arg-type]

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return the body of the live request."""
        return [sent.body]

    def upload(self, access: BatchAccess, rows: EncodedRows) -> str:
        """Upload the requests as a file, in pieces."""
        with upload_file(rows, self._lines(rows)) as file:
            url = _begin_upload(access, rows.token, file)
            return _send_pieces(access, url, file)

    def create(self, access: BatchAccess, rows: EncodedRows, file_id: str) -> str:
        """Create the batch, of an uploaded file or with its requests inline."""
        config: dict[str, Any] = {"fileName": file_id} if file_id else {"requests": {"requests": self._inline(rows)}}
        path = f"/{API_VERSION}/{quote(access.group.model, safe='/')}:{self._method}"
        made = access.post(path, {"batch": {"displayName": rows.token, "inputConfig": config}})
        name = text_in(made.get("name")) or text_in(object_in(made.get("metadata")).get("name"))
        if not name:
            raise unexpected("the response is no batch: it has no name")
        return name

    def find(self, access: BatchAccess, token: str, since: float, requests: int) -> BatchesFound:  # noqa: ARG002
        """Look through the list for the token as the display name."""
        found: list[str] = []
        page_token = ""
        for _ in range(_MOST_PAGES):
            more = f"&pageToken={quote(page_token, safe='')}" if page_token else ""
            page = access.get(f"/{API_VERSION}/batches?pageSize={_PAGE}{more}")
            batches = objects_in(page.get("operations"))
            found += [text_in(one.get("name")) for one in batches if _name_of(one) == token]
            is_old = batches and all(_created_at(one) < since - EARLIER for one in batches)
            page_token = text_in(page.get("nextPageToken"))
            if not page_token or is_old:
                break
        return BatchesFound(0, found[::-1], are_certain=True)

    def poll(self, access: BatchAccess, batch_id: str) -> BatchPolled:
        """Get the batch."""
        return polled(access.get(f"/{API_VERSION}/{batch_id}"))

    def fetch(
        self, access: BatchAccess, batch_id: str, results: list[str], rows: EncodedRows
    ) -> Iterator[ProviderAnswer | None]:
        """Read the results: of their file, or from the batch itself."""
        for place in results:
            if place == _INLINE:
                yield from self._inline_answers(access, batch_id, rows)
                continue
            url = access.url(f"/{API_VERSION}/{place}:download?alt=media")
            with access.http.lines(access.api, url, access.headers) as lines:
                for line in lines:
                    try:
                        said = _decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                        raise unexpected("a line of the results is not in the form of a batch") from None
                    yield _answer(said, row_of_id(said.key, rows.token))

    def cancel(self, access: BatchAccess, batch_id: str) -> None:
        """Cancel the batch."""
        access.post(f"/{API_VERSION}/{batch_id}:cancel")

    def joined(self, answers: list[ProviderAnswer]) -> ProviderAnswer:
        """Return the answer of a row."""
        return only(answers)

    def _lines(self, rows: EncodedRows) -> Iterator[bytes]:
        for name, body in self._requests(rows):
            yield b"".join((b'{"key":"', name.encode(), b'","request":', body, b"}\n"))

    def _inline(self, rows: EncodedRows) -> list[dict[str, Any]]:
        return [{"request": msgspec.Raw(body), "metadata": {"key": name}} for name, body in self._requests(rows)]

    def _requests(self, rows: EncodedRows) -> Iterator[tuple[str, bytes]]:
        for row, bodies in rows.bodies():
            for index, body in enumerate(bodies):
                yield request_id(rows.token, row.number, index, is_one_of_many=self.is_embeddings), body

    def _inline_answers(self, access: BatchAccess, batch_id: str, rows: EncodedRows) -> Iterator[ProviderAnswer | None]:
        said = _inline_lines(access.http.call(
            access.api, "GET", access.url(f"/{API_VERSION}/{batch_id}"), access.headers
        ).body)  # fmt: skip
        keys = [object_in(line.metadata).get("key") for line in said]
        if not any(keys):  # then the order tells
            keys = [name for name, _ in self._requests(rows)]
        for line, key in zip(said, keys, strict=False):
            yield _answer(line, row_of_id(key, rows.token))


class GoogleEmbeddingBatches(GoogleBatches):
    """Google's batches of embeddings: each text of a row is a request of its own."""

    is_embeddings = True
    _method = "asyncBatchEmbedContent"

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return one body for each text of the row."""
        whole = msgspec.json.decode(sent.body, type=dict[str, list[msgspec.Raw]])
        return [bytes(one) for one in whole["requests"]]

    def joined(self, answers: list[ProviderAnswer]) -> ProviderAnswer:
        """Return the vectors of a row's texts as one answer; the first error, if there is one."""
        answers = sorted(answers, key=lambda answer: answer.index)
        for answer in answers:
            if answer.outcome != "answered" or answer.status_code != 200:  # noqa: PLR2004
                return answer
        said = [msgspec.json.decode(answer.body, type=dict[str, Any]) for answer in answers]
        tokens = sum(count_in(one.get("tokenCount")) for one in said)
        body: dict[str, Any] = {"embeddings": [object_in(one.get("embedding")) for one in said]}
        if tokens:
            body["usageMetadata"] = {"promptTokenCount": tokens, "totalTokenCount": tokens}
        return msgspec.structs.replace(answers[0], body=msgspec.json.encode(body))


def polled(operation: dict[str, Any]) -> BatchPolled:
    """Return how far a batch is."""
    metadata = object_in(operation.get("metadata"))
    state = text_in(metadata.get("state")).rpartition("STATE_")[2]
    if not state:
        raise unexpected("the response is no batch: it has no state")
    stats = object_in(metadata.get("batchStats"))
    output = object_in(metadata.get("output")) or object_in(operation.get("response"))
    results = [text_in(output.get("responsesFile")) or _INLINE] if output else []
    error = object_in(operation.get("error")) or object_in(metadata.get("error"))
    end = _ENDS.get(state, "")
    return BatchPolled(
        0,
        end,
        done=count_in(stats.get("successfulRequestCount")),
        failed=count_in(stats.get("failedRequestCount")),
        results=results,
        problems=[_problem(error)] if error and end == "failed" else [],
    )


def _problem(error: dict[str, Any]) -> BatchProblem:
    _, word = _ERRORS.get(count_in(error.get("code")), (500, "INTERNAL"))
    return BatchProblem(text_in(error.get("message")) or "the provider failed the batch", word)


def _answer(said: _Line, row: tuple[int, int] | None) -> ProviderAnswer | None:
    if row is None:
        return None
    if bytes(said.response):
        return ProviderAnswer(*row, body=bytes(said.response))
    error = object_in(said.error) or {"code": said.code, "message": said.message, "details": said.details}
    code = count_in(error.get("code"))
    if code == _CANCELLED:
        return ProviderAnswer(*row, outcome="cancelled")
    status, word = _ERRORS.get(code, (500, "INTERNAL"))
    told = {"code": status, "message": text_in(error.get("message")), "status": word}
    if isinstance(error.get("details"), list):
        told["details"] = error["details"]
    return ProviderAnswer(*row, status_code=status, body=msgspec.json.encode({"error": told}))


def _inline_lines(body: bytes) -> list[_Line]:
    try:
        operation = msgspec.json.decode(body, type=_Operation)
        metadata = bytes(operation.metadata)
        output = msgspec.json.decode(metadata, type=dict[str, msgspec.Raw]).get("output") if metadata else None
        return _lines_in(bytes(output or operation.response))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unexpected("the results of the batch are not in the form of a batch") from None


def _lines_in(output: bytes) -> list[_Line]:
    """Return the results in ``{"inlinedResponses": {"inlinedResponses": […]}}``; embeddings have another first name."""
    for name, inner in msgspec.json.decode(output or b"{}", type=dict[str, msgspec.Raw]).items():
        if name.startswith("inlined"):
            found = msgspec.json.decode(bytes(inner), type=dict[str, msgspec.Raw]).get("inlinedResponses")
            return _decode_many(bytes(found)) if found is not None else []
    return []


def _name_of(operation: dict[str, Any]) -> str:
    return text_in(object_in(operation.get("metadata")).get("displayName"))


def _created_at(operation: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(text_in(object_in(operation.get("metadata")).get("createTime"))).timestamp()
    except ValueError:
        return float("inf")


def _begin_upload(access: BatchAccess, token: str, file: UploadFile) -> str:
    """Begin a resumable upload. Return the address for its pieces."""
    headers = [
        *access.headers,
        ("content-type", "application/json"),
        ("x-goog-upload-protocol", "resumable"),
        ("x-goog-upload-command", "start"),
        ("x-goog-upload-header-content-length", str(file.size)),
        ("x-goog-upload-header-content-type", "application/jsonl"),
    ]
    body = msgspec.json.encode({"file": {"displayName": token, "mimeType": "application/jsonl"}})
    begun = access.http.call(access.api, "POST", access.url(f"/upload/{API_VERSION}/files"), headers, body)
    url = begun.headers.get("x-goog-upload-url", "")
    if urlsplit(url).scheme not in {"http", "https"}:
        raise unexpected("the provider began no upload: its answer has no x-goog-upload-url")
    return url


def _send_pieces(access: BatchAccess, url: str, file: UploadFile) -> str:
    """Send a file to the address of an upload, which needs no key. Return the file's name."""
    offset = 0
    with Path(file.path).open("rb") as source:
        while True:
            piece = source.read(_PIECE)
            is_last = offset + len(piece) >= file.size
            headers = [
                ("x-goog-upload-offset", str(offset)),
                ("x-goog-upload-command", "upload, finalize" if is_last else "upload"),
            ]
            reply = access.http.call(access.api, "POST", url, headers, piece)
            offset += len(piece)
            if is_last:
                break
    name = text_in(object_in(reply.json().get("file")).get("name"))
    if reply.headers.get("x-goog-upload-status", "final") != "final" or not name:
        raise unexpected("the upload has no end: the provider names no file")
    return name
