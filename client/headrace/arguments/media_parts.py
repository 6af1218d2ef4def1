"""Reads images, audio and files in a message, in the forms of each provider. Pure.

| form | part |
|---|---|
| ``image``, Anthropic's with ``source``; OpenAI's ``image_url``, ``input_image`` | ImagePart |
| ``audio``; OpenAI's ``input_audio``; ``audio_url`` of vLLM | AudioPart |
| ``file``, OpenAI's with an inner ``file``; ``input_file``; Anthropic's ``document`` | FilePart |
| Google's ``inline_data`` and ``file_data``, in both spellings | by its type |
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.arguments import checks
from headrace.arguments.mapping_keys import KnownKeys, further_keys, joined
from headrace.arguments.plain_values import plain_dict, shown
from headrace.errors import InvalidRequestError
from headrace.media.media_types import (
    PDF,
    PLAIN_TEXT,
    is_text_type,
    known_type,
    type_of_audio_format,
    type_of_base64,
    type_of_name,
    type_of_text,
)
from headrace.types import AudioPart, FilePart, ImagePart

_IMAGE_FIELDS = frozenset({"type", *ImagePart.__struct_fields__})
_AUDIO_FIELDS = frozenset({"type", *AudioPart.__struct_fields__})
_FILE_FIELDS = frozenset({"type", *FilePart.__struct_fields__})

_MEDIA_SLIPS = {
    "mime_type": "media_type",
    "mimeType": "media_type",
    "mediaType": "media_type",
    "uri": "url",
    "base64": "data",
}
_FILE_SLIPS = _MEDIA_SLIPS | {"filename": "name", "file_name": "name", "file_data": "data", "file_url": "url"}

_IMAGE = KnownKeys(_IMAGE_FIELDS | {"source"}, fields=_IMAGE_FIELDS | {"source"}, slips=_MEDIA_SLIPS)
_AUDIO = KnownKeys(_AUDIO_FIELDS, fields=_AUDIO_FIELDS, slips=_MEDIA_SLIPS)
_FILE = KnownKeys(_FILE_FIELDS, fields=_FILE_FIELDS, slips=_FILE_SLIPS)
_DOCUMENT = KnownKeys(
    frozenset({"type", "source", "title", "extra"}),
    passed_on=frozenset({"citations", "context"}),
    slips={"name": "title"},
    fields=_FILE_FIELDS,
)
_IMAGE_URL = KnownKeys(frozenset({"type", "image_url", "extra"}), fields=_IMAGE_FIELDS)
_INNER_URL = KnownKeys(frozenset({"url", "detail"}), slips={"uri": "url"})
_INPUT_IMAGE = KnownKeys(frozenset({"type", "image_url", "file_id", "extra"}), fields=_IMAGE_FIELDS - {"file_id"})
_NESTED_FILE = KnownKeys(frozenset({"type", "file", "extra"}), fields=_FILE_FIELDS)
_INNER_FILE = KnownKeys(
    frozenset({"file_data", "filename", "file_id"}),
    passed_on=frozenset({"format"}),
    slips={"data": "file_data", "name": "filename", "id": "file_id"},
)
_INPUT_FILE = KnownKeys(
    frozenset({"type", "file_data", "filename", "file_url", "file_id", "extra"}),
    slips={"name": "filename", "url": "file_url"},
    fields=_FILE_FIELDS - {"file_id"},
)
_INPUT_AUDIO = KnownKeys(frozenset({"type", "input_audio", "extra"}), fields=_AUDIO_FIELDS)
_INNER_AUDIO = KnownKeys(frozenset({"data", "format"}), slips={"media_type": "format", "mime_type": "format"})
_AUDIO_URL = KnownKeys(frozenset({"type", "audio_url", "extra"}), fields=_AUDIO_FIELDS)
_GOOGLE_KEYS = frozenset({"inline_data", "inlineData", "file_data", "fileData"})
_GOOGLE = KnownKeys(frozenset({"type", "extra", *_GOOGLE_KEYS}), guesses=False)
_GOOGLE_NAMES = {
    "mime_type": "media_type",
    "mimeType": "media_type",
    "display_name": "name",
    "displayName": "name",
    "file_uri": "url",
    "fileUri": "url",
    "data": "data",
}
_SOURCES = {
    "base64": KnownKeys(frozenset({"type", "media_type", "data"})),
    "url": KnownKeys(frozenset({"type", "url"})),
    "file": KnownKeys(frozenset({"type", "file_id"})),
    "text": KnownKeys(frozenset({"type", "media_type", "data"})),
}

_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]*)(?:;[^,;]*)*?;base64,", re.IGNORECASE)
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:")  # not one letter: that is a drive of Windows
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_BLANKS = b"\r\n"

PATHS: dict[str, dict[str, str]] = {
    "input_image": {"url": "image_url"},
    "input_file": {"data": "file_data", "url": "file_url", "name": "filename"},
    "input_audio": {"data": "input_audio.data", "media_type": "input_audio.format"},
    "audio_url": {"url": "audio_url.url"},
    "document": {
        "data": "source.data",
        "media_type": "source.media_type",
        "url": "source.url",
        "file_id": "source.file_id",
        "text": "source.data",
        "name": "title",
    },
}
"""Form of a part → field of the part → where the caller gave it, for each field that stands elsewhere."""
NESTED_FILE_PATHS = {"data": "file.file_data", "name": "file.filename", "file_id": "file.file_id"}
"""The same for OpenAI's form of a file."""


