"""A packed body is unpacked, false content-encodings are ignored, and unknown ones are named."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest

from headrace_workers.http.body_decoding import PIECE
from headrace_workers.http.direct_exchange import CUT_REASON
from headrace_workers.http.http1_connection import TURN_BYTES
from tests.workers.http.http_servers import Handler, Recorder, Run, Server, always, ask, in_turn, once, send, talking

MIB = 1024 * 1024
BODY = b'{"choices": []}' * 100
PLAIN = [
    "", "identity", "none", "None", "utf-8", "UTF-8", "utf8", "utf-16le", "us-ascii", "iso-8859-1", "latin1", "windows-1252",
    "binary", "8bit", "null", "application/json", "identity, identity", "utf-8, none", ", ,", " identity ", '"identity"',
]  # fmt: skip
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "gzip, identity": gzip.compress,
    "identity, gzip": gzip.compress,
    "utf-8, gzip": gzip.compress,
    ", gzip": gzip.compress,
    "gzip, gzip": lambda body: gzip.compress(gzip.compress(body)),
    "deflate, gzip": lambda body: gzip.compress(zlib.compress(body)),
    "gzip, deflate": lambda body: zlib.compress(gzip.compress(body)),
}
UNKNOWN = ["br", "zstd", "compress", "x-compress", "dcb", "aes128gcm", "snappy", "gzip, br", "br, gzip", "identity, br"]


@pytest.fixture(params=["directly", "through a proxy"])
def address(request: pytest.FixtureRequest, run: Run, monkeypatch: pytest.MonkeyPatch) -> Callable[[Server], str]:
    """Return the address that makes the request go directly, or through a proxy, as the parameter says."""

    def of(server: Server) -> str:
        if request.param == "directly":
            return server.url
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat?a=b"))
        return "http://provider.test/v1"

    return of


def response(encoding: str, body: bytes, status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def read(run: Run, address: Callable[[Server], str], answer: bytes, *, is_cut: bool = False) -> Recorder:
    return read_each(run, address, once(answer) if is_cut else always(answer), 1)[0]


def read_each(run: Run, address: Callable[[Server], str], answers: Handler, count: int) -> list[Recorder]:
    kept: list[Recorder] = []

    async def story() -> None:
        async with talking(answers) as (client, server):
            url = address(server)
            kept.extend([await ask(client, url) for _ in range(count)])

    run(story())
    return kept


def test_an_encoding_that_means_unpacked_changes_nothing(run: Run, address: Callable[[Server], str]) -> None:
    recorders = read_each(run, address, in_turn(*(response(encoding, BODY) for encoding in PLAIN)), len(PLAIN))

    for encoding, recorder in zip(PLAIN, recorders, strict=True):
        assert (recorder.failure, recorder.body) == (None, BODY), encoding


def test_each_layer_is_unpacked(run: Run, address: Callable[[Server], str]) -> None:
    answers = in_turn(*(response(encoding, pack(BODY)) for encoding, pack in PACKED.items()))
    recorders = read_each(run, address, answers, len(PACKED))

    for encoding, recorder in zip(PACKED, recorders, strict=True):
        assert (recorder.failure, recorder.body) == (None, BODY), encoding


@pytest.mark.parametrize("status", ["200 OK", "503 Busy"])
def test_an_unknown_encoding_is_named_and_the_status_is_reported(
    run: Run, address: Callable[[Server], str], status: str
) -> None:
    answers = in_turn(*(response(encoding, BODY, status) for encoding in UNKNOWN))
    recorders = read_each(run, address, answers, len(UNKNOWN))

    for encoding, recorder in zip(UNKNOWN, recorders, strict=True):
        unknown = next(coding for coding in encoding.split(", ") if coding not in ("gzip", "identity"))
        assert recorder.status == int(status[:3]), encoding
        assert recorder.body == b"", encoding
        assert recorder.failure == (
            "unreadable",
            f"the body is packed as {unknown!r} (content-encoding), which was not asked for",
        )


def test_a_body_in_two_fields_is_unpacked(run: Run, address: Callable[[Server], str]) -> None:
    body = gzip.compress(zlib.compress(BODY))
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    assert read(run, address, head.encode() + body).body == BODY


def test_a_bomb_of_many_layers_is_refused(run: Run, address: Callable[[Server], str]) -> None:
    recorder = read(run, address, response(", ".join(["gzip"] * 3), b"x"))

    assert recorder.failure == ("unreadable", "the body is packed 3 times; 2 are unpacked at most")


@cache
def bomb(layers: int) -> bytes:
    return gzip.compress(bytes(64 * MIB) if layers == 1 else bomb(layers - 1))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_is_unpacked_to_200_times_its_size_and_no_more(
    run: Run, address: Callable[[Server], str], layers: int
) -> None:
    recorder = read(run, address, response(", ".join(["gzip"] * layers), bomb(layers)))

    assert recorder.failure == ("unreadable", "the compressed body unpacks to more than 200 times its size")
    assert len(recorder.body) <= 16 * MIB
    assert max(map(len, recorder.pieces)) <= PIECE


def test_thousands_of_empty_files_in_one_body_cost_little_each(run: Run, address: Callable[[Server], str]) -> None:
    began = time.thread_time()
    recorder = read(run, address, response("gzip", gzip.compress(b"") * 10_000 + gzip.compress(b"end")))

    assert (recorder.failure, recorder.body) == (None, b"end")
    assert time.thread_time() - began < 5.0


@cache
def large_body() -> bytes:
    return os.urandom(MIB).hex().encode() * 4


@cache
def large_packed(encoding: str) -> bytes:
    return PACKED[encoding](large_body())


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "gzip, gzip"])
def test_a_paused_reader_gets_no_more_of_a_packed_body(
    run: Run, address: Callable[[Server], str], encoding: str
) -> None:
    """8 MiB come in a few reads of the socket.

    After the pause, only the bytes that one turn of the loop unpacks may come.
    """
    body = large_body()

    async def story() -> None:
        async with talking(always(response(encoding, large_packed(encoding)))) as (client, server):
            recorder = Recorder("bytes", lambda exchange: exchange.pause())
            exchange = send(client, address(server), recorder)
            for _ in range(len(body) // PIECE // 4):
                given = len(recorder.body)
                recorder.read.clear()
                exchange.resume()
                await recorder.read.wait()
                for _ in range(20):  # turns of the loop in which more could come
                    await asyncio.sleep(0)
                assert len(recorder.body) - given <= 2 * PIECE
            recorder._act_in = ""
            exchange.resume()
            await recorder.ended.wait()
            assert (recorder.failure, recorder.body) == (None, body)

    run(story())


def test_a_connection_is_used_again_after_a_packed_body_that_took_many_turns(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(MIB).hex().encode()

    async def story() -> None:
        async with talking(always(response("gzip", gzip.compress(body)))) as (client, server):
            for _ in range(3):
                assert (await ask(client, server.url)).body == body
            left = Recorder("bytes", lambda exchange: exchange.release())
            send(client, server.url, left)
            await left.read.wait()
            assert (await ask(client, server.url)).body == body
            assert len(server.peers) <= 2

    run(story())


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip"])
def test_a_cut_or_damaged_packed_body_is_a_failure(run: Run, address: Callable[[Server], str], encoding: str) -> None:
    packed = PACKED[encoding](BODY)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode()

    assert read(run, address, head + packed[:-9], is_cut=True).failure == ("read", CUT_REASON)
    assert read(run, address, response(encoding, b"x" * 40)).failure == ("unreadable", "the compressed body is damaged")


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self.count += 1
        if self.count < 1_000_000:
            self._loop.call_soon(self._turn)


class PerTurn(Recorder):
    """Records how much comes in each turn of the loop."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.bytes: Counter[int] = Counter()
        self.calls_in: Counter[int] = Counter()
        self._turns = turns

    def on_bytes(self, data: bytes) -> None:
        super().on_bytes(data)
        self.bytes[self._turns.count] += len(data)
        self.calls_in[self._turns.count] += 1


