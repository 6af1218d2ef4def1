"""Images, audio and files in requests: what several wire formats share. Pure.

What a format does not take is refused here, with the place in the caller's arguments, and never dropped silently.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Collection

import msgspec

from headrace.media.media_types import PDF
from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, TextPart
from headrace_workers.providers.shared.provider_errors import protocol_failure, request_failure
from headrace_workers.providers.shared.request_parts import word_for
from headrace_workers.providers.shared.wire_format import ProviderFailedError

_DATA_URL = re.compile(r"data:(?P<media_type>[^;,]+);base64,(?P<data>.*)", re.DOTALL)
_MIB = 1024 * 1024

COMMON_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class Blob(msgspec.Struct, frozen=True):
    """Content that is sent as base64."""

    media_type: str
    data: str


def blob_of(where: str, part: ImagePart | AudioPart | FilePart) -> Blob | None:
    """Return the content of a part that holds it itself, in ``data``, ``text`` or a ``data:`` URL; else None."""
    if isinstance(part, FilePart) and part.text is not None:
        data = base64.b64encode(part.text.encode()).decode("ascii")
        return Blob(part.media_type or "text/plain", data)
    if part.data and part.media_type:
        return Blob(part.media_type, part.data)
    if part.url and part.url.startswith("data:"):
        inline = _DATA_URL.fullmatch(part.url)
        if inline is None:
            raise request_failure("a data: URL needs a media type and base64", f"{where}.url")
        return Blob(inline["media_type"], inline["data"])
    return None


def address_of(where: str, part: ImagePart | AudioPart | FilePart, what: str) -> str:
    """Return the URL of a part that holds no content itself. Raises ProviderFailedError if it has none."""
    if not part.url:
        raise request_failure(f"{what} needs url, or data and media_type", where)
    return part.url


def data_url(blob: Blob) -> str:
    """Return content as a ``data:`` URL."""
    return f"data:{blob.media_type};base64,{blob.data}"


def check_type(where: str, blob: Blob, taken: Collection[str], api: str, what: str) -> None:
    """Raise ProviderFailedError (``invalid_request``) if an API does not take content of this media type."""
    if blob.media_type.partition(";")[0].strip() not in taken:
        words = ", ".join(sorted(taken))
        raise request_failure(f"{api} takes {what} of the types {words}, not {blob.media_type}", f"{where}.media_type")


def check_size(where: str, blob: Blob, limit: int, api: str, what: str) -> None:
    """Raise ProviderFailedError (``invalid_request``) if base64 content has more than ``limit`` characters."""
    if len(blob.data) > limit:
        size = f"{len(blob.data) / _MIB:.1f} MiB as base64"
        raise request_failure(f"{api} takes {what} of at most {limit // _MIB} MiB, not {size}: make it smaller", where)


def file_name(part: FilePart, media_type: str) -> str:
    """Return a name for a file, which OpenAI needs."""
    if part.name:
        return part.name
    return "file.pdf" if media_type == PDF else "file.txt" if media_type.startswith("text/") else "file"


def file_as_text(part: FilePart) -> str | None:
    """Return a text file as text with its name, for APIs that take text files only so; None for other files."""
    if part.text is None:
        return None
    head = f'<file name="{part.name}">' if part.name else "<file>"
    return f"{head}\n{part.text}\n</file>"


def with_files_as_text(message: Message) -> Message:
    """Return a message with its text files as text parts, each in its place."""
    if isinstance(message.content, str) or not any(isinstance(part, FilePart) for part in message.content):
        return message
    content: list[Part] = []
    for part in message.content:
        text = file_as_text(part) if isinstance(part, FilePart) else None
        content.append(part if text is None else TextPart(text, extra=part.extra))
    return msgspec.structs.replace(message, content=content)


def spoken_texts(message: Message) -> frozenset[str]:
    """Return the transcripts of the audio in a message of the assistant, each of which is also a text part."""
    if isinstance(message.content, str):
        return frozenset()
    return frozenset(part.transcript for part in message.content if isinstance(part, AudioPart) and part.transcript)


def is_left_out(part: Part, message: Message) -> bool:
    """Return whether a part of the assistant's message need not be sent.

    That is audio if the message also has its words as text, and the reference to a file that a model made: what made it
    refers to it as well.
    """
    if isinstance(part, FilePart):
        return bool(part.file_id and part.provider_data)
    if not isinstance(part, AudioPart) or not part.transcript or isinstance(message.content, str):
        return False
    return any(isinstance(other, TextPart) and other.text == part.transcript for other in message.content)


def refused_in_answer(where: str, part: Part) -> ProviderFailedError:
    """Return the error for a part that a message of the assistant cannot hold."""
    advice = "put it into a message with role user"
    return request_failure(f"a message with role assistant cannot hold {word_for(part)}: {advice}", where)


def joined_base64(pieces: list[str]) -> str:
    """Return base64 that came in pieces, each of them encoded apart. A piece that is no base64 is an error."""
    if all(not piece.endswith("=") and len(piece) % 4 == 0 for piece in pieces[:-1]):
        return "".join(pieces)
    try:
        return base64.b64encode(b"".join([base64.b64decode(piece) for piece in pieces])).decode("ascii")
    except ValueError:
        raise protocol_failure("audio in the answer is no base64") from None
