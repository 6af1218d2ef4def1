"""Spoils bytes as a network, a proxy, a careless server or an attacker does.

The same random generator spoils them in the same way.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

MAX_BYTES = 512 * 1024
"""No mutation makes more of an input than this."""

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_STRING = re.compile(rb'"[^"\\]{0,40}"')
_EVENT_END = re.compile(rb"\r?\n\r?\n")
_NUMBERS = (
    b"1e999",
    b"-1",
    b"0",
    b"9" * 25,
    b"9" * 5000,
    b"1e308",
    b"-9223372036854775809",
    b"NaN",
    b"-Infinity",
    b"0.5",
)
_BYTES = (
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf0\x9f",
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xe2\x80\xa8",
    b"\r",
    b"\n",
    b"\n\n",
    b"\\ud800",
    b"\\u0000",
    b'"',
    b"}",
    b"{",
    b"[",
    b"]",
    b":",
    b"data:",
    b"data: [DONE]\n\n",
    b"event: error\n",
    b": ping\n",
    b"null",
)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    3.5,
    2**53,
    2**70,
    10**400,
    "",
    "x",
    "\ud83d",
    "error",
    "length",
    "[DONE]",
    [],
    {},
    [None],
    [[]],
    [{}],
    {"": None},
    {"type": "error", "error": {"message": "m", "code": 7}},
)

Mutate = Callable[[random.Random, bytes, bytes], bytes]
"""Returns the second argument, spoiled; the third is another input to take pieces from."""


def mutated(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return ``data`` after a few mutations, mostly one or two."""
    for _ in range(1 + int(rng.expovariate(0.7))):
        data = rng.choice(_MUTATIONS)(rng, data, other)[:MAX_BYTES]
    return data


def split(rng: random.Random, data: bytes) -> list[bytes]:
    """Return ``data`` as the network might deliver it."""
    way = rng.random()
    if way < 0.25 or not data:
        return [data]
    if way < 0.4 and len(data) <= 4096:
        return [data[at : at + 1] for at in range(len(data))]
    mean = rng.choice((3, 30, 300, 3000))
    mean = max(mean, len(data) // 2000)
    pieces, at = [], 0
    while at < len(data):
        size = 1 + int(rng.expovariate(1 / mean))
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _flip_bits(rng: random.Random, data: bytes, other: bytes) -> bytes:
    spoiled = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 2, 8))):
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def _slice(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + 1 + int(rng.expovariate(1 / rng.choice((2, 40, 800)))))


def _delete(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:start] + data[end:]


def _duplicate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = _slice(rng, data)
    return data[:end] + data[start:end] * rng.choice((1, 1, 3, 50)) + data[end:]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def _insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_BYTES) * rng.choice((1, 1, 1, 7)) + data[at:]


def _replace(pattern: re.Pattern[bytes], rng: random.Random, data: bytes, new: bytes) -> bytes:
    found = list(pattern.finditer(data[: 64 * 1024]))
    if not found:
        return data
    match = rng.choice(found)
    return data[: match.start()] + new + data[match.end() :]


def _other_number(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return _replace(_NUMBER, rng, data, rng.choice(_NUMBERS))


def _other_string(rng: random.Random, data: bytes, other: bytes) -> bytes:
    strings = _STRING.findall(other[: 64 * 1024])
    return _replace(_STRING, rng, data, rng.choice(strings)) if strings else data


def _nest(rng: random.Random, data: bytes, other: bytes) -> bytes:
    depth = rng.choice((50, 480, 900, 985, 1200, 20_000))
    opened, closed = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nested = opened * depth + b"1" + closed * (depth if rng.random() < 0.8 else depth // 2)
    return _replace(rng.choice((_NUMBER, _STRING)), rng, data, nested)


def _line_ends(rng: random.Random, data: bytes, other: bytes) -> bytes:
    end = rng.choice((b"\r\n", b"\r", b"\n"))
    return data.replace(b"\r\n", b"\n").replace(b"\n", end)


def _events(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Repeat, drop, swap or take over whole events."""
    events = _EVENT_END.split(data)
    at = rng.randrange(len(events))
    match rng.randrange(5):
        case 0:
            events[at:at] = [events[at]] * min(rng.choice((1, 3, 200, 3000)), MAX_BYTES // (len(events[at]) + 1))
        case 1:
            del events[at]
        case 2:
            rng.shuffle(events)
        case 3:
            events.insert(at, rng.choice(_EVENT_END.split(other)))
        case _:
            events = events[at:]
    return b"\n\n".join(events)


def _json_node(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Change one value, or one key, in the JSON of one event or of the whole body."""
    lines = data.split(b"\n")
    places = [at for at, line in enumerate(lines) if b"{" in line]
    if not places:
        return data
    at = rng.choice(places)
    start = lines[at].index(b"{")
    try:
        whole: Any = json.loads(lines[at][start:])
    except (ValueError, RecursionError):
        try:
            start, lines, at = 0, [data], 0
            whole = json.loads(data)
        except (ValueError, RecursionError):
            return data
    changed = _changed(rng, whole)
    try:
        lines[at] = lines[at][:start] + json.dumps(changed, ensure_ascii=rng.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
    except (RecursionError, ValueError):
        return data
    return b"\n".join(lines)


def _changed(rng: random.Random, whole: Any) -> Any:
    node, chosen = whole, None
    while isinstance(node, dict | list) and node:
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        chosen = (node, key)
        node = node[key]
        if rng.random() < 0.25:
            break
    if chosen is None:
        return rng.choice(_VALUES)
    parent, key = chosen
    match rng.randrange(4):
        case 0:
            del parent[key]
        case 1:
            parent[key] = [parent[key]]
        case 2 if isinstance(parent, list):
            parent.extend([parent[key]] * rng.choice((1, 40)))
        case _:
            parent[key] = rng.choice(_VALUES)
    return whole


_MUTATIONS: tuple[Mutate, ...] = (
    _flip_bits,
    _delete,
    _duplicate,
    _splice,
    _truncate,
    _insert,
    _other_number,
    _other_string,
    _nest,
    _line_ends,
    _events,
    _events,
    _json_node,
    _json_node,
    _json_node,
)
