"""Finds the media type of a file by its first bytes, and the words of the APIs for it. Pure.

A file's name is not asked, except for types that have no bytes of their own: kinds of text, and Office files, which are
all ZIP archives.
"""

from __future__ import annotations

import binascii

PDF = "application/pdf"
PLAIN_TEXT = "text/plain"

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"ID3", "audio/mpeg"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"#!AMR", "audio/amr"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
)
_IN_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_IN_FORM = {b"AIFF": "audio/aiff", b"AIFC": "audio/aiff"}
_BRANDS = {
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"heim": "image/heic",
    b"heis": "image/heic",
    b"hevc": "image/heic",
    b"mif1": "image/heif",
    b"msf1": "image/heif",
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
    b"qt  ": "video/quicktime",
}
"""Brand of an ISO media file → its type. All other brands are video/mp4."""
_MP3_FRAMES = (b"\xfb", b"\xfa", b"\xf3", b"\xf2", b"\xe3", b"\xe2")
_AAC_FRAMES = (b"\xf1", b"\xf9", b"\xf0", b"\xf8")
"""Second bytes of a frame of audio without a head; its first byte is 0xff."""
_PDF_WITHIN = 1024
"""Bytes in which a PDF's mark stands: readers of PDF allow other bytes before it."""

_BY_SUFFIX = {
    "csv": "text/csv",
    "css": "text/css",
    "htm": "text/html",
    "html": "text/html",
    "json": "application/json",
    "md": "text/markdown",
    "tsv": "text/tab-separated-values",
    "xml": "text/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
}
"""Suffix of a text file → its type. All other text is plain text."""
_ARCHIVES = {
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "odt": "application/vnd.oasis.opendocument.text",
    "epub": "application/epub+zip",
}
_TEXTS = frozenset({"application/json", "application/yaml", "application/xml", "application/javascript"})

_AUDIO_FORMATS = {
    "audio/wav": "wav",
    "audio/mpeg": "mp3",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/aac": "aac",
    "audio/aiff": "aiff",
    "audio/mp4": "m4a",
    "audio/webm": "webm",
    "audio/amr": "amr",
    "audio/pcm": "pcm16",
}
_SAME = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "audio/mp3": "audio/mpeg",
    "audio/x-mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "audio/x-flac": "audio/flac",
    "audio/x-aiff": "audio/aiff",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "audio/opus": "audio/ogg",
    "audio/pcm16": "audio/pcm",
    "application/x-pdf": PDF,
}
"""Other names of a type → the name that the APIs know."""


def type_of_bytes(data: bytes) -> str | None:
    """Return the media type of a file by its first bytes; None if they are of no known binary type."""
    head = data[:_PDF_WITHIN]
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head.startswith(b"RIFF"):
        return _IN_RIFF.get(head[8:12])
    if head.startswith(b"FORM"):
        return _IN_FORM.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"BM") and head[6:10] == b"\0\0\0\0":
        return "image/bmp"
    if b"%PDF-" in head:
        return PDF
    return _type_of_frames(head)


def _type_of_frames(head: bytes) -> str | None:
    """Return the type of audio that begins with a frame: MP3 without tags, or AAC."""
    if head[:1] != b"\xff":
        return None
    second = head[1:2]
    return "audio/mpeg" if second in _MP3_FRAMES else "audio/aac" if second in _AAC_FRAMES else None


def type_of_base64(data: str) -> str | None:
    """Return the media type of base64 data by its first bytes; see :func:`type_of_bytes`."""
    head = data[: 4 * (_PDF_WITHIN // 3)]
    try:
        return type_of_bytes(binascii.a2b_base64(head[: len(head) - len(head) % 4]))
    except (binascii.Error, ValueError):
        return None


def type_of_archive(data: bytes, name: str | None) -> str | None:
    """Return the media type of an Office file, by its name; None for other files."""
    return _ARCHIVES.get(_suffix(name)) if data.startswith(b"PK\x03\x04") else None


def type_of_name(name: str | None) -> str | None:
    """Return the media type that a file's name says; None if it says none. Only for files of unknown content."""
    suffix = _suffix(name)
    return PDF if suffix == "pdf" else _BY_SUFFIX.get(suffix) or _ARCHIVES.get(suffix)


def type_of_text(name: str | None) -> str:
    """Return the media type of a text file, by its name: ``text/plain`` if the name says nothing else."""
    return _BY_SUFFIX.get(_suffix(name), PLAIN_TEXT)


def is_text_type(media_type: str) -> bool:
    """Return whether files of a media type are text."""
    plain = media_type.partition(";")[0].strip()
    return plain.startswith("text/") or plain in _TEXTS or plain.endswith(("+json", "+xml"))


def known_type(media_type: str) -> str:
    """Return a media type in lower case, by the name that the APIs know: ``image/jpeg`` for ``image/jpg``."""
    plain, mark, rest = media_type.partition(";")
    plain = plain.strip().lower()
    return f"{_SAME.get(plain, plain)}{mark}{rest}"


def audio_format(media_type: str) -> str:
    """Return OpenAI's word for a type of audio, such as ``mp3``."""
    plain = known_type(media_type).partition(";")[0]
    if plain == "audio/l16":
        return "pcm16"
    return _AUDIO_FORMATS.get(plain, plain.removeprefix("audio/"))


def type_of_audio_format(word: str) -> str:
    """Return the media type for OpenAI's word for a type of audio, such as ``mp3``."""
    lower = word.strip().lower()
    for kind, known in _AUDIO_FORMATS.items():
        if known == lower:
            return "audio/pcm;rate=24000" if known == "pcm16" else kind
    return known_type(f"audio/{lower}")


def _suffix(name: str | None) -> str:
    return (name or "").rpartition(".")[2].lower()
