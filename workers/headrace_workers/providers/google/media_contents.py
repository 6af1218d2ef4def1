"""Builds the parts of images, audio and files for a Gemini request, also in the results of tools. Pure."""

from __future__ import annotations

from typing import Any

from headrace.types import AudioPart, FilePart, ImagePart
from headrace_workers.providers.shared.media import Blob, address_of, blob_of, check_type, file_as_text
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.request_parts import word_for

_IMAGES = ("image/avif", "image/bmp", "image/heic", "image/heif", "image/jpeg", "image/png", "image/webp")
_SUFFIXES = {
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "avif": "image/avif",
    "bmp": "image/bmp",
    "csv": "text/csv",
    "flac": "audio/flac",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
    "html": "text/html",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "md": "text/markdown",
    "mov": "video/quicktime",
    "mp3": "audio/mp3",
    "mp4": "video/mp4",
    "mpeg": "video/mpeg",
    "ogg": "audio/ogg",
    "pdf": "application/pdf",
    "png": "image/png",
    "tif": "image/tiff",
    "tiff": "image/tiff",
    "txt": "text/plain",
    "wav": "audio/wav",
    "webm": "video/webm",
    "webp": "image/webp",
}
"""Suffix of an address → the media type, which the API wants with it."""


def media_part(where: str, part: ImagePart | AudioPart | FilePart) -> dict[str, Any]:
    """Return the part of an image, of audio or of a file. Text files are sent as text."""
    if isinstance(part, FilePart) and (text := file_as_text(part)) is not None:
        return {"text": text}
    blob = _blob(where, part)
    if blob is not None:
        return {"inlineData": {"mimeType": blob.media_type, "data": blob.data}}
    url = address_of(where, part, word_for(part))
    file: dict[str, Any] = {"fileUri": url}
    suffix = url.partition("?")[0].partition("#")[0].rpartition(".")[2].lower()
    if media_type := part.media_type or _SUFFIXES.get(suffix, ""):
        file["mimeType"] = media_type
    return {"fileData": file}


def result_part(where: str, part: ImagePart | AudioPart | FilePart, *, takes_media: bool) -> dict[str, Any]:
    """Return the part of an image or a file in a tool's result. ``takes_media``: whether the model takes any."""
    if not takes_media:
        raise request_failure(f"a tool's result cannot hold {word_for(part)} before Gemini 3: return text", where)
    if isinstance(part, AudioPart):
        raise request_failure("a message with role tool cannot hold audio", where)
    blob = _blob(where, part)
    if blob is None:
        raise request_failure(f"Google takes {word_for(part)} in a tool's result only with data", where)
    return {"inlineData": {"mimeType": blob.media_type, "data": blob.data}}


def _blob(where: str, part: ImagePart | AudioPart | FilePart) -> Blob | None:
    if not isinstance(part, AudioPart) and part.file_id:
        raise request_failure("Google names an uploaded file by its URI: give it as url", f"{where}.file_id")
    blob = blob_of(where, part)
    if blob is not None and isinstance(part, ImagePart):
        check_type(where, blob, _IMAGES, "Google", "images")
    return blob
