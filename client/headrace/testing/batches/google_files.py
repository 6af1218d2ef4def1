"""Simulates Gemini's files: resumable uploads, and downloads of results."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import msgspec

from headrace.testing.batches import pages
from headrace.testing.batches.batch_store import BatchStore, StoredFile, new_id
from headrace.testing.google.answer import error_body
from headrace.testing.shared.http_request import Request
from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_log import LogEntry

_UPLOAD = re.compile(r"/upload/(?P<version>v1|v1beta|v1alpha)/files")
_FILE = re.compile(r"/(?P<version>v1|v1beta|v1alpha)/files/(?P<id>[^/:]+)(?P<verb>:download)?")
_UPLOADED = "UPLOADED"
GENERATED = "GENERATED"
"""The source of a file that Google made: only such a file can be downloaded."""

_LIFE = 48 * 3600  # seconds


def takes(path: str) -> bool:
    """Return whether this is a path of the API."""
    return _UPLOAD.fullmatch(path) is not None or _FILE.fullmatch(path) is not None


def is_upload(request: Request) -> bool:
    """Return whether a request has bytes of an upload that was started: its address stands for the key."""
    return _UPLOAD.fullmatch(request.path) is not None and "upload_id" in pages.parameters(request.query)


class _Upload:
    """An upload that was started. ``owner``: the hash of the key of its first request."""

    def __init__(self, owner: str, file_id: str, name: str, media_type: str, size: int | None) -> None:
        self.owner = owner
        self.file_id = file_id
        self.name = name
        self.media_type = media_type
        self.size = size
        self.received = bytearray()


class GoogleFiles:
    """Answers requests about files."""

    def __init__(self, store: BatchStore) -> None:
        self._store = store
        self._uploads: dict[str, _Upload] = {}

    def reply(self, request: Request, entry: LogEntry, wall_time: int) -> Reply:
        """Return the reply to a request with a valid key, or to the bytes of an upload."""
        if is_upload(request):
            return self._receive(request, wall_time)
        if _UPLOAD.fullmatch(request.path) is not None:
            return self._start(request, entry)
        match = _FILE.fullmatch(request.path)
        file = None if match is None else self._store.file(f"files/{match['id']}", entry.key)
        if match is None or file is None:
            message = "You do not have permission to access this file, or it does not exist."
            return json_reply(error_body(message, 403), 403)
        return self._file_reply(request, file, is_download=match["verb"] is not None)

    def _file_reply(self, request: Request, file: StoredFile, *, is_download: bool) -> Reply:
        if is_download:
            if file.purpose != GENERATED:
                return _invalid(f"Only generated files can be downloaded, and {file.id} was uploaded.")
            return pages.bytes_reply(file.content, "application/octet-stream")
        if request.method == "DELETE":
            self._store.remove_file(file)
            return json_reply({})
        return json_reply(file_object(file, request))

    def _start(self, request: Request, entry: LogEntry) -> Reply:
        headers = request.headers
        if headers.get("x-goog-upload-protocol") != "resumable" or headers.get("x-goog-upload-command") != "start":
            return _invalid(
                "Start a resumable upload: X-Goog-Upload-Protocol: resumable, X-Goog-Upload-Command: start."
            )
        try:
            entry.body = msgspec.json.decode(request.body) if request.body else {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _invalid(f"Invalid JSON payload received. {error}")
        described = pages.json_object(pages.json_object(entry.body).get("file"))
        length = headers.get("x-goog-upload-header-content-length", "")
        upload_id = new_id("")
        self._uploads[upload_id] = _Upload(
            entry.key,
            str(described.get("name") or new_id("files/")[:18]),
            str(described.get("displayName") or described.get("display_name") or ""),
            headers.get("x-goog-upload-header-content-type", "application/octet-stream"),
            int(length) if length.isascii() and length.isdigit() else None,
        )
        address = f"{pages.host_of(headers)}{request.path}?upload_id={upload_id}&upload_protocol=resumable"
        told = {"x-goog-upload-status": "active", "x-goog-upload-url": address}
        return pages.bytes_reply(b"", "text/plain; charset=utf-8", told)

    def _receive(self, request: Request, wall_time: int) -> Reply:
        upload_id = pages.parameters(request.query)["upload_id"]
        upload = self._uploads.get(upload_id)
        if upload is None:
            return json_reply(error_body("This upload does not exist.", 404), 404)
        commands = {word.strip() for word in request.headers.get("x-goog-upload-command", "").split(",")}
        active = {"x-goog-upload-status": "active", "x-goog-upload-size-received": str(len(upload.received))}
        if commands == {"query"}:
            return pages.bytes_reply(b"", "text/plain; charset=utf-8", active)
        if "upload" in commands:
            if request.headers.get("x-goog-upload-offset") != str(len(upload.received)):
                return _invalid(f"The offset must be {len(upload.received)}: so many bytes have come.", active)
            upload.received += request.body
        if "finalize" not in commands:
            return pages.bytes_reply(b"", "text/plain; charset=utf-8", active)
        if upload.size is not None and len(upload.received) != upload.size:
            return _invalid(f"The upload has {len(upload.received)} bytes, but {upload.size} were announced.", active)
        del self._uploads[upload_id]
        content = bytes(upload.received)
        file = StoredFile(upload.file_id, upload.owner, upload.name, _UPLOADED, content, wall_time, upload.media_type)
        self._store.put_file(file)
        return json_reply({"file": file_object(file, request)}, headers={"x-goog-upload-status": "final"})


def file_object(file: StoredFile, request: Request) -> dict[str, Any]:
    """Return how Google describes a file."""
    address = f"{pages.host_of(request.headers)}/v1beta/{file.id}"
    digest = hashlib.sha256(file.content).hexdigest().encode()
    described = {
        "name": file.id,
        "displayName": file.name,
        "mimeType": file.media_type,
        "sizeBytes": str(len(file.content)),
        "createTime": pages.timestamp(file.created_at),
        "updateTime": pages.timestamp(file.created_at),
        "expirationTime": pages.timestamp(file.created_at + _LIFE),
        "sha256Hash": base64.b64encode(digest).decode(),
        "uri": address,
        "state": "ACTIVE",
        "source": file.purpose,
    }
    return described | ({"downloadUri": f"{address}:download?alt=media"} if file.purpose == GENERATED else {})


def _invalid(message: str, headers: dict[str, str] | None = None) -> Reply:
    return json_reply(error_body(message, 400), 400, headers)
