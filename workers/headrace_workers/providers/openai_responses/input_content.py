"""Builds the content parts of a Responses request: text, images and files. The API takes no audio. Pure."""

from __future__ import annotations

from typing import Any

from headrace.types import AudioPart, FilePart, ImagePart, Part, TextPart
from headrace_workers.providers.shared.extra_keys import ExtraKeys
from headrace_workers.providers.shared.media import (
    COMMON_IMAGES,
    address_of,
    blob_of,
    check_type,
    data_url,
    file_as_text,
    file_name,
)
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.request_parts import word_for

_WITH_MEDIA = ("user", "tool")


def input_part(where: str, part: Part, role: str, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    """Return a content part. ``is_openai``: text files are sent as files, which compatible servers may not take."""
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text} | keys.of("text", where, part.extra)
        case ImagePart() if role in _WITH_MEDIA:
            source = (
                {"file_id": part.file_id}
                if part.file_id
                else {"image_url": image_address(where, part, is_openai=is_openai)}
            )
            return {"type": "input_image", "detail": "auto", **source} | keys.of("image", where, part.extra)
        case FilePart() if role in _WITH_MEDIA:
            return _file(where, part, keys, is_openai=is_openai)
        case AudioPart() if role in _WITH_MEDIA:
            raise request_failure(
                "OpenAI Responses takes no audio: use Chat Completions, with a model that hears", where
            )
        case _:
            raise request_failure(f"a message with role {role} cannot hold {word_for(part)}", where)


def image_address(where: str, part: ImagePart, *, is_openai: bool) -> str:
    """Return the address of an image; content becomes a ``data:`` URL."""
    blob = blob_of(where, part)
    if blob is None:
        return address_of(where, part, "an image")
    if is_openai:
        check_type(where, blob, COMMON_IMAGES, "OpenAI", "images")
    return data_url(blob)


def _file(where: str, part: FilePart, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    text = None if is_openai else file_as_text(part)
    if text is not None:
        return {"type": "input_text", "text": text} | keys.of("text", where, part.extra)
    extra = keys.of("file", where, part.extra)
    if part.file_id:
        return {"type": "input_file", "file_id": part.file_id} | extra
    blob = blob_of(where, part)
    if blob is None:
        return {"type": "input_file", "file_url": address_of(where, part, "a file")} | extra
    return {"type": "input_file", "filename": file_name(part, blob.media_type), "file_data": data_url(blob)} | extra
