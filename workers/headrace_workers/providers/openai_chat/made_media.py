"""Collects the audio and the images that a model made, in a Chat Completions answer. Pure.

OpenAI has audio, in ``message.audio``; OpenRouter and others have images, in ``message.images``. A stream has both in
``delta``; audio comes in many pieces.
"""

from __future__ import annotations

from typing import Any

from headrace.media.media_types import known_type, type_of_audio_format, type_of_base64
from headrace.types import AudioPart, ImagePart
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.openai_chat.calls import API_NAME
from headrace_workers.providers.shared.answer_limits import check_parts
from headrace_workers.providers.shared.lenient_json import as_text
from headrace_workers.providers.shared.media import joined_base64
from headrace_workers.providers.shared.unread_content import elements_of, object_in, text_in

SAMPLES = "audio/pcm;rate=24000"
"""The type of audio without a file's head: OpenAI streams only samples."""


def wanted_audio_type(request: RunRequest) -> str:
    """Return the media type of the audio that a request asks for. An answer does not tell it."""
    audio = request.custom_options.get("audio")
    word = audio.get("format") if isinstance(audio, dict) else None
    return type_of_audio_format(word) if isinstance(word, str) and word else SAMPLES


class ArrivingAudio:
    """The audio of one answer, as far as it has arrived."""

    __slots__ = ("_data", "_expires_at", "_id", "_words")

    def __init__(self) -> None:
        self._id = ""
        self._expires_at: Any = None
        self._data: list[str] = []
        self._words: list[str] = []

    def take(self, said: dict[str, Any]) -> str:
        """Take a piece. Return its words."""
        self._id = as_text(said.get("id")) or self._id
        self._expires_at = said.get("expires_at") or self._expires_at
        if data := text_in(said.get("data"), "the data of audio"):
            self._data.append(data)
        words = text_in(said.get("transcript"), "the transcript of audio")
        if words:
            self._words.append(words)
        return words

    @property
    def has_come(self) -> bool:
        """Whether any audio has come, or a reference to it."""
        return bool(self._id or self._data)

    def part(self, wanted_type: str) -> AudioPart | None:
        """Return the audio; None if only its words have come.

        ``wanted_type`` is the type that was asked for, for audio that does not say its own.
        """
        if not self.has_come:
            return None
        data = joined_base64(self._data) or None
        own: dict[str, Any] = {"id": self._id, "expires_at": self._expires_at}
        own = {key: value for key, value in own.items() if value}
        return AudioPart(
            data=data,
            media_type=type_of_base64(data or "") or wanted_type,
            transcript="".join(self._words) or None,
            provider_data={"api": API_NAME, "audio": own} if self._id else None,
        )


def images_in(value: Any) -> list[ImagePart]:
    """Return the images in ``images``: ``[{"type": "image_url", "image_url": {"url": "data:image/png;base64,…"}}]``."""
    images: list[ImagePart] = []
    for element in elements_of(value, "images"):
        said = object_in(element, "an element of images")
        address = said.get("image_url")
        url = text_in(address.get("url") if isinstance(address, dict) else address, "the address of an image")
        if url:
            images.append(_image(url))
    check_parts(len(images))
    return images


def _image(url: str) -> ImagePart:
    head, comma, data = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        return ImagePart(url=url)
    said = head.removeprefix("data:").partition(";")[0]
    return ImagePart(data=data, media_type=type_of_base64(data) or known_type(said) or "image/png")
