"""Leaves the megabytes of images, audio and files out of spans: a note with their size stays. Pure."""

from __future__ import annotations

import msgspec

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part

MAX_KEPT = 64 * 1024
"""Characters of base64 that a span keeps of one image, audio or file: 48 KiB of content."""
NOT_KEPT = "(not kept: "
"""Beginning of the note that a span has in place of longer base64, such as ``(not kept: 1048576 bytes)``."""

MediaPart = ImagePart | AudioPart | FilePart


def storable_messages(messages: list[Message]) -> list[Message]:
    """Return the messages as a span keeps them. Returns the same list if all of their content is short."""
    if not any(map(_has_long_part, messages)):
        return messages
    return [
        msgspec.structs.replace(message, content=[_storable(part) for part in message.content])
        if not isinstance(message.content, str)
        else message
        for message in messages
    ]


def storable_media(message: Message | None) -> list[MediaPart]:
    """Return the images, audio and files in an answer, as a span keeps them: without the provider's own data."""
    if message is None or isinstance(message.content, str):
        return []
    return [_storable_media(part) for part in message.content if isinstance(part, ImagePart | AudioPart | FilePart)]


def _has_long_part(message: Message) -> bool:
    return not isinstance(message.content, str) and any(map(_is_long, message.content))


def _is_long(part: Part) -> bool:
    if not isinstance(part, ImagePart | AudioPart | FilePart):
        return False
    return len(part.data or part.url or "") > MAX_KEPT


def _storable(part: Part) -> Part:
    if not isinstance(part, ImagePart | AudioPart | FilePart) or not _is_long(part):
        return part
    data, media_type = part.data, part.media_type
    if data is None:  # a data: URL
        head, _, data = (part.url or "").removeprefix("data:").partition(",")
        media_type = media_type or head.partition(";")[0] or None
    note = f"{NOT_KEPT}{len(data) * 3 // 4 - data[-2:].count('=')} bytes)"
    return msgspec.structs.replace(part, data=note, media_type=media_type, url=None)


def _storable_media(part: MediaPart) -> MediaPart:
    kept: MediaPart = _storable(part)  # type: ignore[assignment]  # a part stays of its kind
    return kept if kept.provider_data is None else msgspec.structs.replace(kept, provider_data=None)
