"""Checks images, audio and files in a Chat Completions request as OpenAI does, with its error texts. Pure."""

from __future__ import annotations

from typing import Any

from headrace.testing.shared.request_rules import OpenAIRefusal, check_choice, check_object, check_type
from headrace.testing.shared.simulated_media import inline_type, is_base64

_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")
_AUDIO_FORMATS = ("wav", "mp3")
_STREAMED_AUDIO = "pcm16"
_FIELDS: dict[str, tuple[set[str], str | None]] = {
    "image_url": ({"url", "detail"}, "url"),
    "input_audio": ({"data", "format"}, "data"),
    "file": ({"file_data", "file_id", "filename"}, None),
}


def check_media(where: str, kind: str, value: object) -> None:
    """Refuse an image, audio or a file that the API does not take. ``value`` is the part's inner object."""
    fields, required = _FIELDS[kind]
    inner = check_object(where, value, known=fields, required=required)
    if required is not None:
        check_type(f"{where}.{required}", inner[required], "string", str)
    match kind:
        case "image_url":
            check_image(inner["url"], where)
        case "input_audio":
            check_choice(f"{where}.format", inner.get("format", ""), _AUDIO_FORMATS)
            if not is_base64(inner["data"]):
                message = f"Invalid value for '{where}.data': expected base64-encoded audio."
                raise OpenAIRefusal(message, f"{where}.data", "invalid_value")
        case _:
            _check_file(where, inner)


def check_image(url: str, where: str) -> None:
    """Refuse an image in a ``data:`` URL that the API cannot read."""
    if url.startswith("data:") and inline_type(url) not in _IMAGES:
        message = "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png', 'jpeg', 'gif', 'webp']."
        raise OpenAIRefusal(message, where, "invalid_image_format")


def _check_file(where: str, file: dict[str, Any]) -> None:
    if (file.get("file_data") is None) == (file.get("file_id") is None):
        message = f"Missing required parameter: '{where}.file_id'."
        raise OpenAIRefusal(message, f"{where}.file_id", "missing_required_parameter")
    if file.get("file_data") is None:
        return
    if not file.get("filename"):
        message = f"Missing required parameter: '{where}.filename'."
        raise OpenAIRefusal(message, f"{where}.filename", "missing_required_parameter")
    kind = inline_type(str(file["file_data"]))
    if kind != "application/pdf":
        message = f"Invalid file data: '{where}.file_data'. Expected a base64-encoded data URL with an application/pdf MIME type (e.g. 'data:application/pdf;base64,aGVsbG8gd29ybGQ='), but got {f'unsupported MIME type {kind!r}' if kind else 'a value without the data: prefix'}."
        raise OpenAIRefusal(message, f"{where}.file_data", "invalid_value")


def check_audio_output(body: dict[str, Any]) -> None:
    """Refuse a request for audio without its voice, and for a stream of anything but samples."""
    modalities = body.get("modalities") or []
    audio = body.get("audio")
    if "audio" in modalities and not isinstance(audio, dict):
        message = "Invalid value: 'audio' is required when 'modalities' includes 'audio'."
        raise OpenAIRefusal(message, "audio", "missing_required_parameter")
    if isinstance(audio, dict) and body.get("stream") and audio.get("format") != _STREAMED_AUDIO:
        message = f"Unsupported value: 'audio.format' does not support '{audio.get('format')}' when stream=true. Supported values are: '{_STREAMED_AUDIO}'."
        raise OpenAIRefusal(message, "audio.format", "unsupported_value")


def check_own_audio(where: str, audio: object) -> None:
    """Refuse a reference to audio of an earlier answer that has no id."""
    if audio is not None:
        check_object(where, audio, known={"id"}, required="id")
