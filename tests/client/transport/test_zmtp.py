"""What either end of ZMTP takes, in pieces of any size, and what it refuses."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.transport.zmtp import DEALER as DEALER_TYPE
from headrace.transport.zmtp import OF_DEALER, OF_ROUTER, ROUTER, FrameParser, frame_head, opening

LIMIT = 100_000
DEALER = opening(b"DEALER")
GREETING, READY = DEALER[:64], DEALER[64:]


def frame(body: bytes) -> bytes:
    return frame_head(len(body)) + body


def ready(**properties: bytes) -> bytes:
    body = b"\x05READY"
    for name, value in properties.items():
        named = name.replace("_", "-").encode()
        body += bytes([len(named)]) + named + len(value).to_bytes(4, "big") + value
    return b"\x06" + len(body).to_bytes(8, "big") + body


def test_frames_are_the_same_in_pieces_of_any_size() -> None:
    rng = random.Random(7)
    for _ in range(200):
        bodies = [rng.randbytes(rng.choice((0, 1, 2, 8, 9, 255, 256, 1000, 90_000))) for _ in range(rng.randint(1, 6))]
        said = DEALER + b"".join(map(frame, bodies))
        inbound, frames = FrameParser(LIMIT), []
        while said:
            count = rng.choice((1, 2, 3, 9, 64, 100, 5000, 65_536, 200_000))
            frames += inbound.received(said[:count])
            said = said[count:]
        assert (frames, inbound.breach, inbound.held, inbound.missing) == (bodies, "", 0, 0)


def test_the_bytes_of_an_incomplete_frame_are_counted() -> None:
    inbound = FrameParser(LIMIT)
    inbound.received(DEALER + frame_head(1000) + b"x" * 300)
    assert (inbound.held, inbound.missing) == (300, 700)
    inbound.received(b"x" * 600)
    assert (inbound.held, inbound.missing) == (900, 100)
    assert inbound.received(b"x" * 100 + frame(b"y")) == [b"x" * 1000, b"y"]
    assert (inbound.held, inbound.missing) == (0, 0)


def test_a_short_frame_in_the_long_form_is_accepted() -> None:
    assert FrameParser(LIMIT).received(DEALER + b"\x02" + (3).to_bytes(8, "big") + b"abc") == [b"abc"]


@pytest.mark.parametrize(
    "identity", [b"", b"a", b"\0abcd", b"x" * 255, b"y" * 3000], ids=["none", "one", "as made", "long", "longer"]
)
def test_a_routing_id_is_read_and_ignored(identity: bytes) -> None:
    inbound = FrameParser(LIMIT)
    said = GREETING + ready(Socket_Type=b"DEALER", Identity=identity, X_own=b"z") + frame(b"hello")
    assert inbound.received(said) == [b"hello"]


@pytest.mark.parametrize(
    ("said", "breach"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "it does not speak ZMTP 3"),
        (b"\x01\x00\x06\x00Hello", "it does not speak ZMTP 3"),
        (b"\xff" + bytes(8) + b"\x00", "it does not speak ZMTP 3"),
        (b"\xff" + bytes(8) + b"\x7f\x01\x05", "it does not speak ZMTP 3"),
        (GREETING[:12] + b"CURVE".ljust(20, b"\0") + bytes(32), "its mechanism is not NULL"),
        (GREETING[:31] + b"x" + bytes(32), "its mechanism is not NULL"),
        (GREETING + frame(b"hello"), "a message came before READY"),
        (GREETING + b"\x04\x06\x05ERROR", "it is not a DEALER that is ready"),
        (GREETING + ready(Socket_Type=b"ROUTER"), "it is not a DEALER that is ready"),
        (GREETING + b"\x04\x08\x05READY\x09x", "it is not a DEALER that is ready"),
        (GREETING + b"\x06" + (5000).to_bytes(8, "big"), "a command has at most 4096 bytes, not 5000"),
        (GREETING + b"\x02" + b"\xff" * 8, f"a frame has at most {LIMIT} bytes, not {2**64 - 1}"),
        (DEALER + frame_head(LIMIT + 1), f"a frame has at most {LIMIT} bytes, not {LIMIT + 1}"),
        (DEALER + b"\x01\x01x", "a message has one part, not several"),
        (DEALER + b"\x05\x01x", "a message has one part, not several"),
        (DEALER + b"\x08\x01x", "a frame has unknown flags: 0x8"),
        (DEALER + b"\x04\x05\x04PING", "a PING has the wrong length"),
        (DEALER + b"\x04\x18\x04PING\0\0" + bytes(17), "a PING has the wrong length"),
    ],
)
def test_bytes_that_are_not_zmtp_are_a_breach_in_pieces_of_any_size(said: bytes, breach: str) -> None:
    whole, pieces = FrameParser(LIMIT), FrameParser(LIMIT)
    assert whole.received(said) == []
    for number in range(len(said)):
        pieces.received(said[number : number + 1])
    assert (whole.breach, pieces.breach) == (breach, breach)
    for more in (DEALER + frame(b"more"), frame(b"more")):
        assert (whole.received(more), pieces.received(more)) == ([], [])


def test_frames_that_were_complete_before_a_breach_are_returned() -> None:
    inbound = FrameParser(LIMIT)
    assert inbound.received(DEALER) == []
    assert inbound.received(frame(b"hello") + b"\x01\x01x") == [b"hello"]
    assert inbound.breach
    assert inbound.received(frame(b"more")) == []


def test_a_short_frame_alone_keeps_to_the_limit_too() -> None:
    inbound = FrameParser(100)
    assert inbound.received(DEALER) == []
    assert inbound.received(frame(bytes(100))) == [bytes(100)]
    assert inbound.received(frame(bytes(101))) == []
    assert inbound.breach == "a frame has at most 100 bytes, not 101"


def test_a_ping_is_answered_and_other_commands_are_ignored() -> None:
    inbound = FrameParser(LIMIT)
    frames = inbound.received(
        DEALER + b"\x04\x0a\x04PING\x00\x10abc" + b"\x04\x00" + READY + b"\x04\x02\x01x" + frame(b"y")
    )
    assert frames == [b"y"]
    assert inbound.replies == [b"\x04\x08\x04PONGabc"]


def test_any_bytes_end_in_frames_or_a_breach() -> None:
    rng = random.Random(11)
    for _ in range(3000):
        said = bytearray(DEALER + b"".join(frame(rng.randbytes(rng.randint(0, 400))) for _ in range(4)))
        for _ in range(rng.randint(1, 6)):
            said[rng.randrange(len(said))] = rng.randrange(256)
        inbound, frames = FrameParser(LIMIT), 0
        while said:
            count = rng.randint(1, 700)
            frames += len(inbound.received(bytes(said[:count])))
            del said[:count]
        assert inbound.held <= LIMIT
        assert frames <= 600


ROLES = [(OF_ROUTER, DEALER_TYPE), (OF_DEALER, ROUTER)]
"""The socket types that an end takes, and the type of a peer that it takes."""


@st.composite
def splits(draw: st.DrawFn, said: bytes) -> list[bytes]:
    """Cut bytes into pieces."""
    cuts = sorted({*draw(st.lists(st.integers(0, len(said)), max_size=12)), 0, len(said)})
    return [said[start:end] for start, end in itertools.pairwise(cuts)]


@pytest.mark.parametrize(("takes", "peer"), ROLES)
@given(data=st.data(), bodies=st.lists(st.binary(max_size=400) | st.integers(250, 70_000).map(bytes), max_size=6))
def test_any_split_of_the_bytes_gives_the_same_frames_in_either_role(
    takes: tuple[bytes, ...], peer: bytes, data: st.DataObject, bodies: list[bytes]
) -> None:
    inbound, frames = FrameParser(LIMIT, takes), []
    for piece in data.draw(splits(opening(peer) + b"".join(map(frame, bodies)))):
        frames += inbound.received(piece)

    assert (frames, inbound.breach, inbound.held, inbound.missing) == (bodies, "", 0, 0)


@pytest.mark.parametrize(("takes", "peer"), ROLES)
@given(data=st.data(), said=st.binary(max_size=300), is_greeted=st.booleans())
def test_no_bytes_raise_in_either_role_and_all_splits_agree(
    takes: tuple[bytes, ...], peer: bytes, data: st.DataObject, said: bytes, is_greeted: bool
) -> None:
    said = (opening(peer) if is_greeted else b"") + said
    whole, pieces = FrameParser(LIMIT, takes), FrameParser(LIMIT, takes)
    frames = whole.received(said)
    heard = [heard for piece in data.draw(splits(said)) for heard in pieces.received(piece)]

    assert (heard, pieces.breach, pieces.held, pieces.missing) == (frames, whole.breach, whole.held, whole.missing)
    assert whole.held <= LIMIT


@pytest.mark.parametrize("socket_type", [b"ROUTER", b"DEALER", b"REP"])
def test_a_dealer_takes_the_socket_types_of_the_rfc(socket_type: bytes) -> None:
    inbound = FrameParser(LIMIT, OF_DEALER)
    assert inbound.received(opening(socket_type) + frame(b"hello")) == [b"hello"]


@pytest.mark.parametrize("socket_type", [b"PUB", b"REQ", b"PULL", b"router", b""])
def test_a_dealer_refuses_other_socket_types(socket_type: bytes) -> None:
    inbound = FrameParser(LIMIT, OF_DEALER)
    assert inbound.received(opening(socket_type) + frame(b"hello")) == []
    assert inbound.breach == "it is not a ROUTER or DEALER or REP that is ready"
