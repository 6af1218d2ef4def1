"""The type of a file is what its first bytes say, whatever its name is."""

from __future__ import annotations

import base64

from headrace.media.media_types import (
    audio_format,
    is_text_type,
    known_type,
    type_of_archive,
    type_of_audio_format,
    type_of_base64,
    type_of_bytes,
    type_of_text,
)
from tests.cases import each

BYTES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff\xe0": "image/jpeg",
    b"GIF89a": "image/gif",
    b"RIFF\x10\0\0\0WEBPVP8 ": "image/webp",
    b"\0\0\0\x18ftypheic": "image/heic",
    b"\0\0\0\x18ftypmif1": "image/heif",
    b"\0\0\0\x18ftypavif": "image/avif",
    b"II*\0": "image/tiff",
    b"BM\x10\0\0\0\0\0\0\0": "image/bmp",
    b"RIFF\x10\0\0\0WAVEfmt ": "audio/wav",
    b"ID3\x04": "audio/mpeg",
    b"\xff\xfb\x90": "audio/mpeg",
    b"\xff\xf1\x50": "audio/aac",
    b"fLaC": "audio/flac",
    b"OggS": "audio/ogg",
    b"FORM\0\0\0\0AIFF": "audio/aiff",
    b"\0\0\0\x18ftypM4A ": "audio/mp4",
    b"\0\0\0\x18ftypisom": "video/mp4",
    b"%PDF-1.7": "application/pdf",
    b"\xef\xbb\xbf\n%PDF-1.4": "application/pdf",
    b"plain words": None,
    b"RIFF\x10\0\0\0ABCD": None,
    b"\xff": None,
    b"": None,
}


@each(("data", "kind"), BYTES.items())
def test_the_first_bytes_say_the_type(data: bytes, kind: str | None) -> None:
    assert type_of_bytes(data + b"\0" * 64 if kind else data) == kind
    assert type_of_base64(base64.b64encode(data + b"\0" * 64 if kind else data).decode()) == kind


def test_base64_that_is_none_has_no_type() -> None:
    assert type_of_base64("ééé") is None


def test_a_name_tells_kinds_of_text_and_office_files_apart() -> None:
    assert [type_of_text(name) for name in ("a.csv", "a.MD", "a.py", None)] == [
        "text/csv",
        "text/markdown",
        "text/plain",
        "text/plain",
    ]
    word = type_of_archive(b"PK\x03\x04...", "a.docx")
    assert word is not None
    assert word.endswith("wordprocessingml.document")
    assert type_of_archive(b"PK\x03\x04...", "a.zip") is None
    assert type_of_archive(b"words", "a.docx") is None


def test_other_names_of_a_type_become_the_name_that_the_apis_know() -> None:
    assert known_type("image/jpg") == "image/jpeg"
    assert known_type("Audio/X-WAV") == "audio/wav"
    assert known_type("text/plain; charset=utf-8") == "text/plain; charset=utf-8"


def test_the_words_of_openai_for_audio_go_both_ways() -> None:
    for word in ("wav", "mp3", "flac", "ogg", "aac", "m4a"):
        assert audio_format(type_of_audio_format(word)) == word
    assert type_of_audio_format("pcm16") == "audio/pcm;rate=24000"
    assert audio_format("audio/L16;codec=pcm;rate=24000") == "pcm16"


def test_text_is_text_under_each_of_its_types() -> None:
    assert all(map(is_text_type, ("text/plain", "text/csv; charset=x", "application/json", "image/svg+xml")))
    assert not any(map(is_text_type, ("application/pdf", "image/png", "application/zip")))
