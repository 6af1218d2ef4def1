"""OpenAI's batch API: a file of requests, and a batch of it. Also for servers that are compatible with it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from itertools import chain
from typing import Any

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
from headrace_workers.batches.batch_http import file_pieces, unexpected
from headrace_workers.batches.upload_file import upload_file
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.wire_format import ProviderSettings, WireFormat

_TOKEN = "headrace_token"  # noqa: S105 - the name of a metadata field
_ENDPOINTS = ("/chat/completions", "/responses", "/embeddings")
_ENDS: dict[str, BatchEnd] = {
    "completed": "completed",
    "failed": "failed",
    "expired": "expired",
    "cancelled": "cancelled",
}
_PAGE = 100
_MOST_PAGES = 200


class _Response(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw()
    status_code: int = 200
    request_id: Any = None


class _Line(msgspec.Struct):
    custom_id: Any = None
    response: _Response | None = None
    error: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class OpenAIBatches:
    """OpenAI's batch API. The token is in the batch's metadata."""

    joined = staticmethod(only)

    def group(self, declared: WireFormat, sent: HttpRequest, model: str, settings: ProviderSettings) -> BatchGroup:
        """Return the group of a row: a batch has one endpoint and one model."""
        path = sent.url.partition("?")[0]
        endpoint = next(end for end in _ENDPOINTS if path.endswith(end))
        return BatchGroup(settings.name, "openai", declared.name, f"/v1{endpoint}", model)

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return the body of the live request."""
        return [sent.body]

    def upload(self, access: BatchAccess, rows: EncodedRows) -> str:
        """Upload the requests as a file with the purpose ``batch``."""
        boundary = secrets.token_hex(16)
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--{boundary}\r\n'
            f'Content-Disposition: form-data; name="file"; filename="{rows.token}.jsonl"\r\n'
            "Content-Type: application/jsonl\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = [*access.headers, ("content-type", f"multipart/form-data; boundary={boundary}")]
        with upload_file(rows, _lines(rows, access.group)) as file:
            pieces = chain((head,), file_pieces(file.path), (tail,))
            length = len(head) + file.size + len(tail)
            made = access.http.send(access.api, access.url("/files"), headers, pieces, length).json()
        return _id_of(made, "file")

    def create(self, access: BatchAccess, rows: EncodedRows, file_id: str) -> str:
        """Create the batch of an uploaded file."""
        body = {
            "input_file_id": file_id,
            "endpoint": access.group.endpoint,
            "completion_window": "24h",
            "metadata": {_TOKEN: rows.token},
        }
        return _id_of(access.post("/batches", body), "batch")

    def find(self, access: BatchAccess, token: str, since: float, requests: int) -> BatchesFound:  # noqa: ARG002
        """Look through the list, the newest first, for the token in the metadata."""
        found: list[str] = []
        after = ""
        for _ in range(_MOST_PAGES):
            page = access.get(f"/batches?limit={_PAGE}" + (f"&after={after}" if after else ""))
            batches = objects_in(page.get("data"))
            found += [one["id"] for one in batches if object_in(one.get("metadata")).get(_TOKEN) == token]
            is_old = batches and all(count_in(one.get("created_at")) < since - EARLIER for one in batches)
            after = text_in(batches[-1].get("id")) if batches else ""
            if not page.get("has_more") or not after or is_old:
                break
        return BatchesFound(0, found[::-1], are_certain=True)

    def poll(self, access: BatchAccess, batch_id: str) -> BatchPolled:
        """Get the batch."""
        return polled(access.get(f"/batches/{batch_id}"))

    def fetch(
        self,
        access: BatchAccess,
        batch_id: str,
        results: list[str],
        rows: EncodedRows,
    ) -> Iterator[ProviderAnswer | None]:
        """Read the output file and the error file."""
        del batch_id
        for file_id in results:
            with access.http.lines(access.api, access.url(f"/files/{file_id}/content"), access.headers) as lines:
                for line in lines:
                    yield answer_in(line, rows.token)

    def cancel(self, access: BatchAccess, batch_id: str) -> None:
        """Cancel the batch."""
        access.post(f"/batches/{batch_id}/cancel")


def polled(batch: dict[str, Any]) -> BatchPolled:
    """Return how far a batch is."""
    counts = object_in(batch.get("request_counts"))
    status = text_in(batch.get("status"))
    if not status:
        raise unexpected("the response is no batch: it has no status")
    problems = objects_in(object_in(batch.get("errors")).get("data"))
    return BatchPolled(
        0,
        _ENDS.get(status, ""),
        done=count_in(counts.get("completed")),
        failed=count_in(counts.get("failed")),
        results=[batch[name] for name in ("output_file_id", "error_file_id") if text_in(batch.get(name))],
        problems=[_problem(one) for one in problems],
    )


def answer_in(line: bytes, token: str) -> ProviderAnswer | None:
    """Return the result in a line of an output file or an error file. None: it is not of a row with this token."""
    try:
        said = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unexpected("a line of the results is not in the form of a batch") from None
    row = row_of_id(said.custom_id, token)
    if row is None:
        return None
    response = said.response
    if response is not None and bytes(response.body):
        return ProviderAnswer(
            *row, status_code=response.status_code, request_id=text_in(response.request_id), body=bytes(response.body)
        )
    error = object_in(said.error)
    match text_in(error.get("code")):
        case "batch_expired":
            return ProviderAnswer(*row, outcome="expired")
        case "batch_cancelled":
            return ProviderAnswer(*row, outcome="cancelled")
        case _:
            told = {"type": "server_error", **{name: value for name, value in error.items() if value is not None}}
            return ProviderAnswer(*row, status_code=500, body=msgspec.json.encode({"error": told}))


def _lines(rows: EncodedRows, group: BatchGroup) -> Iterator[bytes]:
    url = msgspec.json.encode(group.endpoint).decode()
    for row, bodies in rows.bodies():
        head = f'{{"custom_id":"{request_id(rows.token, row.number)}","method":"POST","url":{url},"body":'
        yield b"".join((head.encode(), bodies[0], b"}\n"))


def _problem(one: dict[str, Any]) -> BatchProblem:
    line = one.get("line")
    return BatchProblem(
        text_in(one.get("message")) or "the provider failed the batch",
        text_in(one.get("code")),
        line if type(line) is int else None,
        text_in(one.get("param")) or None,
    )


def _id_of(made: dict[str, Any], what: str) -> str:
    made_id = text_in(made.get("id"))
    if not made_id:
        raise unexpected(f"the response is no {what}: it has no id")
    return made_id
