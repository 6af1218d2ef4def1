"""Reads and writes recordings: a folder for each request of a provider, with its answer byte for byte.

The files of a folder:

* ``request.json``: method, host, path, headers and the JSON body of the request.
* ``response.json``: the status, and a list of headers.
* ``body``: the bytes of the response's body.
* ``chunks.json``: the lengths of the pieces in which the body arrived. May be missing.
* ``meta.json``: the wire format, the model, how the answer ended, and a checksum. Not read, except ``ending``.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from headrace.testing.recording.endpoints import RecordedEndpoint, endpoint_of

Ending = Literal["complete", "cut", "closed_by_client"]

_NUMBER = re.compile(r"(\d+)-")
_NOT_IN_NAME = re.compile(r"[^0-9A-Za-z._-]+")
_EVENT_END = re.compile(rb"(?<=\n\n)|(?<=\r\n\r\n)")


class RecordingError(ValueError):
    """A folder has no recording that can be used."""


class RecordedRequest(msgspec.Struct, frozen=True):
    """A request, without keys. ``path`` has the query. ``body`` is None if it was no JSON, or was not kept."""

    method: str
    host: str
    path: str
    headers: dict[str, str] = {}
    body: Any = None

    @property
    def endpoint(self) -> RecordedEndpoint:
        """The API that the request is for."""
        return endpoint_of(self.path.partition("?")[0])

    @property
    def model(self) -> str | None:
        """The model's name, if the request has it."""
        named = self.body.get("model") if isinstance(self.body, dict) else None
        return named if isinstance(named, str) else self.endpoint.model


class RecordedResponse(msgspec.Struct, frozen=True):
    """The head of a response."""

    status: int
    headers: list[tuple[str, str]] = []


class RecordedExchange(msgspec.Struct, frozen=True):
    """A request, and its answer. ``pieces`` are those in which the body arrived."""

    name: str
    request: RecordedRequest
    response: RecordedResponse
    pieces: list[bytes]
    ending: Ending = "complete"

    @property
    def body(self) -> bytes:
        """The bytes of the body."""
        return b"".join(self.pieces)


class _Meta(msgspec.Struct, frozen=True):
    ending: Ending = "complete"


def read_recordings(folder: Path) -> list[RecordedExchange]:
    """Return the recordings below a folder, in the order of their names; or the one recording in it.

    Raises RecordingError if there is none, or if one cannot be read.
    """
    if (folder / "request.json").exists():
        return [_read(folder)]
    if not folder.is_dir():
        raise RecordingError(f"{folder}: there is no such folder; `headrace record {folder}` makes one")
    found = [_read(inner) for inner in sorted(folder.iterdir()) if (inner / "request.json").exists()]
    if not found:
        raise RecordingError(f"{folder}: there is no recording in it; `headrace record {folder}` makes some")
    return found


def _read(folder: Path) -> RecordedExchange:
    try:
        request = _decoded(folder / "request.json", RecordedRequest)
        response = _decoded(folder / "response.json", RecordedResponse)
        body = (folder / "body").read_bytes()
        lengths = folder / "chunks.json"
        reads = _decoded(lengths, list[int]) if lengths.exists() else None
        meta = folder / "meta.json"
        ending: Ending = _decoded(meta, _Meta).ending if meta.exists() else "complete"
    except OSError as error:
        raise RecordingError(f"{error.filename or folder}: {error.strerror or error}") from None
    pieces = _cut(body, reads) if reads is not None else [piece for piece in _EVENT_END.split(body) if piece]
    return RecordedExchange(folder.name, request, response, pieces, ending)


def _decoded(path: Path, kind: Any) -> Any:
    try:
        # Not msgspec's reader: a body may have integers of any size, and halves of characters.
        return msgspec.convert(json.loads(path.read_bytes()), kind)
    except (msgspec.ValidationError, ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: {error}") from None


def _cut(body: bytes, lengths: list[int]) -> list[bytes]:
    pieces: list[bytes] = []
    for length in lengths:
        pieces.append(body[:length])
        body = body[length:]
    return [piece for piece in (*pieces, body) if piece]


def next_number(folder: Path) -> int:
    """Return the number of the next recording in a folder: one more than the highest."""
    numbers = [int(found[1]) for inner in folder.iterdir() if (found := _NUMBER.match(inner.name))]
    return max(numbers, default=0) + 1


def name_of(number: int, request: RecordedRequest) -> str:
    """Return the name of a recording, such as ``0003-openai-chat-gpt-4o``."""
    words = [f"{number:04d}", request.endpoint.wire.replace(".", "-"), request.model or ""]
    return _NOT_IN_NAME.sub("-", "-".join(word for word in words if word))[:100].rstrip("-")


def write_recording(folder: Path, exchange: RecordedExchange, facts: dict[str, Any]) -> None:
    """Write a recording into a new folder below ``folder``. ``facts`` go into ``meta.json`` too."""
    own = folder / exchange.name
    own.mkdir(parents=True)
    (own / "request.json").write_bytes(_json(msgspec.structs.asdict(exchange.request)))
    (own / "response.json").write_bytes(_json(msgspec.structs.asdict(exchange.response)))
    (own / "body").write_bytes(exchange.body)
    (own / "chunks.json").write_bytes(json.dumps([len(piece) for piece in exchange.pieces]).encode())
    meta = {
        "name": exchange.name,
        "wire": exchange.request.endpoint.wire,
        "model": exchange.request.model,
        "status": exchange.response.status,
        "bytes": len(exchange.body),
        "sha256": hashlib.sha256(exchange.body).hexdigest(),
        "ending": exchange.ending,
    }
    (own / "meta.json").write_bytes(_json(meta | facts))


def _json(value: object) -> bytes:
    try:
        return json.dumps(value, indent=1, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a character, which JSON can escape
        return json.dumps(value, indent=1).encode() + b"\n"