class _Given(msgspec.Struct, frozen=True):
    """The fields of a part as the caller gave them. ``places``: field → where it stands, if it stands elsewhere."""

    argument: str
    values: Mapping[str, Any]
    places: Mapping[str, str] = {}

    def at(self, name: str) -> str:
        """Return the path of a field, for an error."""
        return f"{self.argument}.{self.places.get(name, name)}"

    def texts(self, *names: str) -> list[str | None]:
        """Return fields that are texts."""
        return [checks.text(self.at(name), self.values.get(name)) for name in names]


def image_part(argument: str, given: Mapping[str, Any]) -> ImagePart:
    """Read ``{"type": "image"}``: Headrace's own, or Anthropic's with ``source``."""
    extra = further_keys(argument, given, _IMAGE)
    own = _provider_data(argument, given)
    if (source := given.get("source")) is None:
        return _image(_Given(argument, given), extra, own)
    for name in ("url", "data", "media_type", "file_id"):
        if given.get(name) is not None:
            raise InvalidRequestError("is given beside source: give one of the two", f"{argument}.{name}")
    inside = f"{argument}.source"
    return _image(_Given(inside, _source(inside, source, ("base64", "url", "file"))), extra, own)


def image_url_part(argument: str, given: Mapping[str, Any]) -> ImagePart:
    """Read OpenAI's form: ``{"type": "image_url", "image_url": {"url", "detail"}}``."""
    image, extra = given.get("image_url"), further_keys(argument, given, _IMAGE_URL)
    inside = f"{argument}.image_url"
    if not isinstance(image, Mapping):
        return _image(_Given(argument, {"url": image}, {"url": "image_url"}), extra)
    within = further_keys(inside, image, _INNER_URL)
    detail = checks.text(f"{inside}.detail", image.get("detail"))
    extra = joined(argument, extra, within and {"image_url": within}, {"detail": detail} if detail else None)
    return _image(_Given(argument, {"url": image.get("url")}, {"url": "image_url.url"}), extra)


def input_image_part(argument: str, given: Mapping[str, Any]) -> ImagePart:
    """Read the form of OpenAI Responses: ``{"type": "input_image", "image_url" or "file_id", "detail"}``."""
    extra = further_keys(argument, given, _INPUT_IMAGE)
    fields = {"url": given.get("image_url"), "file_id": given.get("file_id")}
    return _image(_Given(argument, fields, PATHS["input_image"]), extra)


def audio_part(argument: str, given: Mapping[str, Any]) -> AudioPart:
    """Read Headrace's own form: ``{"type": "audio", "data", "media_type"}``."""
    extra = further_keys(argument, given, _AUDIO)
    return _audio(_Given(argument, given), extra, _provider_data(argument, given))


def input_audio_part(argument: str, given: Mapping[str, Any]) -> AudioPart:
    """Read OpenAI's form: ``{"type": "input_audio", "input_audio": {"data", "format"}}``."""
    extra = further_keys(argument, given, _INPUT_AUDIO)
    inside = f"{argument}.input_audio"
    audio = _inner(inside, given.get("input_audio"), "data and format")
    within = further_keys(inside, audio, _INNER_AUDIO)
    word = checks.text(f"{inside}.format", audio.get("format"))
    fields = {"data": audio.get("data"), "media_type": type_of_audio_format(word) if word else None}
    return _audio(
        _Given(argument, fields, PATHS["input_audio"]), joined(argument, extra, within and {"input_audio": within})
    )


def audio_url_part(argument: str, given: Mapping[str, Any]) -> AudioPart:
    """Read the form of vLLM: ``{"type": "audio_url", "audio_url": {"url"}}``."""
    extra = further_keys(argument, given, _AUDIO_URL)
    inside = f"{argument}.audio_url"
    audio = _inner(inside, given.get("audio_url"), "url")
    if further := further_keys(inside, audio, _INNER_URL):
        raise InvalidRequestError("there is no such key here", f"{inside}.{min(further)}")
    return _audio(_Given(argument, {"url": audio.get("url")}, PATHS["audio_url"]), extra)


