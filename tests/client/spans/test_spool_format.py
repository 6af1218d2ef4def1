"""What a spool file promises: damage costs the records that it touched, and no other; and none is made up."""

from __future__ import annotations

import struct
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.spans.spool_format import HEAD_BYTES, encode_record, read_records, read_spool
from tests.repetition import repeated

PAYLOADS = st.lists(st.binary(max_size=40), max_size=8)


def spool(payloads: list[bytes]) -> bytes:
    return b"".join(map(encode_record, payloads))


def read(data: bytes) -> list[bytes | None]:
    return [None if record is None else bytes(record) for record in read_spool(data)]


def untouched(payloads: list[bytes], start: int, end: int) -> tuple[list[bytes], list[bytes]]:
    """Return the payloads of the records before ``start``, and of the records at or after ``end``."""
    before: list[bytes] = []
    behind: list[bytes] = []
    offset = 0
    for payload in payloads:
        begin, offset = offset, offset + HEAD_BYTES + len(payload)
        if offset <= start:
            before.append(payload)
        elif begin >= end:
            behind.append(payload)
    return before, behind


@given(PAYLOADS)
def test_what_was_written_is_read(payloads: list[bytes]) -> None:
    assert read(spool(payloads)) == payloads


@given(PAYLOADS, st.data())
@settings(max_examples=repeated(60, 300))
def test_wherever_a_file_is_cut_the_whole_records_before_are_read(payloads: list[bytes], draw: st.DataObject) -> None:
    data = spool(payloads)
    end = draw.draw(st.integers(0, len(data)))

    before, _ = untouched(payloads, end, len(data))
    assert read(data[:end]) == before + [None] * (len(spool(before)) < end)


@given(PAYLOADS.filter(any), st.data())
@settings(max_examples=repeated(60, 300))
def test_wherever_a_byte_is_flipped_it_costs_the_record_that_it_is_in(
    payloads: list[bytes], draw: st.DataObject
) -> None:
    data = bytearray(spool(payloads))
    place = draw.draw(st.integers(0, len(data) - 1))
    data[place] ^= 1 << draw.draw(st.integers(0, 7))

    before, behind = untouched(payloads, place, place + 1)
    assert read(bytes(data)) == [*before, None, *behind]


@given(PAYLOADS.filter(any), st.binary(min_size=1, max_size=64), st.data())
@settings(max_examples=repeated(60, 300))
def test_whatever_is_written_over_a_part_the_records_beside_it_are_read(
    payloads: list[bytes], rubbish: bytes, draw: st.DataObject
) -> None:
    data = spool(payloads)
    place = draw.draw(st.integers(0, len(data) - 1))
    end = min(place + len(rubbish), len(data))

    before, behind = untouched(payloads, place, end)
    found = [record for record in read(data[:place] + rubbish[: end - place] + data[end:]) if record is not None]
    assert found[: len(before)] == before
    assert found[len(found) - len(behind) :] == behind
    assert set(found) <= set(payloads)


@given(PAYLOADS, PAYLOADS)
def test_what_is_no_record_is_one_stretch_however_long(payloads: list[bytes], more: list[bytes]) -> None:
    assert read(spool(payloads) + b"HRS1 is where one might begin" * 3 + spool(more)) == [*payloads, None, *more]


def test_a_length_beyond_all_bounds_is_damage() -> None:
    record = bytearray(encode_record(b"abc"))
    record[4:8] = b"\xff\xff\xff\xff"
    assert read(bytes(record) + b"x" * 100) == [None]


def test_a_damaged_record_full_of_what_looks_like_records_ends_the_file_before_it_takes_for_ever() -> None:
    claims = struct.pack("<4sII", b"HRS1", 1_000_000, 0) * 90_000
    data = bytearray(spool([b"whole", claims]))
    data[-1] ^= 1

    start = time.process_time()
    assert [bytes(record) for record in read_records(bytes(data))] == [b"whole"]
    assert time.process_time() - start < 5.0
