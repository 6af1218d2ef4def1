"""The fuzz targets.

Each has a function that makes an input, and one that checks it. An input holds all that its check depends on.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

import msgspec

from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.sse import MAX_EVENT_BYTES, EventTooLargeError, SSEParser
from headrace_workers.runs.body_kind import BOM, BodyKind
from headrace_workers.runs.response_body import Response
from tests.fuzz.frames import Frame, check_frame, make_frame
from tests.fuzz.fuzzed_exchange import FuzzedExchange, carry_out
from tests.fuzz.mutation import mutated, split
from tests.fuzz.seeds import WIRES, Seed, seeds_of

I = TypeVar("I", bound=msgspec.Struct)  # noqa: E741 - an input

_STATUSES = (200, 200, 201, 204, 302, 400, 401, 403, 404, 408, 413, 422, 429, 500, 502, 503, 529, 999)
_CONTENT_TYPES = ("text/event-stream", "application/json", "text/html", "text/plain; charset=utf-8", "", "\xff;")
_BEGINNINGS = (
    b"",
    BOM,
    b"\n\r\n",
    BOM + b"\n ",
    b": ping\n\n",
    b"event: x\n",
    b"retry: 1\n",
    b"id\n",
    b"[",
    b"<",
    b"{}\n",
    b"da",
)
_HEADERS = ("retry-after", "retry-after-ms", "date", "x-request-id", "request-id", "content-type")
_DATE = b"Mon, 23 Nov 2026 05:36:27 GMT"
_WAITS = (
    b"3",
    b"0.5",
    b"-1",
    b"inf",
    b"nan",
    b"1e400",
    b"9" * 400,
    _DATE,
    b"Mon, 23 Nov 2026 05:36:27 +9999999999",
    b"",
)


class Target(msgspec.Struct, Generic[I], frozen=True):
    """``make`` and ``check`` of one kind of input; ``check`` returns in a word what it came to."""

    name: str
    input_type: type[I]
    make: Callable[[random.Random], I]
    check: Callable[[I], str]


class StreamBody(msgspec.Struct, frozen=True):
    """A body for the SSE parser; ``choices`` seeds its chunking."""

    body: bytes
    limit: int
    choices: int


class Beginning(msgspec.Struct, frozen=True):
    """A body without a known kind; ``choices`` seeds how it is split."""

    body: bytes
    content_type: str
    is_streamed: bool
    choices: int


class Headers(msgspec.Struct, frozen=True):
    """What an error response says beside its body."""

    api: str
    status: int
    headers: dict[str, str]
    body: bytes


def _pick(rng: random.Random, api: str) -> Seed:
    """Return a response; of the large ones few, since they take long and hold nothing new."""
    seeds = seeds_of(api)
    return min(rng.sample(seeds, 2), key=lambda seed: len(seed.body)) if rng.random() < 0.9 else rng.choice(seeds)


def _make_exchange(api: str, rng: random.Random) -> FuzzedExchange:
    seed = _pick(rng, api)
    other = _pick(rng, api if rng.random() < 0.8 else rng.choice(list(WIRES)))
    status, headers = seed.status, {"content-type": seed.headers.get("content-type", "")}
    if rng.random() < 0.1:
        status = rng.choice(_STATUSES)
    if rng.random() < 0.05:
        headers = {"content-type": rng.choice(_CONTENT_TYPES)}
    body = mutated(rng, seed.body, other.body)
    return FuzzedExchange(api, status, headers, body, stream=rng.random() < 0.9, choices=rng.getrandbits(32))


def _make_stream(rng: random.Random) -> StreamBody:
    seed, other = _pick(rng, rng.choice(list(WIRES))), _pick(rng, rng.choice(list(WIRES)))
    limit = MAX_EVENT_BYTES if rng.random() < 0.6 else rng.choice((1, 16, 200, 3000))
    return StreamBody(mutated(rng, seed.body, other.body), limit, rng.getrandbits(32))


def _check_stream(stream: StreamBody) -> str:
    """However a body is split, the same events come of it, or the same refusal, and nothing is held beyond the limit."""
    rng = random.Random(stream.choices)
    whole = _parse([stream.body], stream.limit)
    for _ in range(2):
        assert _parse(split(rng, stream.body), stream.limit) == whole
    if whole is None:
        return "too large"
    return "events" if whole else "nothing"


def _parse(reads: list[bytes], limit: int) -> list[tuple[str, bytes]] | None:
    parser = SSEParser(limit)
    events: list[tuple[str, bytes]] = []
    try:
        for read in reads:
            events += parser.feed(read)
            assert len(parser._pending) <= limit + len(read)
            assert sum(map(len, parser._data)) <= limit
            assert sum(map(len, parser._json)) <= limit
        events += parser.finish()
    except EventTooLargeError:
        return None
    return events


def _make_beginning(rng: random.Random) -> Beginning:
    seed, other = _pick(rng, rng.choice(list(WIRES))), _pick(rng, rng.choice(list(WIRES)))
    body = mutated(rng, rng.choice(_BEGINNINGS) + seed.body, other.body)
    if rng.random() < 0.3:
        body = body.replace(b"data: ", b"").replace(b"\n\n", b"\n")
    return Beginning(body, rng.choice(_CONTENT_TYPES), rng.random() < 0.5, rng.getrandbits(32))


def _check_beginning(beginning: Beginning) -> str:
    """However a body is split, it is read as the same, and no byte of it is lost but blanks at its beginning."""
    rng = random.Random(beginning.choices)
    whole = _decide(beginning, [beginning.body])
    for _ in range(2):
        assert _decide(beginning, split(rng, beginning.body)) == whole
    assert whole[0] in (BodyKind.EVENTS, BodyKind.JSON)
    assert whole[1] == beginning.body[len(beginning.body) - len(whole[1]) :]
    left_out = beginning.body[: len(beginning.body) - len(whole[1])]
    assert not left_out.replace(BOM, b"").strip(b" \t\r\n")
    return str(whole[0].value)


def _decide(beginning: Beginning, pieces: list[bytes]) -> tuple[BodyKind, bytes]:
    response = Response()
    response.began(200, {"content-type": beginning.content_type}, 0.0, is_streamed=beginning.is_streamed)
    for piece in pieces:
        response.add(piece)
    response.ended()
    return response.kind, response.take_body()


def _make_headers(rng: random.Random) -> Headers:
    api = rng.choice(list(WIRES))
    headers: dict[str, str] = {}
    for name in _HEADERS:
        if rng.random() < 0.5:
            value = rng.choice(_WAITS)
            if rng.random() < 0.7:
                value = mutated(rng, value, rng.choice(_WAITS))[:2000]
            headers[name] = value.decode("latin-1")
    failures = [seed for seed in seeds_of(api) if seed.status != 200]
    body = mutated(rng, rng.choice(failures).body, _WAITS[0])
    return Headers(api, rng.choice(_STATUSES), headers, body)


def _check_headers(said: Headers) -> str:
    failure = WIRE_FORMATS[said.api].api.read_error(said.status, said.headers, said.body)
    assert failure.reason
    assert len(failure.reason) < 3_000
    assert failure.retry_after is None or 0 <= failure.retry_after < math.inf
    return f"{failure.kind}, {'no wait' if failure.retry_after is None else 'a wait'}"


TARGETS: dict[str, Target[Any]] = {
    "sse": Target("sse", StreamBody, _make_stream, _check_stream),
    **{api: Target(api, FuzzedExchange, partial(_make_exchange, api), carry_out) for api in WIRES},
    "frames": Target("frames", Frame, make_frame, check_frame),
    "beginnings": Target("beginnings", Beginning, _make_beginning, _check_beginning),
    "headers": Target("headers", Headers, _make_headers, _check_headers),
}
