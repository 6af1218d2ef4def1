"""Encodes and decodes frames: one version byte, then MessagePack ``[epoch, [message, …]]``. Pure.

No other module knows the encoding. A frame has all messages that became ready for one peer at one time. Bytes that are
not a frame raise :class:`RemoteProtocolError`. The receiver decides what happens to the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.wire.bounds import Count, Words, cut
from headrace.wire.messages import (
    MAX_FRAME_MESSAGES,
    PROTOCOL_MAJOR,
    FromBroker,
    FromCollector,
    FromWorker,
    ToBroker,
    ToCollector,
    ToWorker,
)
from headrace.wire.run_request import KNOWN_NEEDS, RunRequest, needs
from headrace.wire.value_count import MAX_VALUES, has_too_many_values

M = TypeVar("M")

_MAX_TOLD = 500
"""Characters of an error text at most. It may quote something that is as long as the frame."""
_VERSION = bytes([PROTOCOL_MAJOR])
_encode = msgspec.msgpack.Encoder().encode


def encode_frame(epoch: int, messages: Sequence[msgspec.Struct]) -> bytes:
    """Return the frame with ``messages``. ``epoch`` is the number of the sending process."""
    return _VERSION + _encode((epoch, messages))


class FrameDecoder(Generic[M]):
    """Decodes the frames of one direction. ``message_type`` is the union of its messages.

    The decoder is made for the first frame: a process needs a few directions only, and each takes a millisecond of its start.
    """

    def __init__(self, message_type: Any, max_messages: int | None = None) -> None:
        self._message_type = message_type
        self._max_messages = max_messages

    @cached_property
    def _decode(self) -> Callable[[memoryview], tuple[int, list[M]]]:
        messages: Any = Annotated[list[self._message_type], msgspec.Meta(max_length=self._max_messages)]  # type: ignore[name-defined]
        return msgspec.msgpack.Decoder(tuple[Count, messages]).decode

    def decode(self, frame: bytes) -> tuple[int, list[M]]:
        """Return the sender's epoch and the messages.

        Raises ProtocolMismatchError if the sender speaks another major version, and RemoteProtocolError for all other
        bytes that are not a frame of this direction.
        """
        if not frame:
            raise RemoteProtocolError("empty frame")
        if frame[0] != PROTOCOL_MAJOR:
            raise ProtocolMismatchError(PROTOCOL_MAJOR, frame[0])
        try:
            return self._decode(memoryview(frame)[1:])
        # RecursionError and UnicodeDecodeError are no DecodeErrors. Hostile bytes can cause each of them.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(cut(f"not a frame of this direction: {error}", _MAX_TOLD)) from None


to_broker: FrameDecoder[ToBroker] = FrameDecoder(ToBroker, MAX_FRAME_MESSAGES)
from_broker: FrameDecoder[FromBroker] = FrameDecoder(FromBroker)
to_worker: FrameDecoder[ToWorker] = FrameDecoder(ToWorker, MAX_FRAME_MESSAGES)
from_worker: FrameDecoder[FromWorker] = FrameDecoder(FromWorker)
to_collector: FrameDecoder[ToCollector] = FrameDecoder(ToCollector, MAX_FRAME_MESSAGES)
from_collector: FrameDecoder[FromCollector] = FrameDecoder(FromCollector)


@cache
def _request_decoder() -> msgspec.msgpack.Decoder[RunRequest]:
    return msgspec.msgpack.Decoder(RunRequest)


_needy_request_decoder = msgspec.msgpack.Decoder(tuple[Words, msgspec.Raw])
_MAPS = frozenset({*range(0x80, 0x90), 0xDE, 0xDF})
"""First bytes of a MessagePack map."""


def encode_request(request: RunRequest) -> bytes:
    """Return a request as the bytes of ``Run.request``.

    A request with parts that minor version 1 does not know is an array: its needs, and the request. An older worker
    refuses an array. It would drop the parts without a word if the request was a map.
    """
    needed = needs(request)
    return _encode((needed, request)) if needed else _encode(request)


class RequestPattern:
    """Encodes many requests that differ only in a few fields, in a fraction of the time.

    ``request``: any of them, in which none of these fields has its default. ``fields``: the fields that differ, in the
    order in which RunRequest has them. Each value is a text, or a list.

    Raises ValueError if the encoded request cannot be taken apart.
    """

    def __init__(self, request: RunRequest, fields: Sequence[str]) -> None:
        stand_ins = {name: _STAND_INS.get(name, f"stand-in of {name}") for name in fields}
        changes: dict[str, Any] = dict(stand_ins)
        rest = encode_request(msgspec.structs.replace(request, **changes))
        pieces: list[bytes] = []
        for name in fields:
            before, rest = _parted(rest, _encode(name) + _encode(stand_ins[name]))
            pieces.append(before + _encode(name))
        self._pieces, self._last = pieces, rest

    def encode(self, values: Sequence[Any]) -> bytes:
        """Return the encoded request with these values of the fields.

        Raises the errors of msgspec for a value that cannot be encoded.
        """
        parts: list[bytes] = []
        for piece, value in zip(self._pieces, values, strict=True):
            parts += (piece, _encode(value))
        parts.append(self._last)
        return b"".join(parts)


_STAND_INS: dict[str, Any] = {"messages": [], "inputs": [""]}
"""Field → its stand-in, for fields that are no texts."""


def _parted(data: bytes, mark: bytes) -> tuple[bytes, bytes]:
    """Return what is before and behind ``mark``. Raises ValueError if it is not there exactly once."""
    before, behind = data.split(mark)
    return before, behind


def decode_request(data: bytes) -> RunRequest:
    """Return the request in ``Run.request``.

    Raises RemoteProtocolError if the bytes are no request, have too many values, or have a need that this version does
    not know.
    """
    if has_too_many_values(data):
        raise RemoteProtocolError(f"the request has more than {MAX_VALUES} values, keys among them")
    try:
        if data and data[0] not in _MAPS:
            needed, data = _needy_request_decoder.decode(data)
            if unknown := sorted(set(needed) - KNOWN_NEEDS):
                told = f"the run needs a newer engine; this one does not know {', '.join(unknown)}"
                raise RemoteProtocolError(cut(told, _MAX_TOLD))
        return _request_decoder().decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(cut(f"not a run request: {error}", _MAX_TOLD)) from None