FLOODS: dict[str, tuple[bytes, Callable[[], bytes]]] = {
    "plain": (b"Content-Length: %d" % (8 * MIB), lambda: bytes(8 * MIB)),
    "gzip": (b"Content-Encoding: gzip\r\nConnection: close", lambda: gzip.compress(BODY * 2000)),
    "tiny chunks": (b"Transfer-Encoding: chunked", lambda: b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"),
}
"""Header fields, and what makes the body."""


@pytest.mark.parametrize("kind", FLOODS)
def test_one_connection_does_not_use_up_a_turn_of_the_loop(
    run: Run, address: Callable[[Server], str], kind: str
) -> None:
    fields, make = FLOODS[kind]
    answer = b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + make()

    async def story() -> None:
        async with talking(once(answer)) as (client, server):
            recorder = PerTurn(Turns())
            send(client, address(server), recorder)
            await recorder.ended.wait()
            assert recorder.failure is None
            assert max(recorder.bytes.values()) <= 2 * TURN_BYTES
            assert max(recorder.calls_in.values()) <= 16

    run(story())


def test_endless_interim_responses_are_a_failure(run: Run) -> None:
    recorder = read(run, lambda server: server.url, b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000)

    assert recorder.failure == ("unreadable", "response head over 65536 bytes")


def test_a_field_that_is_repeated_very_often_costs_little(run: Run) -> None:
    began = time.thread_time()
    recorder = read(run, lambda server: server.url, b"HTTP/1.1 200 OK\r\n" + b"a:\r\n" * 60_000 + b"\r\n")

    assert recorder.failure == ("unreadable", "response head over 65536 bytes")
    assert time.thread_time() - began < 2.0
