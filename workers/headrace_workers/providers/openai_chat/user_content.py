"""Builds the content of a user's message for Chat Completions: text, images, audio and files. Pure.

OpenAI itself takes less than compatible servers do: PDF files only, no address of a file, and audio only as WAV or MP3.
"""

from __future__ import annotations

from typing import Any

from headrace.media.media_types import PDF, audio_format
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart
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

TEXT_FIELDS = {"type", "text"}
"""Keys of a text part without extra keys."""

_AUDIO_FORMATS = ("wav", "mp3")
_API = "OpenAI's Chat Completions"


def user_content(where: str, message: Message, keys: ExtraKeys, *, is_openai: bool) -> str | list[dict[str, Any]]:
    """Return the content of a user's message; as a str if it is only text, because some servers take no list."""
    if isinstance(message.content, str):
        return message.content
    sent = [
        _user_part(f"{where}.content[{index}]", part, keys, is_openai=is_openai)
        for index, part in enumerate(message.content)
    ]
    if len(sent) == 1 and sent[0].keys() == TEXT_FIELDS:
        return str(sent[0]["text"])
    return sent


def image_of(where: str, part: ImagePart, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    """Return an image part."""
    extra, inner = keys.of_both("image", where, part.extra)
    if "detail" in extra:
        inner["detail"] = extra.pop("detail")
    if part.file_id:
        raise request_failure(f"{_API} takes images by url or data only", f"{where}.file_id")
    blob = blob_of(where, part)
    if blob is not None and is_openai:
        check_type(where, blob, COMMON_IMAGES, "OpenAI", "images")
    url = data_url(blob) if blob is not None else address_of(where, part, "an image")
    return {"type": "image_url", "image_url": {"url": url} | inner} | extra


def _user_part(where: str, part: Part, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text} | keys.of("text", where, part.extra)
        case ImagePart():
            return image_of(where, part, keys, is_openai=is_openai)
        case AudioPart():
            return _audio(where, part, keys, is_openai=is_openai)
        case FilePart():
            return _file(where, part, keys, is_openai=is_openai)
        case _:
            raise request_failure(f"a message with role user cannot hold {word_for(part)}", where)


def _audio(where: str, part: AudioPart, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    extra, inner = keys.of_both("audio", where, part.extra)
    blob = blob_of(where, part)
    if blob is None:
        url = address_of(where, part, "audio")
        if is_openai:
            raise request_failure(f"{_API} takes no address of audio: give data and media_type", f"{where}.url")
        return {"type": "audio_url", "audio_url": {"url": url} | inner} | extra
    word = audio_format(blob.media_type)
    if is_openai and word not in _AUDIO_FORMATS:
        raise request_failure(f"{_API} takes audio as wav or mp3, not {blob.media_type}", f"{where}.media_type")
    return {"type": "input_audio", "input_audio": {"data": blob.data, "format": word} | inner} | extra


def _file(where: str, part: FilePart, keys: ExtraKeys, *, is_openai: bool) -> dict[str, Any]:
    if (text := file_as_text(part)) is not None:
        return {"type": "text", "text": text} | keys.of("text", where, part.extra)
    extra, inner = keys.of_both("file", where, part.extra)
    if part.file_id:
        return {"type": "file", "file": {"file_id": part.file_id} | inner} | extra
    blob = blob_of(where, part)
    if is_openai:
        if blob is None:
            advice = "give its data, or use OpenAI Responses"
            raise request_failure(f"{_API} takes no address of a file: {advice}", f"{where}.url")
        check_type(where, blob, (PDF,), _API, "files")
    content = data_url(blob) if blob is not None else address_of(where, part, "a file")
    name = file_name(part, blob.media_type if blob is not None else part.media_type or "")
    return {"type": "file", "file": {"filename": name, "file_data": content} | inner} | extra
