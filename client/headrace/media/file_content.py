"""Reads the file of an image, audio or document part: from a path, from bytes, or from an open binary file."""

from __future__ import annotations

import base64
import os
from typing import NamedTuple, Protocol

from headrace.errors import InvalidRequestError
from headrace.media.media_types import (
    is_text_type,
    known_type,
    type_of_archive,
    type_of_bytes,
    type_of_text,
)

MAX_FILE_BYTES = 35 * 1024 * 1024
"""Largest file that a message may carry. As base64 it takes a third more, and a request has 48 MiB at most."""
_MIB = 1024 * 1024


class BinaryFile(Protocol):
    """An open binary file, such as ``open(path, "rb")`` or ``io.BytesIO``."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes."""


FileSource = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile
"""A file: its path, its bytes, or an open binary file."""

ALSO_AUDIO = {"video/mp4": "audio/mp4", "video/webm": "audio/webm"}
"""Types of files that may hold audio only → their type then."""


class FileContent(NamedTuple):
    """A file's content. ``shown`` is what an error calls it; ``name`` is None where the file has none."""

    data: bytes
    name: str | None
    shown: str

    def base64(self) -> str:
        """Return the content in base64."""
        return base64.b64encode(self.data).decode("ascii")


class DocumentContent(NamedTuple):
    """A document's content: ``text`` of a text file, else ``data`` in base64."""

    name: str | None
    media_type: str
    data: str | None
    text: str | None


def read_file(file: FileSource) -> FileContent:
    """Read a file.

    Raises OSError (FileNotFoundError, IsADirectoryError, PermissionError) where a path cannot be read, and
    InvalidRequestError for an empty or too large file, a URL, and a value that is no file.
    """
    if isinstance(file, (bytes, bytearray, memoryview)):
        content = FileContent(bytes(file), None, f"the {type(file).__name__} object of {len(file)} bytes")
    elif isinstance(file, (str, os.PathLike)):
        content = _read_path(file)
    elif callable(getattr(file, "read", None)):
        content = _read_open(file)
    else:
        raise InvalidRequestError(f"takes a path, bytes, or an open binary file, not {type(file).__name__}", "file")
    if not content.data:
        raise InvalidRequestError(f"{content.shown} is empty", "file")
    if len(content.data) > MAX_FILE_BYTES:
        raise _too_large(content.shown, len(content.data))
    return content


def _read_path(file: str | os.PathLike[str]) -> FileContent:
    path = os.fspath(file)
    if not isinstance(path, str):
        raise InvalidRequestError(f"takes a path that is a str, not {type(path).__name__}", "file")
    if path.startswith(("http://", "https://", "data:")):
        raise InvalidRequestError("takes a file of this machine, not a URL: give the part's url instead", "file")
    with open(path, "rb") as opened:
        if (size := os.fstat(opened.fileno()).st_size) > MAX_FILE_BYTES:
            raise _too_large(path, size)
        return FileContent(opened.read(MAX_FILE_BYTES + 1), os.path.basename(path), path)


def _read_open(file: BinaryFile) -> FileContent:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else None
    shown = name or f"the {type(file).__name__}"
    data = file.read(MAX_FILE_BYTES + 1)
    if not isinstance(data, (bytes, bytearray)):
        raise InvalidRequestError(f"{shown} is open as text: open it with mode 'rb'", "file")
    return FileContent(bytes(data), os.path.basename(name) if name else None, shown)


def _too_large(shown: str, size: int) -> InvalidRequestError:
    return InvalidRequestError(
        f"{shown} has {_mebibytes(size)} MiB, and a message carries files of at most {MAX_FILE_BYTES // _MIB} MiB: "
        "make it smaller, or upload it to the provider and give the part's url or file_id",
        "file",
    )


def _mebibytes(size: int) -> str:
    """Return a size beyond the limit. A file without a known size is read up to the limit only."""
    limit = MAX_FILE_BYTES // _MIB
    words = f"{size / _MIB:.1f}"
    return f"more than {limit}" if words == f"{limit:.1f}" else words


def read_media(file: FileSource, media_type: str | None, family: str) -> tuple[str, str]:
    """Read an image or audio file. Return its base64 and its media type.

    ``family`` is ``image`` or ``audio``. Raises OSError and InvalidRequestError: see :func:`read_file`; also for a file
    of another family, or of an unknown type.
    """
    content = read_file(file)
    if media_type is not None:
        return content.base64(), checked_type(media_type)
    found = type_of_bytes(content.data)
    if family == "audio":
        found = ALSO_AUDIO.get(found or "", found)
    if found is None:
        raise InvalidRequestError(
            f"{content.shown} is no {family} of a known type: give media_type, such as '{family}/{_EXAMPLE[family]}'",
            "file",
        )
    if not found.startswith(f"{family}/"):
        raise InvalidRequestError(f"{content.shown} is {found}: use {_part_for(found)}.from_file", "file")
    return content.base64(), found


def read_document(file: FileSource, media_type: str | None, name: str | None) -> DocumentContent:
    """Read a PDF, a text file, or another document. Text is UTF-8, or UTF-16 with a byte order mark.

    Raises OSError and InvalidRequestError: see :func:`read_file`; also for images, audio, and files of an unknown type.
    """
    content = read_file(file)
    name = name or content.name
    kind = checked_type(media_type) if media_type is not None else None
    found = kind or type_of_bytes(content.data) or type_of_archive(content.data, name)
    if found is not None and found.startswith(("image/", "audio/")):
        raise InvalidRequestError(f"{content.shown} is {found}: use {_part_for(found)}.from_file", "file")
    if found is not None and not is_text_type(found):
        return DocumentContent(name, found, content.base64(), None)
    text = _text_of(content.data)
    if text is None:
        problem = f"is {found}, but not UTF-8" if found else "is of no known type, and not text in UTF-8"
        raise InvalidRequestError(f"{content.shown} {problem}: give media_type, such as 'application/pdf'", "file")
    return DocumentContent(name, found or type_of_text(name), None, text)


def checked_type(media_type: object) -> str:
    """Return a media type of the form ``type/subtype``. Raises InvalidRequestError for anything else."""
    if not isinstance(media_type, str) or not all(media_type.partition("/")) or " " in media_type.partition(";")[0]:
        raise InvalidRequestError("takes a media type such as 'image/png'", "media_type")
    return known_type(media_type)


def decoded(data: str | None, what: str) -> bytes:
    """Return base64 data as bytes. Raises ValueError if there is none."""
    if data is None:
        raise ValueError(f"the {what} has no data of its own, only a reference to it")
    return base64.b64decode(data)


_EXAMPLE = {"image": "png", "audio": "wav"}


def _part_for(media_type: str) -> str:
    return {"image": "ImagePart", "audio": "AudioPart"}.get(media_type.partition("/")[0], "FilePart")


def _text_of(data: bytes) -> str | None:
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text
