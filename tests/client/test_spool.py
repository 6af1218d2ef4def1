"""What a spool file promises: each whole record before the first damage is there, and nothing after it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.spool import HEAD_BYTES, encode_record, intact_bytes, read_records

PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


def spool(payloads: list[bytes]) -> bytes:
    return b"".join(map(encode_record, payloads))


def read(data: bytes) -> list[bytes]:
    return [bytes(record) for record in read_records(data)]


def whole_before(payloads: list[bytes], end: int) -> list[bytes]:
    """Return the payloads whose records lie before ``end``."""
    whole: list[bytes] = []
    offset = 0
    for payload in payloads:
        offset += HEAD_BYTES + len(payload)
        if offset > end:
            break
        whole.append(payload)
    return whole


@given(PAYLOADS)
def test_what_was_written_is_read(payloads: list[bytes]) -> None:
    data = spool(payloads)
    assert read(data) == payloads
    assert intact_bytes(data) == len(data)


@given(PAYLOADS, st.data())
@settings(max_examples=300)
def test_wherever_a_file_is_cut_the_whole_records_before_are_read(payloads: list[bytes], draw: st.DataObject) -> None:
    data = spool(payloads)
    end = draw.draw(st.integers(0, len(data)))

    assert read(data[:end]) == whole_before(payloads, end)
    assert intact_bytes(data[:end]) == len(spool(whole_before(payloads, end)))


@given(PAYLOADS.filter(any), st.data())
@settings(max_examples=300)
def test_wherever_a_byte_is_flipped_the_records_before_are_read_and_none_is_made_up(
    payloads: list[bytes], draw: st.DataObject
) -> None:
    data = bytearray(spool(payloads))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))

    assert read(bytes(data)) == whole_before(payloads, place)
    assert intact_bytes(bytes(data)) <= place


@given(PAYLOADS, st.binary(min_size=1, max_size=64))
def test_what_is_no_record_ends_the_file(payloads: list[bytes], rubbish: bytes) -> None:
    data = spool(payloads) + rubbish
    assert read(data)[: len(payloads)] == payloads
    assert intact_bytes(data) == len(spool(read(data)))


def test_a_length_beyond_all_bounds_is_damage() -> None:
    record = bytearray(encode_record(b"abc"))
    record[4:8] = b"\xff\xff\xff\xff"
    assert read(bytes(record) + b"x" * 100) == []
