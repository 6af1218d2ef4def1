"""Builds the blocks of images and documents for a Messages request. The API takes no audio. Pure."""

from __future__ import annotations

from typing import Any

from headrace.media.media_types import PDF
from headrace.types import AudioPart, FilePart, ImagePart
from headrace_workers.providers.shared.extra_keys import ExtraKeys
from headrace_workers.providers.shared.media import (
    COMMON_IMAGES,
    address_of,
    blob_of,
    check_size,
    check_type,
)
from headrace_workers.providers.shared.provider_errors import request_failure

_MIB = 1024 * 1024
_MAX_REQUEST = 32 * _MIB
"""Bytes of a request that the API takes, as of November 2026."""
_MAX_IMAGE = 5 * _MIB
"""Characters of an image in base64 that the API takes, as of November 2026."""


def media_block(where: str, part: ImagePart | AudioPart | FilePart, keys: ExtraKeys) -> dict[str, Any]:
    """Return the block of an image or a document. Raises ProviderFailedError for what the API does not take."""
    match part:
        case ImagePart():
            return {"type": "image", "source": _image_source(where, part)} | keys.of("image", where, part.extra)
        case FilePart():
            block: dict[str, Any] = {"type": "document", "source": _document_source(where, part)}
            if part.name:
                block["title"] = part.name
            return block | keys.of("file", where, part.extra)
        case AudioPart():
            raise request_failure("Anthropic takes no audio: send its transcript as text", where)


def _image_source(where: str, part: ImagePart) -> dict[str, Any]:
    if part.file_id:
        return {"type": "file", "file_id": part.file_id}
    blob = blob_of(where, part)
    if blob is None:
        return {"type": "url", "url": address_of(where, part, "an image")}
    check_type(where, blob, COMMON_IMAGES, "Anthropic", "images")
    check_size(where, blob, _MAX_IMAGE, "Anthropic", "images")
    return {"type": "base64", "media_type": blob.media_type, "data": blob.data}


def _document_source(where: str, part: FilePart) -> dict[str, Any]:
    if part.file_id:
        return {"type": "file", "file_id": part.file_id}
    if part.text is not None:
        return {"type": "text", "media_type": "text/plain", "data": part.text}
    blob = blob_of(where, part)
    if blob is None:
        return {"type": "url", "url": address_of(where, part, "a file")}
    check_type(where, blob, (PDF,), "Anthropic", "files with data")
    return {"type": "base64", "media_type": PDF, "data": blob.data}


def checked_size(body: bytes) -> bytes:
    """Return the body of a request. Raises ProviderFailedError (``invalid_request``) if the API refuses its size."""
    if len(body) > _MAX_REQUEST:
        size = f"{len(body) / _MIB:.1f} MiB"
        advice = "send smaller images and files, or upload them and give file_id"
        raise request_failure(
            f"the request has {size}, and Anthropic takes {_MAX_REQUEST // _MIB} MiB: {advice}", "messages"
        )
    return body
