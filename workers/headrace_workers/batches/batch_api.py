"""BatchApi: what each batch API must do: encode rows, create, find, poll, fetch and cancel batches.

Also the parts that several of them share: ids of rows, and access to the provider.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec

from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import BatchesFound, BatchGroup, BatchPolled, ProviderAnswer
from headrace_workers.batches.batch_http import BatchCallError, BatchHttp, Headers
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.wire_format import (
    ProviderApi,
    ProviderFailure,
    ProviderSettings,
    WireFormat,
)

EARLIER = 3600.0
"""Seconds. The clocks of the provider and of this machine may differ by so much."""


class BatchAccess(msgspec.Struct, frozen=True):
    """How the calls about one batch reach the provider. ``headers`` hold the key."""

    http: BatchHttp
    settings: ProviderSettings
    api: ProviderApi
    headers: Headers
    group: BatchGroup

    def __repr__(self) -> str:
        return f"BatchAccess({self.group!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what a traceback may show: no key."""
        return [("group", self.group)]

    def url(self, path: str) -> str:
        """Return the URL of a path of the provider."""
        return self.settings.url(path)

    def get(self, path: str) -> dict[str, Any]:
        """Get an object."""
        return self.http.call(self.api, "GET", self.url(path), self.headers).json()

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Post an object, and return the answer."""
        headers = [*self.headers, ("content-type", "application/json")]
        encoded = b"" if body is None else msgspec.json.encode(body)
        return self.http.call(self.api, "POST", self.url(path), headers, encoded).json()


class EncodedRows(Protocol):
    """The rows of a batch, as the process encodes them when the batch is sent."""

    @property
    def token(self) -> str:
        """Marks the rows' ids, and the batch."""

    @property
    def count(self) -> int:
        """How many rows."""

    @property
    def place(self) -> Path:
        """A file name for what is uploaded. The file is removed afterwards."""

    def bodies(self) -> Iterator[tuple[StoredRow, list[bytes]]]:
        """Iterate the rows with the bodies of their requests, as JSON."""


class BatchApi(Protocol):
    """One batch API. The methods that talk to the provider raise BatchCallError."""

    def group(self, declared: WireFormat, sent: HttpRequest, model: str, settings: ProviderSettings) -> BatchGroup:
        """Return the group of a row with this live request."""

    def bodies(self, sent: HttpRequest) -> list[bytes]:
        """Return the bodies of the row's requests in a batch: one for most APIs."""

    def upload(self, access: BatchAccess, rows: EncodedRows) -> str:
        """Upload the rows. Return the id of the file."""

    def create(self, access: BatchAccess, rows: EncodedRows, file_id: str) -> str:
        """Create the batch. Return its id."""

    def find(self, access: BatchAccess, token: str, since: float, requests: int) -> BatchesFound:
        """Find the batches that may have been created with the token. See FindBatches."""

    def poll(self, access: BatchAccess, batch_id: str) -> BatchPolled:
        """Ask how far a batch is."""

    def fetch(
        self, access: BatchAccess, batch_id: str, results: list[str], rows: EncodedRows
    ) -> Iterator[ProviderAnswer | None]:
        """Iterate the results of a batch. None: a result that is not of these rows."""

    def cancel(self, access: BatchAccess, batch_id: str) -> None:
        """Cancel a batch."""

    def joined(self, answers: list[ProviderAnswer]) -> ProviderAnswer:
        """Return the answers to the requests of one row as the live API would answer the row."""


def request_id(token: str, number: int, index: int = 0, *, is_one_of_many: bool = False) -> str:
    """Return the id of a row's request in a batch. It has letters, digits and hyphens, 40 at most."""
    return f"{token}-{number}-{index}" if is_one_of_many else f"{token}-{number}"


def row_of_id(text: Any, token: str) -> tuple[int, int] | None:
    """Return the number of the row, and which of its requests it is. None for an id that does not have the token."""
    if not isinstance(text, str) or not text.startswith(f"{token}-"):
        return None
    number, _, index = text[len(token) + 1 :].partition("-")
    if not number.isdecimal() or not (index or "0").isdecimal():
        return None
    return int(number), int(index or "0")


def secretless(headers: tuple[tuple[str, str], ...], prefix: str) -> tuple[tuple[str, str], ...]:
    """Return the headers whose names begin with ``prefix``."""
    return tuple((name, value) for name, value in headers if name.lower().startswith(prefix))


def refused(reason: str, argument: str | None = None) -> BatchCallError:
    """Return the error for rows that cannot be sent. Nothing was sent."""
    return BatchCallError(ProviderFailure("invalid_request", reason, 400, argument=argument))


def only(answers: list[ProviderAnswer]) -> ProviderAnswer:
    """Return the answer of a row that has one request."""
    return answers[0]


def text_in(value: Any) -> str:
    """Return the value if it is a text, else an empty text."""
    return value if isinstance(value, str) else ""


def count_in(value: Any) -> int:
    """Return a count: a number, or digits in a text. 0 for all else."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if type(value) is int and value >= 0 else 0


def object_in(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def objects_in(value: Any) -> list[dict[str, Any]]:
    """Return the objects in a list; an empty list for all else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
