"""Frames of batch jobs: MessagePack behind four bytes of length. For the pipe to the batch process, and for files of rows.

Pure: reads from and writes to file objects that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Generic, TypeVar

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.wire.batch_messages import BatchAnswer, BatchCall, ProviderAnswer

F = TypeVar("F")

_LENGTH = 4
_MOST_BYTES = 512 * 1024 * 1024
"""Bytes of one frame. A longer one is not read."""
_encode = msgspec.msgpack.Encoder().encode


class StoredRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row of a job, as it is kept until its batch is over.

    ``request``: the encoded RunRequest. ``provider``, ``model``: its own. ``arguments``: those that the row's record
    repeats. ``schema``: stands for the schema of the row's ``response_type``; empty: it has none.
    """

    number: int
    id: str
    kind: str
    form: str
    hash: bytes
    request: bytes
    provider: str
    model: str
    arguments: dict[str, Any] = {}
    schema: bytes = b""


def encode_batch_frame(message: msgspec.Struct) -> bytes:
    """Return a message with its length before it."""
    body = _encode(message)
    return len(body).to_bytes(_LENGTH, "big") + body


class BatchFrameReader(Generic[F]):
    """Reads frames of one type from files and pipes."""

    def __init__(self, message_type: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(message_type).decode

    def read(self, file: BinaryIO) -> F | None:
        """Return the next message. None at the end of the file, also if the file ends within a frame.

        Raises RemoteProtocolError for bytes that are no frame.
        """
        head = _exactly(file, _LENGTH)
        if head is None:
            return None
        length = int.from_bytes(head, "big")
        if length > _MOST_BYTES:
            raise RemoteProtocolError(f"a frame of {length} bytes; {_MOST_BYTES} are read at most")
        body = _exactly(file, length)
        return None if body is None else self.decode(body)

    def decode(self, body: bytes) -> F:
        """Return the message in the bytes of a frame, without its length. Raises RemoteProtocolError."""
        try:
            message: F = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"not a frame of a batch job: {error}") from None
        return message

    def all(self, file: BinaryIO) -> Iterator[F]:
        """Iterate the messages from here to the end of the file."""
        while (message := self.read(file)) is not None:
            yield message


batch_calls: BatchFrameReader[BatchCall] = BatchFrameReader(BatchCall)
batch_answers: BatchFrameReader[BatchAnswer] = BatchFrameReader(BatchAnswer)
stored_rows: BatchFrameReader[StoredRow] = BatchFrameReader(StoredRow)
provider_answers: BatchFrameReader[ProviderAnswer] = BatchFrameReader(ProviderAnswer)


def _exactly(file: BinaryIO, count: int) -> bytes | None:
    """Return so many bytes, None if the file ends before."""
    data = file.read(count)
    while data and len(data) < count:
        more = file.read(count - len(data))
        if not more:
            return None
        data += more
    return data if len(data) == count else None