def file_part(argument: str, given: Mapping[str, Any]) -> FilePart:
    """Read ``{"type": "file"}``: Headrace's own, or OpenAI's with an inner ``file``."""
    if given.get("file") is None:
        extra = further_keys(argument, given, _FILE)
        return _file(_Given(argument, given), extra, _provider_data(argument, given))
    extra = further_keys(argument, given, _NESTED_FILE)
    inside = f"{argument}.file"
    file = _inner(inside, given["file"], "file_data and filename, or file_id")
    within = further_keys(inside, file, _INNER_FILE)
    fields = {"data": file.get("file_data"), "name": file.get("filename"), "file_id": file.get("file_id")}
    return _file(_Given(argument, fields, NESTED_FILE_PATHS), joined(argument, extra, within and {"file": within}))


def input_file_part(argument: str, given: Mapping[str, Any]) -> FilePart:
    """Read the form of OpenAI Responses: ``{"type": "input_file", "file_data", "filename"}``, or with another source."""
    extra = further_keys(argument, given, _INPUT_FILE)
    fields = {
        "data": given.get("file_data"),
        "name": given.get("filename"),
        "url": given.get("file_url"),
        "file_id": given.get("file_id"),
    }
    return _file(_Given(argument, fields, PATHS["input_file"]), extra)


def document_part(argument: str, given: Mapping[str, Any]) -> FilePart:
    """Read Anthropic's form: ``{"type": "document", "source", "title", "citations", "context"}``."""
    extra = further_keys(argument, given, _DOCUMENT)
    inside = f"{argument}.source"
    fields = _source(inside, given.get("source"), tuple(_SOURCES))
    if given.get("source", {}).get("type") == "text":
        fields = {"text": fields.get("data"), "media_type": fields.get("media_type")}
    return _file(_Given(argument, {**fields, "name": given.get("title")}, PATHS["document"]), extra)


def is_googles(given: Mapping[str, Any]) -> bool:
    """Return whether a part has Google's form: without a type, and with ``inline_data`` or ``file_data``."""
    return given.get("type") is None and not _GOOGLE_KEYS.isdisjoint(given)


def google_part(argument: str, given: Mapping[str, Any]) -> ImagePart | AudioPart | FilePart:
    """Read Google's form: ``{"inline_data": {"mime_type", "data"}}`` or ``{"file_data": {"file_uri"}}``."""
    extra = further_keys(argument, given, _GOOGLE)
    key = next(key for key in given if key in _GOOGLE_KEYS)
    inside = f"{argument}.{key}"
    blob = _inner(inside, given[key], "mime_type and data, or file_uri")
    fields: dict[str, Any] = {}
    for name, value in blob.items():
        if name not in _GOOGLE_NAMES:
            raise InvalidRequestError("there is no such key here", f"{inside}.{name}")
        fields[_GOOGLE_NAMES[name]] = value
    kind = checks.text(f"{inside}.mime_type", fields.get("media_type")) or ""
    if kind.startswith("image/"):
        return _image(_Given(inside, fields), extra)
    read = _audio if kind.startswith("audio/") else _file
    return read(_Given(inside, fields), extra)


def _inner(argument: str, value: object, needed: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"takes a dict with {needed}", argument)
    return value


