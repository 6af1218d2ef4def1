"""Anthropic's batch API: one request with all requests of the batch.

A batch has no metadata. So a batch whose creation was not answered can only be found by its time and its number of
requests; its results show by the ids of the requests whether it is the one.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from headrace.wire.batch_messages import BatchesFound, BatchGroup, BatchPolled, ProviderAnswer
from headrace_workers.batches.batch_api import (
    BatchAccess,
    EncodedRows,
    count_in,
    object_in,
    objects_in,
    only,
    request_id,
    row_of_id,
    secretless,
    text_in,
)
from headrace_workers.batches.batch_http import file_pieces, unexpected
from headrace_workers.batches.upload_file import upload_file
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.wire_format import ProviderSettings, WireFormat

_PATH = "/v1/messages/batches"
_PAGE = 1000
_MOST_PAGES = 20
_BEFORE = 300.0
_AFTER = 3600.0
"""Seconds before and after the creation was asked for, in which the batch may have been created by the provider's clock."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Type of an error → the HTTP status that a live request gets with it."""


class _Result(msgspec.Struct):
    type: str = ""
    message: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()


class _Line(msgspec.Struct):
    result: _Result
    custom_id: Any = None


_decode = msgspec.json.Decoder(_Line).decode


class AnthropicBatches:
    """Anthropic's batch API. A batch may have several models; the headers of API version and betas are the batch's."""

    joined = staticmethod(only)

    def group(
        self,
        declared: WireFormat,
        sent: HttpRequest,
        model: str,
        settings: ProviderSettings,
    ) -> BatchGroup:
        """Return the group of a row: a batch has one API version, and one set of betas."""
        del model  # a batch may have several
        headers = secretless(sent.headers, "anthropic-")
        return BatchGroup(settings.name, "anthropic", declared.name, headers=headers)

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return the body of the live request."""
        return [sent.body]

    def upload(self, access: BatchAccess, rows: EncodedRows) -> str:  # noqa: ARG002
        """Do nothing: there is no file."""
        return ""

    def create(self, access: BatchAccess, rows: EncodedRows, file_id: str) -> str:  # noqa: ARG002
        """Create the batch with all its requests."""
        headers = [*access.headers, *access.group.headers, ("content-type", "application/json")]
        with upload_file(rows, _body(rows)) as file:
            made = access.http.send(access.api, access.url(_PATH), headers, file_pieces(file.path), file.size).json()
        batch_id = text_in(made.get("id"))
        if not batch_id:
            raise unexpected("the response is no batch: it has no id")
        return batch_id

    def find(self, access: BatchAccess, token: str, since: float, requests: int) -> BatchesFound:  # noqa: ARG002
        """Look through the list, the newest first, for batches of the right time and number of requests."""
        found: list[str] = []
        after = ""
        for _ in range(_MOST_PAGES):
            page = _get(access, f"{_PATH}?limit={_PAGE}" + (f"&after_id={after}" if after else ""))
            batches = objects_in(page.get("data"))
            found += [text_in(one.get("id")) for one in batches if _may_be(one, since, requests)]
            is_old = batches and all(_created_at(one) < since - _BEFORE for one in batches)
            after = text_in(page.get("last_id"))
            if not page.get("has_more") or not after or is_old:
                break
        return BatchesFound(0, found[::-1], are_certain=False)

    def poll(self, access: BatchAccess, batch_id: str) -> BatchPolled:
        """Get the batch."""
        batch = _get(access, f"{_PATH}/{batch_id}")
        counts = object_in(batch.get("request_counts"))
        status = text_in(batch.get("processing_status"))
        if not status:
            raise unexpected("the response is no batch: it has no processing_status")
        failed = sum(count_in(counts.get(name)) for name in ("errored", "canceled", "expired"))
        done = count_in(counts.get("succeeded"))
        return BatchPolled(0, "completed" if status == "ended" else "", done=done, failed=failed)

    def fetch(
        self,
        access: BatchAccess,
        batch_id: str,
        results: list[str],
        rows: EncodedRows,
    ) -> Iterator[ProviderAnswer | None]:
        """Read the results. Their address is not taken from the batch, so that the key goes to the provider only."""
        del results
        headers = [*access.headers, *_version(access)]
        with access.http.lines(access.api, access.url(f"{_PATH}/{batch_id}/results"), headers) as lines:
            for line in lines:
                yield answer_in(line, rows.token)

    def cancel(self, access: BatchAccess, batch_id: str) -> None:
        """Cancel the batch."""
        headers = [*access.headers, *_version(access)]
        access.http.call(access.api, "POST", access.url(f"{_PATH}/{batch_id}/cancel"), headers, b"")


def answer_in(line: bytes, token: str) -> ProviderAnswer | None:
    """Return the result in a line. None: it is not of a row with this token."""
    try:
        said = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise unexpected("a line of the results is not in the form of a batch") from None
    row = row_of_id(said.custom_id, token)
    if row is None:
        return None
    match said.result.type:
        case "succeeded":
            return ProviderAnswer(*row, body=bytes(said.result.message))
        case "expired":
            return ProviderAnswer(*row, outcome="expired")
        case "canceled":
            return ProviderAnswer(*row, outcome="cancelled")
        case _:
            body = bytes(said.result.error)
            return ProviderAnswer(*row, status_code=_status_of(body), body=body)


def _status_of(error: bytes) -> int:
    try:
        whole = object_in(msgspec.json.decode(error))
    except msgspec.DecodeError:
        return 500
    inner = object_in(whole.get("error")) or whole
    return _STATUS.get(text_in(inner.get("type")), 500)


def _body(rows: EncodedRows) -> Iterator[bytes]:
    comma = b'{"requests":['
    for row, bodies in rows.bodies():
        head = f'{{"custom_id":"{request_id(rows.token, row.number)}","params":'.encode()
        yield b"".join((comma, head, bodies[0], b"}"))
        comma = b",\n"
    yield b"]}"


def _may_be(batch: dict[str, Any], since: float, requests: int) -> bool:
    counts = object_in(batch.get("request_counts"))
    total = sum(count_in(value) for value in counts.values())
    return total == requests and since - _BEFORE <= _created_at(batch) <= since + _AFTER


def _created_at(batch: dict[str, Any]) -> float:
    try:
        return datetime.fromisoformat(text_in(batch.get("created_at"))).timestamp()
    except ValueError:
        return 0.0


def _version(access: BatchAccess) -> list[tuple[str, str]]:
    return [(name, value) for name, value in access.group.headers if name == "anthropic-version"]


def _get(access: BatchAccess, path: str) -> dict[str, Any]:
    headers = [*access.headers, *_version(access)]
    return access.http.call(access.api, "GET", access.url(path), headers).json()
