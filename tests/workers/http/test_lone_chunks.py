"""A read that is one whole HTTP chunk may go around the parser, and the body is the same as with the parser alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace_workers.http.direct_exchange import DirectExchange
from headrace_workers.http.http1_connection import Http1Connection
from headrace_workers.http.lone_chunks import SIZE_LINES, ends_with_chunk
from tests.workers.http.http_servers import Recorder

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b"data: abc\n\n"


class Quiet:
    """In place of the loop, the socket, and the pool."""

    def is_closing(self) -> bool:
        return False

    def time(self) -> float:
        return 0.0

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class ChunkTaker(Recorder):
    """Takes each read that looks like one chunk. ``takes`` False: leaves all of them to the parser."""

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self.takes = takes
        self.taken = 0

    def on_chunk(self, data: bytes) -> bool:
        line = SIZE_LINES[len(data)] if len(data) < len(SIZE_LINES) else b"none"
        if not self.takes or not data.startswith(line) or not data.endswith(b"\n\n\r\n"):
            return False
        self.taken += 1
        self.pieces.append(data[len(line) : -2])
        return True


def receive(reads: list[bytes], *, takes: bool) -> ChunkTaker:
    quiet: Any = Quiet()
    connection = Http1Connection(quiet, quiet, 1.0)
    connection.connection_made(quiet)
    taker = ChunkTaker(takes=takes)
    connection.start(DirectExchange(taker, b""), is_reused=False)
    for data in reads:
        connection.data_received(data)
    return taker


def outcome(taker: ChunkTaker) -> tuple[int, bytes, bool, tuple[str, str] | None]:
    return taker.status, taker.body, taker.ended.is_set(), taker.failure


def chunk(body: bytes, line: bytes = b"%x") -> bytes:
    return line % len(body) + b"\r\n" + body + b"\r\n"


@pytest.mark.parametrize("size", [1, 15, 16, 255, 256, 1000])
def test_a_size_line_is_that_of_a_read_with_one_chunk(size: int) -> None:
    read = chunk(b"x" * size)
    assert SIZE_LINES[len(read)] == b"%x\r\n" % size


def test_no_other_read_has_a_size_line() -> None:
    lengths = {len(chunk(b"x" * size)) for size in range(1, len(SIZE_LINES))}
    assert all(not line[:1].isdigit() for length, line in enumerate(SIZE_LINES) if length not in lengths)


def test_a_read_of_one_chunk_goes_around_the_parser_once_the_parser_is_between_two_chunks() -> None:
    taker = receive(
        [HEAD, *[chunk(EVENT)] * 3, chunk(EVENT)[:5], chunk(EVENT)[5:], chunk(EVENT), b"0\r\n\r\n"], takes=True
    )
    # The first chunk, and the one that came in two reads, tell where the parser is.
    assert taker.taken == 3
    assert outcome(taker) == (200, 5 * EVENT, True, None)


@pytest.mark.parametrize(
    "before",
    [
        chunk(EVENT)[:-2],
        chunk(EVENT) + b"b\r\n",
        chunk(b"5\r\n\n\n\r\n"),
        chunk(EVENT * 3)[:20],
        chunk(b"\n\n\r\n" * 3)[:11],
        b"b;x=1\r\n",
        b"1",
    ],
    ids=repr,
)
def test_a_read_in_the_midst_of_a_chunk_is_parsed(before: bytes) -> None:
    assert receive([HEAD, chunk(EVENT), before, chunk(EVENT)], takes=True).taken == 0
    assert not ends_with_chunk(before, b"")


def test_what_follows_the_end_of_a_body_is_no_chunk_of_it() -> None:
    for reads in ([HEAD, chunk(EVENT) + b"0\r\n\r\n", chunk(EVENT)], [HEAD, chunk(EVENT), b"0\r\n\r\n", chunk(EVENT)]):
        taker = receive(reads, takes=True)
        assert taker.taken == 0
        assert taker.body == EVENT


def test_a_body_without_chunks_never_goes_around_the_parser() -> None:
    for head in (b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"):
        assert receive([head, *[chunk(EVENT)] * 4], takes=True).taken == 0


PIECES = st.one_of(st.just(EVENT), st.text("ab\r\n0:", min_size=1, max_size=30).map(str.encode))
CHUNKS = st.builds(chunk, PIECES, st.sampled_from([b"%x", b"%x", b"%x", b"%X", b"0%x", b"%x;a=b", b"%x "]))
ENDS = st.sampled_from([b"", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"0\r\n\r\nx", b"zz\r\n", b"\n\n\r\n"])


@settings(max_examples=300, deadline=None)
@given(st.lists(CHUNKS, max_size=8), ENDS, st.lists(st.integers(0, 400), max_size=6), st.booleans())
@example([chunk(EVENT)] * 4, b"0\r\n\r\n", [], True)
def test_any_body_is_the_same_with_and_without_the_parser(
    chunks: list[bytes], end: bytes, cuts: list[int], by_chunk: bool
) -> None:
    stream = b"".join(chunks) + end
    edges = {0, len(stream), *(cut for cut in cuts if cut < len(stream))}
    if by_chunk:
        edges |= {sum(map(len, chunks[:count])) for count in range(len(chunks) + 1)}
    reads = [HEAD, *(stream[start:stop] for start, stop in itertools.pairwise(sorted(edges)))]
    assert outcome(receive(reads, takes=True)) == outcome(receive(reads, takes=False))
