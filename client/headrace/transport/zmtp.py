"""ZMTP 3.1 with the NULL mechanism, for both ends of a Unix socket: greeting, READY, frames and their limits. Pure.

The routing id that a peer chooses is ignored. Versions 1 and 2 of ZMTP are refused.
"""

from __future__ import annotations

from collections.abc import Collection

ROUTER = b"ROUTER"
"""The socket type of the bound end."""
DEALER = b"DEALER"
"""The socket type of the connecting end."""
OF_ROUTER = (DEALER,)
"""The socket types that a ROUTER takes as its peers here. The RFC also allows REQ and ROUTER."""
OF_DEALER = (ROUTER, DEALER, b"REP")
"""The socket types that a DEALER takes as its peers."""

_MORE, _LONG, _COMMAND = 1, 2, 4
_READY = b"\x05READY"
_PING = b"\x04PING"
_MAX_COMMAND = 4096
"""Bytes of the longest command that is accepted. READY of a libzmq socket has about 40."""
_SIGNATURE = 10
_GREETING = 64
_VERSION_AT = 10
_MECHANISM = b"NULL".ljust(20, b"\0")
_MECHANISM_AT = slice(12, 32)
_SHORT_HEAD, _LONG_HEAD = 2, 9
_MAX_SHORT = 255


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def _command(body: bytes) -> bytes:
    return bytes([_COMMAND, len(body)]) + body


