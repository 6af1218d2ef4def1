"""Images, audio and files are read in the forms of each provider, and go into one kind of part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.arguments.message_parts import read_part
from headrace.errors import InvalidRequestError
from headrace.types import AudioPart, FilePart, ImagePart, Part, TextPart
from tests.cases import each

PDF = "JVBERi0xLjcK"
PNG = "iVBORw0KGgoAAAAA"
JSON = dict[str, Any]

FORMS: list[tuple[Any, Part]] = [
    ({"type": "image", "data": PNG}, ImagePart(data=PNG, media_type="image/png")),
    ({"type": "image", "data": b"\x89PNG\r\n\x1a\n\0\0\0\0"}, ImagePart(data=PNG, media_type="image/png")),
    ({"type": "image", "data": "QQ==", "media_type": "image/jpg"}, ImagePart(data="QQ==", media_type="image/jpeg")),
    ({"type": "image", "source": {"type": "file", "file_id": "file_1"}}, ImagePart(file_id="file_1")),
    ({"type": "input_image", "image_url": "https://x/y"}, ImagePart("https://x/y")),
    ({"type": "input_image", "file_id": "f", "detail": "low"}, ImagePart(file_id="f", extra={"detail": "low"})),
    ({"type": "audio", "data": "QQ==", "media_type": "audio/wav"}, AudioPart("QQ==", "audio/wav")),
    ({"type": "input_audio", "input_audio": {"data": "QQ==", "format": "mp3"}}, AudioPart("QQ==", "audio/mpeg")),
    ({"type": "audio_url", "audio_url": {"url": "https://x/a.mp3"}}, AudioPart(url="https://x/a.mp3")),
    ({"type": "file", "file": {"file_id": "f"}}, FilePart(file_id="f")),
    (
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
        FilePart("a.pdf", "application/pdf", PDF),
    ),
    ({"type": "file", "file": {"filename": "a", "file_data": PDF}}, FilePart("a", "application/pdf", PDF)),
    ({"type": "file", "name": "a.txt", "text": "hi"}, FilePart("a.txt", "text/plain", text="hi")),
    ({"type": "input_file", "file_url": "https://x/a.pdf"}, FilePart(url="https://x/a.pdf")),
    ({"type": "input_file", "filename": "a.pdf", "file_data": PDF}, FilePart("a.pdf", "application/pdf", PDF)),
    (
        {"type": "input_file", "filename": "a.csv", "file_data": "data:text/csv;base64,YSxi"},
        FilePart("a.csv", "text/csv", text="a,b"),
    ),
    (
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            "title": "Report",
            "citations": {"enabled": True},
        },
        FilePart("Report", "application/pdf", PDF, extra={"citations": {"enabled": True}}),
    ),
    (
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}, "context": "c"},
        FilePart(media_type="text/plain", text="hi", extra={"context": "c"}),
    ),
    ({"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}, FilePart(url="https://x/a.pdf")),
    ({"inline_data": {"mime_type": "image/png", "data": PNG}}, ImagePart(data=PNG, media_type="image/png")),
    ({"inlineData": {"mimeType": "audio/wav", "data": b"A"}}, AudioPart("QQ==", "audio/wav")),
    ({"inlineData": {"mimeType": "application/pdf", "data": PDF}}, FilePart(None, "application/pdf", PDF)),
    (
        {"file_data": {"file_uri": "https://x/v1/files/a", "mime_type": "video/mp4"}},
        FilePart(media_type="video/mp4", url="https://x/v1/files/a"),
    ),
    ({"text": "hi"}, TextPart("hi")),
    ("hi", TextPart("hi")),
    ({"type": "input_text", "text": "hi"}, TextPart("hi")),
]


@each(("given", "part"), FORMS)
def test_the_forms_of_each_provider_are_read(given: Any, part: Part) -> None:
    assert read_part("p", given, {}) == part


@each("part", [part for _, part in FORMS])
def test_a_part_is_read_as_itself(part: Part) -> None:
    assert read_part("p", part, {}) == part


def test_base64_in_lines_or_without_its_end_becomes_the_form_that_the_apis_take() -> None:
    assert read_part("p", {"type": "image", "data": "iVBORw0K\nGgoAAAAA\n"}, {}) == FORMS[0][1]
    assert read_part("p", {"type": "audio", "data": "QQ", "media_type": "audio/wav"}, {}) == FORMS[6][1]


WRONG: list[tuple[Any, str, str]] = [
    ({"type": "image"}, "p", "an image needs a url, or data and media_type, or file_id"),
    ({"type": "image", "data": "QQ=="}, "p", "an image needs"),
    ({"type": "image", "data": PNG, "file_id": "f"}, "p.file_id", "given beside data"),
    ({"type": "image", "mime_type": "image/png", "data": PNG}, "p.mime_type", "did you mean 'media_type'"),
    ({"type": "image", "data": "b'abc'", "media_type": "image/png"}, "p.data", 'takes base64, which has no "\'"'),
    ({"type": "image", "data": "a-_b", "media_type": "image/png"}, "p.data", "URL-safe form"),
    ({"type": "image", "data": "é", "media_type": "image/png"}, "p.data", "ASCII"),
    ({"type": "audio", "data": "QQQQQ", "media_type": "audio/wav"}, "p.data", "its end is missing"),
    ({"type": "audio", "data": "QQ=="}, "p", "audio needs data and media_type"),
    ({"type": "input_audio", "input_audio": "QQ=="}, "p.input_audio", "takes a dict with data and format"),
    ({"type": "input_audio", "input_audio": {"data": 5, "format": "wav"}}, "p.input_audio.data", "takes a str"),
    ({"type": "file"}, "p", "a file needs data and media_type"),
    ({"type": "file", "filename": "a.pdf", "data": PDF}, "p.filename", "did you mean 'name'"),
    ({"type": "file", "file": "a.pdf"}, "p.file", "takes a dict with file_data"),
    ({"type": "file", "file": {"file_data": "data:application/pdf,abc"}}, "p.file.file_data", "';base64,'"),
    ({"type": "file", "text": "x", "media_type": "application/pdf"}, "p.text", "which is no text"),
    ({"type": "input_file", "file_data": "data:text/plain;base64,/w=="}, "p.file_data", "a text file in UTF-8"),
    (
        {"type": "document", "source": {"type": "content", "content": []}},
        "p.source",
        "'base64', 'url', 'file' or 'text'",
    ),
    ({"type": "document", "title": "a"}, "p.source", "takes a dict with type"),
    ({"inline_data": {"mime_type": "image/png", "data": PNG, "x": 1}}, "p.inline_data.x", "no such key"),
    ({"type": "image", "url": "photos/a.png"}, "p.url", "give ImagePart.from_file"),
    ({"type": "image_url", "image_url": {"url": "C:\\a.png"}}, "p.image_url.url", "not 'C:"),
    ({"type": "file", "url": "/tmp/a.pdf"}, "p.url", "give FilePart.from_file"),
    (Path("a.png"), "p", "not PosixPath: give ImagePart.from_file"),
    (b"abc", "p", "not bytes: give ImagePart.from_file"),
    ({"type": "video_url", "video_url": "x"}, "p", "is no part"),
]


@each(("given", "place", "words"), WRONG)
def test_what_is_wrong_is_named_with_its_place(given: Any, place: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        read_part("p", given, {})

    assert caught.value.argument == place
    assert words in caught.value.reason


def test_a_worker_that_blames_a_field_is_told_in_the_callers_words() -> None:
    paths: dict[str, str] = {}
    read_part("p", {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "flac"}}, paths)

    assert paths["p.media_type"] == "p.input_audio.format"