def _source(argument: str, source: object, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Read Anthropic's ``source``: ``{"type": "base64", "media_type", "data"}``, or another kind."""
    given: Mapping[str, Any] = source if isinstance(source, Mapping) else {}
    kind = given.get("type")
    if kind not in kinds:
        words = ", ".join(map(repr, kinds[:-1]))
        raise InvalidRequestError(f"takes a dict with type {words} or {kinds[-1]!r}", argument)
    if further := further_keys(argument, given, _SOURCES[kind]):
        raise InvalidRequestError("there is no such key here", f"{argument}.{min(further)}")
    return {key: value for key, value in given.items() if key != "type"}


def _image(given: _Given, extra: dict[str, Any] | None, own: dict[str, Any] | None = None) -> ImagePart:
    url, media_type, file_id = given.texts("url", "media_type", "file_id")
    data = _base64(given.at("data"), given.values.get("data"))
    _check_one(given, {"url": url, "data": data, "file_id": file_id})
    _check_url(given.at("url"), url, "ImagePart")
    if data and not media_type:
        media_type = type_of_base64(data)
    if not (url or file_id or (data and media_type)):
        raise InvalidRequestError(
            "an image needs a url, or data and media_type, or file_id; ImagePart.from_file reads a file", given.argument
        )
    return ImagePart(url, data, _known(media_type), extra, file_id, own)


def _audio(given: _Given, extra: dict[str, Any] | None, own: dict[str, Any] | None = None) -> AudioPart:
    url, media_type, transcript = given.texts("url", "media_type", "transcript")
    data, found = _data(given)
    _check_one(given, {"url": url, "data": data})
    _check_url(given.at("url"), url, "AudioPart")
    if data and not media_type:
        media_type = found or type_of_base64(data)
    if not (url or (data and media_type) or own):
        raise InvalidRequestError(
            "audio needs data and media_type, or a url; AudioPart.from_file reads a file", given.argument
        )
    return AudioPart(data, _known(media_type), url, transcript, own, extra)


def _file(given: _Given, extra: dict[str, Any] | None, own: dict[str, Any] | None = None) -> FilePart:
    name, media_type, text, url, file_id = given.texts("name", "media_type", "text", "url", "file_id")
    data, found = _data(given)
    _check_one(given, {"data": data, "text": text, "url": url, "file_id": file_id})
    _check_url(given.at("url"), url, "FilePart")
    if data and not media_type:
        media_type = found or type_of_base64(data) or type_of_name(name)
    if text is not None and not media_type:
        media_type = type_of_text(name)
    if data and media_type and is_text_type(media_type) and media_type != PDF:
        text, data = _text_in(given.at("data"), data), None
    if not (url or file_id or text is not None or (data and media_type)):
        raise InvalidRequestError(
            "a file needs data and media_type, or text, or a url, or file_id; FilePart.from_file reads a file",
            given.argument,
        )
    if text is not None and not is_text_type(media_type or PLAIN_TEXT):
        raise InvalidRequestError(f"is {media_type}, which is no text: give data", given.at("text"))
    return FilePart(name, _known(media_type), data, text, url, file_id, own, extra)


def _check_one(given: _Given, found: Mapping[str, str | None]) -> None:
    """Raise InvalidRequestError if the content is given in two ways."""
    names = [name for name, value in found.items() if value]
    if len(names) > 1:
        other = given.places.get(names[0], names[0])
        raise InvalidRequestError(f"is given beside {other}: give one of the two", given.at(names[1]))


def _check_url(argument: str, url: str | None, part: str) -> None:
    """Raise InvalidRequestError for a path, which no provider can fetch."""
    if url and not _SCHEME.match(url):
        raise InvalidRequestError(
            f"takes a URL such as 'https://…', not {shown(url)}: for a file of this machine give {part}.from_file",
            argument,
        )


def _data(given: _Given) -> tuple[str | None, str | None]:
    """Return the base64 and the media type in ``data``, which may be a ``data:`` URL."""
    data, place = given.values.get("data"), given.at("data")
    if not isinstance(data, str) or not data.startswith("data:"):
        return _base64(place, data), None
    head = _DATA_URL.match(data)
    if head is None:
        raise InvalidRequestError("takes a data: URL with ';base64,'", place)
    return _base64(place, data[head.end() :]), head["media_type"] or None


def _base64(argument: str, data: object) -> str | None:
    """Return base64 data. Bytes are encoded. Raises InvalidRequestError for a text that is no base64."""
    if isinstance(data, (bytes, bytearray, memoryview)):
        return base64.b64encode(data).decode("ascii") or None
    text = checks.text(argument, data)
    if not text:
        return text
    try:
        others = text.encode("ascii").translate(None, _ALPHABET + _BLANKS)
    except UnicodeEncodeError:
        raise InvalidRequestError("takes base64, which has ASCII characters only", argument) from None
    if others.strip(b"=") or len(others) > len("=="):
        wrong = others.replace(b"=", b"")[:1].decode() or "="
        advice = ": it is the URL-safe form, give base64.b64encode" if wrong in "-_" else ""
        raise InvalidRequestError(f"takes base64, which has no {wrong!r}{advice}", argument)
    if b"\n" in text[:1024].encode() or len(text) % 4:
        # The APIs take base64 in one line, with its padding.
        plain = text.replace("\r", "").replace("\n", "").rstrip("=")
        if len(plain) % 4 == 1:
            raise InvalidRequestError("takes whole base64; its end is missing", argument)
        return plain + "=" * (-len(plain) % 4)
    return text


def _text_in(argument: str, data: str) -> str:
    try:
        return base64.b64decode(data).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequestError("takes a text file in UTF-8", argument) from None


def _known(media_type: str | None) -> str | None:
    return known_type(media_type) if media_type else None


def _provider_data(argument: str, given: Mapping[str, Any]) -> dict[str, Any] | None:
    data = given.get("provider_data")
    return None if data is None else plain_dict(f"{argument}.provider_data", data)
