"""A program of the same user that attacks an engine's sockets at full speed.

``python -m tests.faults.hostile_program DIRECTORY SECONDS``.

It says every message of the protocol with extreme values, spoiled frames, spoiled ZMTP, halves of large frames, messages of many
parts, and connects without end; it grants all the credit there is and reads nothing. It prints, as JSON, what it did how often.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
from msgspec import inspect

from headrace.transport.zmtp import frame_head, opening
from headrace.types import Message
from headrace.wire.codec import encode_frame, encode_request
from headrace.wire.messages import (
    FromBroker,
    FromCollector,
    FromWorker,
    Hello,
    Run,
    ToBroker,
    ToCollector,
    ToWorker,
)
from headrace.wire.run_request import RunRequest

KINDS: list[type[msgspec.Struct]] = sorted(
    {
        kind
        for union in (ToBroker, ToWorker, ToCollector, FromBroker, FromWorker, FromCollector)
        for kind in get_args(union)
    },
    key=lambda kind: kind.__name__,
)
DEALER = opening(b"DEALER")
_OPEN = 1500
"""Connections that are held, until the oldest is closed."""
_INTEGERS = (0, 1, -1, 2**31, 2**53, 2**62, 2**63 - 1, 2**64 - 1, -(2**63))
_FLOATS = (0.0, -1.0, 1e300, float("inf"), float("nan"))
_TEXTS = (
    "",
    "sp_0123456789abcdef",
    "x" * 64,
    "\x1b[2J\u202e",
    "x" * 70_000,
    "../../etc/passwd",
    "w1",
    "client",
    "worker",
)
_SIMPLE: dict[type[inspect.Type], tuple[Any, ...]] = {
    inspect.IntType: _INTEGERS,
    inspect.FloatType: _FLOATS,
    inspect.StrType: _TEXTS,
    inspect.BytesType: (b"", b"x", os.urandom(1000), b"\xff" * 100_000),
}


class HostileProgram:
    """Its connections, and what it has done."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._random = random.Random(seed)
        self._open: deque[socket.socket] = deque()
        self.counts: Counter[str] = Counter()
        # Messages are said three times as often as the rest.
        self._attacks: list[Callable[[Path], None]] = [self._say, self._say, self._say, self._flood, self._lie]
        self._attacks += [self._spoil, self._halve, self._connect, self._claim, self._parts, self._enlarge]

    def run(self, seconds: float) -> None:
        """Attack for so long."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            paths = [path for path in self._directory.iterdir() if path.is_socket()]
            for path in paths:
                attack = self._random.choice(self._attacks)
                with contextlib.suppress(OSError):
                    attack(path)

    def _peer(self, path: Path, *said: bytes) -> socket.socket:
        """Connect and say something, as far as the other end takes it. Nothing is ever read."""
        one = socket.socket(socket.AF_UNIX)
        one.setblocking(False)
        one.connect(str(path))
        self.counts["connections"] += 1
        self._open.append(one)
        if len(self._open) > _OPEN:
            self._open.popleft().close()
        for data in said:
            one.sendall(data)
        return one

    def _frame(self, body: bytes) -> bytes:
        return frame_head(len(body)) + body

    def _hello(self) -> bytes:
        role = self._random.choice(("client", "client", "client", "worker", "supervisor", "collector", "broker"))
        hello = Hello(role, 2, os.getpid(), ["joined", "query", "spans"], "w1", f"ipc://{self._directory}/w1-1")  # type: ignore[arg-type]
        return DEALER + self._frame(encode_frame(self._random.getrandbits(31), [hello]))

    def _value(self, kind: inspect.Type, depth: int = 0) -> Any:
        """Return an extreme value of a declared type, or of another."""
        rng = self._random
        if rng.random() < 0.05 or depth > 3:
            return rng.choice((None, True, [], {}, b"", [[[[]]]], "odd", 2**64 - 1))
        if (simple := _SIMPLE.get(type(kind))) is not None:
            return rng.choice(simple)
        match kind:
            case inspect.LiteralType():
                return rng.choice(kind.values)
            case inspect.ListType():
                count = rng.choice((0, 1, 2, 50, 2000 if depth == 0 else 3))
                return [self._value(kind.item_type, depth + 1) for _ in range(count)]
            case inspect.DictType():
                count = rng.choice((0, 1, 100))
                return {f"k{number}": self._value(kind.value_type, depth + 1) for number in range(count)}
            case inspect.TupleType():
                return [self._value(part, depth + 1) for part in kind.item_types]
            case inspect.UnionType():
                return self._value(rng.choice(kind.types), depth)
            case inspect.StructType():
                fields = [self._value(field.type, depth + 1) for field in kind.fields]
                return fields if kind.tag is None else [kind.tag, *fields]
            case _:
                return rng.choice((True, False, None))

    def _said(self) -> Any:
        kind = self._random.choice(KINDS)
        self.counts[kind.__name__] += 1
        return self._value(inspect.type_info(kind))

    def _say(self, path: Path) -> None:
        """Say hello, then send every message of the protocol."""
        one = self._peer(path, self._hello())
        for _ in range(self._random.choice((1, 5, 30))):
            frame = b"\x01" + msgspec.msgpack.encode([self._random.choice((1, 7, 2**62)), [self._said()]])
            one.sendall(self._frame(frame))

    def _flood(self, path: Path) -> None:
        """Say the same small thing ten thousand times in each frame."""
        small = self._random.choice(
            ([14], [33, "", 1], [31, "sp_1", 1, 9, 9], [13, "sp_1", 1], [52, 1, 9.0], [20], [10, "sp_1", 1, "p", "m"])
        )
        frame = self._frame(b"\x01" + msgspec.msgpack.encode([1, [small] * 10_000]))
        one = self._peer(path, self._hello())
        for _ in range(10):
            self.counts["small messages"] += 10_000
            one.sendall(frame)

    def _lie(self, path: Path) -> None:
        """Begin runs, grant all the credit there is, and read nothing."""
        if not path.name.startswith("w"):
            return
        epoch = int(path.name.partition("-")[2], 16)
        options = {"simulate": {"repeat": 20_000}}
        request = RunRequest(
            provider="openai", model="gpt-4o", messages=[Message("user", "x")], stream=True, custom_options=options
        )
        spans = [f"sp_{self._random.getrandbits(64):016x}" for _ in range(3)]
        runs = [Run(span, 1, epoch, encode_request(request), 2**62, 2**62) for span in spans]
        one = self._peer(path, DEALER, self._frame(encode_frame(1, [Hello("client", 2, os.getpid())])))
        one.sendall(self._frame(encode_frame(1, runs)))
        credit = msgspec.msgpack.encode([1, [[31, span, 1, 2**64 - 1, 2**64 - 1] for span in spans]])
        for _ in range(50):
            self.counts["credit of 2**64"] += 1
            one.sendall(self._frame(b"\x01" + credit))

    def _spoil(self, path: Path) -> None:
        said = bytearray(
            self._hello() + self._frame(b"\x01" + msgspec.msgpack.encode([1, [self._said() for _ in range(5)]]))
        )
        for _ in range(self._random.randint(1, 20)):
            said[self._random.randrange(len(said))] = self._random.randrange(256)
        self.counts["spoiled"] += 1
        self._peer(path, bytes(said))

    def _halve(self, path: Path) -> None:
        self.counts["halves"] += 1
        self._peer(path, self._hello(), frame_head(self._random.choice((4_000_000, 60_000_000))), bytes(150_000))

    def _connect(self, path: Path) -> None:
        greeting = self._random.choice(
            (b"", DEALER[:10], DEALER, b"\xff" + bytes(8) + b"\x7f\x01", b"GET / HTTP/1.1\r\n\r\n")
        )
        for _ in range(100):
            self._peer(path, greeting)

    def _claim(self, path: Path) -> None:
        """Claim a routing id that libzmq might make."""
        identity = b"\0" + self._random.randbytes(4)
        body = b"\x05READY\x0bSocket-Type\0\0\0\6DEALER\x08Identity\0\0\0\5" + identity
        self.counts["routing ids"] += 1
        self._peer(path, DEALER[:64], b"\x04" + bytes([len(body)]) + body)

    def _parts(self, path: Path) -> None:
        self.counts["parts"] += 10_000
        self._peer(path, self._hello(), b"\x01\x01x" * 10_000)

    def _enlarge(self, path: Path) -> None:
        """Say something large that is whole."""
        one = self._peer(path, self._hello())
        one.setblocking(True)
        one.settimeout(0.5)
        size = 3_900_000 if not path.name.startswith("w") else 8_000_000
        large = self._random.choice(
            (
                [50, 1, [b"x" * size]],
                [10, "sp_1", 1, "p", "m", "batch", [7] * size],
                [30, "sp_1", 1, 1, b"x" * size, 64, 64],
            )
        )
        self.counts["large"] += 1
        one.sendall(self._frame(b"\x01" + msgspec.msgpack.encode([1, [large]])))


def main() -> None:
    directory, seconds, seed = Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    program = HostileProgram(directory, seed)
    print("begins", flush=True)
    program.run(seconds)
    print(json.dumps(program.counts), flush=True)


if __name__ == "__main__":
    main()
