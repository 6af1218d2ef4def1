"""What a body is packed in is unpacked, what only looks so is read as it is, and what cannot be unpacked is named."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest

from headrace_workers.http1 import CUT_REASON
from tests.workers.http_servers import Recorder, Run, Server, always, ask, once, talking

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
    """Return where to ask, so that the request reaches the server in the way of the parameter."""

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
    kept: list[Recorder] = []

    async def story() -> None:
        async with talking(once(answer) if is_cut else always(answer)) as (client, server):
            kept.append(await ask(client, address(server)))

    run(story())
    return kept[0]


@pytest.mark.parametrize("encoding", PLAIN)
def test_a_word_that_is_no_coding_changes_nothing(run: Run, address: Callable[[Server], str], encoding: str) -> None:
    recorder = read(run, address, response(encoding, BODY))

    assert (recorder.failure, recorder.body) == (None, BODY)


@pytest.mark.parametrize("encoding", PACKED)
def test_each_layer_is_unpacked(run: Run, address: Callable[[Server], str], encoding: str) -> None:
    recorder = read(run, address, response(encoding, PACKED[encoding](BODY)))

    assert (recorder.failure, recorder.body) == (None, BODY)


@pytest.mark.parametrize("encoding", UNKNOWN)
@pytest.mark.parametrize("status", ["200 OK", "503 Busy"])
def test_a_coding_that_cannot_be_unpacked_is_named_and_the_status_is_told(
    run: Run, address: Callable[[Server], str], encoding: str, status: str
) -> None:
    recorder = read(run, address, response(encoding, BODY, status))
    unknown = next(coding for coding in encoding.split(", ") if coding not in ("gzip", "identity"))

    assert recorder.status == int(status[:3])
    assert recorder.body == b""
    assert recorder.failure == (
        "read",
        f"the body is packed as {unknown!r} (content-encoding), which was not asked for",
    )


def test_a_body_in_two_fields_is_unpacked(run: Run, address: Callable[[Server], str]) -> None:
    body = gzip.compress(zlib.compress(BODY))
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    assert read(run, address, head.encode() + body).body == BODY


def test_a_bomb_of_many_layers_is_refused(run: Run, address: Callable[[Server], str]) -> None:
    recorder = read(run, address, response(", ".join(["gzip"] * 5), b"x"))

    assert recorder.failure == ("read", "the body is packed 5 times; 4 are unpacked at most")


@pytest.mark.parametrize("encoding", ["gzip", "deflate, gzip"])
def test_a_packed_body_that_is_cut_or_damaged_is_no_success(
    run: Run, address: Callable[[Server], str], encoding: str
) -> None:
    packed = PACKED[encoding](BODY)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode()

    assert read(run, address, head + packed[:-9], is_cut=True).failure == ("read", CUT_REASON)
    assert read(run, address, response(encoding, b"x" * 40)).failure == ("read", "the compressed body is damaged")