def opening(socket_type: bytes = ROUTER) -> bytes:
    """Return the first bytes that an end of this socket type sends: its greeting and READY."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x01" + _MECHANISM + bytes(32)
    return greeting + _command(_READY + _property(b"Socket-Type", socket_type) + _property(b"Identity", b""))


def frame_head(size: int) -> bytes:
    """Return the header of a frame of ``size`` bytes."""
    return bytes((0, size)) if size <= _MAX_SHORT else b"\x02" + size.to_bytes(8, "big")


class FrameParser:
    """Takes the bytes of one peer, in pieces of any size, and returns its frames. After a ``breach`` it returns nothing more.

    ``limit`` is the size of the longest frame that is accepted, in bytes. ``peer_types`` are the socket types that the peer may have.
    """

    __slots__ = (
        "_flags",
        "_greeting",
        "_head",
        "_is_plain",
        "_limit",
        "_parts",
        "_peer_types",
        "breach",
        "held",
        "is_ready",
        "missing",
        "replies",
    )

    def __init__(self, limit: int, peer_types: Collection[bytes] = OF_ROUTER) -> None:
        self._limit = limit
        self._peer_types = peer_types
        self._greeting = b""
        self._is_plain = False  # whether the next bytes are those of whole frames: see _go_on
        self._head = b""
        self._flags = 0
        self._parts: list[bytes] = []
        self.missing = 0
        """Bytes that the incomplete frame still needs."""
        self.is_ready = False
        """Whether the handshake is complete."""
        self.breach = ""
        """How the peer broke the rules of ZMTP. Its connection must be ended. Empty if it has kept the rules."""
        self.held = 0
        """Bytes of the incomplete frame that are kept."""
        self.replies: list[bytes] = []
        """Encoded commands that must be sent in answer."""

    def received(self, data: bytes) -> list[bytes]:
        """Take bytes. Return the frames that are complete now."""
        if not self._is_plain:
            return self._go_on(data)
        size = len(data) - _SHORT_HEAD
        if size >= 0 and not data[0] and data[1] == size <= self._limit:
            return [data[_SHORT_HEAD:]]  # one short frame, as most reads have
        frames: list[bytes] = []
        self._split(data, frames)
        return frames

    def _split(self, data: bytes, frames: list[bytes]) -> None:
        """Add the frames in ``data``, which begins with the header of one. Keep what is not complete."""
        position, size = 0, len(data)
        while position < size and not self.breach:
            flags = data[position]
            head = _LONG_HEAD if flags & _LONG else _SHORT_HEAD
            start = position + head
            if start > size:
                self._head = data[position:]
                break
            length = data[position + 1] if head == _SHORT_HEAD else int.from_bytes(data[position + 1 : start], "big")
            if flags & ~_LONG or length > self._limit:
                self.breach = self._wrong(flags, length)
                if self.breach:
                    break
            end = start + length
            if end > size:
                self._flags = flags
                self._parts.append(data[start:])
                self.missing = end - size
                self.held = size - start
                break
            if flags & _COMMAND or not self.is_ready:
                self._whole(flags, data[start:end], frames)
            else:
                frames.append(data[start:end])
            position = end
        self._is_plain = not (self.missing or self._head or self.breach) and self.is_ready

    def _go_on(self, data: bytes) -> list[bytes]:
        """Take bytes before the handshake is complete, after the rules were broken, or if the last bytes ended within a frame."""
        frames: list[bytes] = []
        if self.breach:
            return frames
        if len(self._greeting) < _GREETING:
            data = self._greet(data)
        elif self.missing:
            data = self._complete(data, frames)
        elif self._head:
            data, self._head = self._head + data, b""
        self._split(data, frames)
        return frames

    def _greet(self, data: bytes) -> bytes:
        """Take and check the bytes of the greeting. Return the bytes behind it."""
        count = _GREETING - len(self._greeting)
        self._greeting += data[:count]
        said = self._greeting
        is_known = said[:1] in (b"", b"\xff") and (len(said) < _SIGNATURE or said[_SIGNATURE - 1] & 1)
        if not is_known or (len(said) > _VERSION_AT and said[_VERSION_AT] < 3):  # noqa: PLR2004 - ZMTP 3
            self.breach = "it does not speak ZMTP 3"
        elif len(said) == _GREETING and said[_MECHANISM_AT] != _MECHANISM:
            self.breach = "its mechanism is not NULL"
        return data[count:]

    def _complete(self, data: bytes, frames: list[bytes]) -> bytes:
        """Add bytes to the incomplete frame. Return the bytes behind it."""
        missing = self.missing
        if len(data) < missing:
            self._parts.append(data)
            self.missing -= len(data)
            self.held += len(data)
            return b""
        self._parts.append(data[:missing])
        body = b"".join(self._parts)
        self._parts.clear()
        self.missing = self.held = 0
        self._whole(self._flags, body, frames)
        return data[missing:]

    def _wrong(self, flags: int, length: int) -> str:
        """Return what is wrong with a frame's header, or an empty text."""
        if flags & ~(_LONG | _COMMAND | _MORE):
            return f"a frame has unknown flags: {flags:#x}"
        if flags & _MORE:
            return "a message has one part, not several"
        if flags & _COMMAND and length > _MAX_COMMAND:
            return f"a command has at most {_MAX_COMMAND} bytes, not {length}"
        return f"a frame has at most {self._limit} bytes, not {length}" if length > self._limit else ""

    def _whole(self, flags: int, body: bytes, frames: list[bytes]) -> None:
        if not flags & _COMMAND:
            if self.is_ready:
                frames.append(body)
            else:
                self.breach = "a message came before READY"
        elif not self.is_ready:
            self.is_ready = _is_ready(body, self._peer_types)
            if not self.is_ready:
                self.breach = f"it is not a {b' or '.join(self._peer_types).decode()} that is ready"
        elif body.startswith(_PING):
            context = body[len(_PING) + 2 :]  # behind the time to live
            if len(body) < len(_PING) + 2 or len(context) > 16:  # noqa: PLR2004 - the protocol's
                self.breach = "a PING has the wrong length"
            else:
                self.replies.append(_command(b"\x04PONG" + context))


def _is_ready(body: bytes, socket_types: Collection[bytes]) -> bool:
    """Return whether a command is READY of a socket of one of these types, with well-formed properties."""
    if not body.startswith(_READY):
        return False
    position = len(_READY)
    while position < len(body):
        name_end = position + 1 + body[position]
        value_at = name_end + 4
        end = value_at + int.from_bytes(body[name_end:value_at], "big")
        if value_at > len(body) or end > len(body):
            return False
        if body[position + 1 : name_end] == b"Socket-Type" and body[value_at:end] not in socket_types:
            return False
        position = end
    return True
