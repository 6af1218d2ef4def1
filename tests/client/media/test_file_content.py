"""Parts made from files: from paths, bytes and open files; each wrong file is an error that names it."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import pytest

from headrace import AudioPart, FilePart, ImagePart, InvalidRequestError
from headrace.media.file_content import MAX_FILE_BYTES
from headrace.wire.messages import MAX_REQUEST_BYTES
from tests.cases import each

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
WAV = b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 24
PDF = b"%PDF-1.7\n" + b"\0" * 32


def test_an_image_comes_from_a_path_bytes_or_an_open_file(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"  # the name is wrong on purpose
    path.write_bytes(PNG)
    with path.open("rb") as opened:
        made = [ImagePart.from_file(file) for file in (path, str(path), PNG, bytearray(PNG), memoryview(PNG), opened)]

    assert made == [ImagePart(data=base64.b64encode(PNG).decode(), media_type="image/png")] * len(made)
    assert made[0].to_bytes() == PNG


def test_audio_and_documents_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    (tmp_path / "report.pdf").write_bytes(PDF)
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbfa,b\n1,2")

    assert AudioPart.from_file(tmp_path / "a.wav") == AudioPart(base64.b64encode(WAV).decode(), "audio/wav")
    pdf = FilePart.from_file(tmp_path / "report.pdf")
    assert pdf == FilePart("report.pdf", "application/pdf", base64.b64encode(PDF).decode())
    assert pdf.to_bytes() == PDF
    assert FilePart.from_file(tmp_path / "rows.csv") == FilePart("rows.csv", "text/csv", text="a,b\n1,2")
    assert FilePart.from_file(b"words", name="a.md") == FilePart("a.md", "text/markdown", text="words")
    assert FilePart.from_file(io.BytesIO("é".encode("utf-16"))).text == "é"
    assert FilePart.from_file(b"\0\1", "application/x-own").media_type == "application/x-own"


def test_a_given_type_counts_and_has_the_form_of_a_type() -> None:
    assert ImagePart.from_file(b"anything", "image/jpg").media_type == "image/jpeg"
    for wrong in ("png", "", "image/", 5):
        with pytest.raises(InvalidRequestError, match="media type such as"):
            ImagePart.from_file(PNG, wrong)  # type: ignore[arg-type]


def test_a_path_that_cannot_be_read_is_an_os_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.png"):
        ImagePart.from_file(tmp_path / "missing.png")
    with pytest.raises(IsADirectoryError, match=tmp_path.name):
        FilePart.from_file(tmp_path)


WRONG: list[tuple[Any, Any, str]] = [
    (ImagePart, b"", "bytes object of 0 bytes is empty"),
    (ImagePart, b"words", r"no image of a known type: give media_type, such as 'image/png'"),
    (ImagePart, PDF, r"application/pdf: use FilePart.from_file"),
    (ImagePart, WAV, r"audio/wav: use AudioPart.from_file"),
    (AudioPart, PNG, r"image/png: use ImagePart.from_file"),
    (FilePart, PNG, r"image/png: use ImagePart.from_file"),
    (FilePart, b"\xff\xfe\0", "not text in UTF-8"),
    (FilePart, b"a\0b", "no known type, and not text"),
    (ImagePart, "https://x.test/a.png", "not a URL: give the part's url"),
    (ImagePart, io.StringIO("x"), "open it with mode 'rb'"),
    (ImagePart, 5, "takes a path, bytes, or an open binary file, not int"),
    (ImagePart, b"\0".join([b""]), "the bytes object of 0 bytes is empty"),
]


@each(("kind", "file", "words"), WRONG)
def test_a_wrong_file_is_an_error_that_says_what_to_do(kind: Any, file: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        kind.from_file(file)


def test_a_file_that_no_request_can_carry_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        os.truncate(file.fileno(), MAX_FILE_BYTES + 1)  # a hole: it takes no room on the disk

    with pytest.raises(InvalidRequestError, match=r"huge.png has more than 35 MiB.*at most 35 MiB"):
        ImagePart.from_file(path)
    with path.open("rb") as opened, pytest.raises(InvalidRequestError, match=r"huge\.png"):
        ImagePart.from_file(opened)
    assert MAX_FILE_BYTES * 4 // 3 < MAX_REQUEST_BYTES


def test_a_part_that_is_only_a_reference_has_no_bytes() -> None:
    for part in (ImagePart("https://x.test/a.png"), FilePart(file_id="f"), AudioPart(url="https://x.test/a.mp3")):
        with pytest.raises(ValueError, match="only a reference"):
            part.to_bytes()


def test_a_part_is_shown_without_its_megabytes() -> None:
    shown = repr(ImagePart.from_file(PNG * 1000))

    assert len(shown) < 200
    assert "media_type='image/png'" in shown
    assert repr(FilePart(file_id="f")) == "FilePart(file_id='f')"
