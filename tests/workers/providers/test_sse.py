"""Promises of the parser of server-sent events: the events of the specification, for every split, in bounded memory."""

from __future__ import annotations

import re
import time
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_workers.providers.shared.sse import EventTooLargeError, SSEParser
from tests.repetition import repeated

Events = list[tuple[str, bytes]]


def parse(reads: list[bytes], limit: int = 1 << 20) -> Events:
    parser = SSEParser(max_event_bytes=limit)
    events = [event for read in reads for event in parser.feed(read)]
    return events + parser.finish()


def reference(body: bytes) -> Events:
    """Parse a whole body exactly as the specification says; but two objects in a row are two events."""
    events: Events = []
    name, later, data = "", "", list[bytes]()
    for line in [*re.split(b"\r\n|\n|\r", body.removeprefix(b"\xef\xbb\xbf")), b""]:
        if not line:
            if data:
                events.append((later or name, b"\n".join(data)))
            name, later, data = "", "", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            if data and data[-1].rstrip().endswith(b"}") and value.lstrip().startswith((b"{", b"[")):
                events.append((name, b"\n".join(data)))
                name, later, data = later, "", []
            data.append(value)
        elif field == b"event" and data:
            later = value.decode()
        elif field == b"event":
            name = value.decode()
    return events


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


LINE_ENDS = [b"\n", b"\r\n", b"\r"]
FIELDS = [
    b'data: {"a":1}',
    b"data:x",
    b"data:  y",
    b"data",
    b"data:",
    b"event: e",
    b"event:f",
    b"event",
    b"id: 7",
    b"retry: 1",
]
ODD = [
    b": note",
    b":",
    b"database: 1",
    b" data: no",
    b"{",
    "data: \u2028\u2029\u0085é".encode(),
    b"\xef\xbb\xbfdata: z",
    b"",
]
lines = st.tuples(st.sampled_from(FIELDS + ODD), st.sampled_from(LINE_ENDS), st.sampled_from([b"", *LINE_ENDS]))
mixed_bodies = st.lists(lines, max_size=12).map(lambda parts: b"".join(b"".join(part) for part in parts))
usual_bodies = st.lists(
    st.sampled_from([b"data: {}\n\n", b"data: a b\n\n", b"data: \n\n", b"data: 1\ndata: 2\n\n", b"\n"])
).map(b"".join)
bodies = st.tuples(st.sampled_from([b"", b"\xef\xbb\xbf"]), mixed_bodies | usual_bodies).map(b"".join)


@settings(max_examples=repeated(80, 400), deadline=None)
@given(bodies, st.lists(st.integers(0, 400), max_size=8))
def test_the_events_are_those_of_the_specification_for_every_split(body: bytes, cuts: list[int]) -> None:
    expected = reference(body)
    assert parse([body]) == expected
    assert parse(split(body, cuts)) == expected
    assert parse([body[i : i + 1] for i in range(len(body))]) == expected


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_each_line_end_ends_a_line(end: bytes) -> None:
    body = end.join([b"event: e", b"data: 1", b"data: 2", b"", b"data: 3", b"", b""])
    assert parse([body]) == [("e", b"1\n2"), ("", b"3")]


def test_a_carriage_return_completes_an_event_before_the_next_read() -> None:
    assert SSEParser().feed(b"data: 1\r\r") == [("", b"1")]


def test_the_end_of_the_body_completes_an_event() -> None:
    assert parse([b"data: 1\n\ndata: 2"]) == [("", b"1"), ("", b"2")]
    assert parse([b"event: e\ndata: 1\n"]) == [("e", b"1")]
    assert parse([b"event: e\n"]) == []


def test_unicode_line_separators_do_not_end_a_line() -> None:
    payload = '{"text":"a\u2028b\u2029c\u0085d"}'.encode()
    assert parse([b"data: " + payload + b"\n\n"]) == [("", payload)]


@pytest.mark.parametrize(
    "body",
    [b"data: " + b"x" * 100 + b"\n\n", b"data: 0123456789\n" * 10 + b"\n", b": " + b"x" * 100, b"x" * 100],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_over_the_limit_is_refused_however_it_is_split(body: bytes, size: int) -> None:
    reads = [body[i : i + size] for i in range(0, len(body), size)]
    with pytest.raises(EventTooLargeError, match="larger than 64 bytes"):
        parse(reads, limit=64)


def test_the_limit_is_for_one_event_and_not_for_the_stream() -> None:
    assert len(parse([b"data: 0123456789\n\n" * 100], limit=32)) == 100


def test_a_large_event_in_small_reads_takes_time_in_proportion() -> None:
    body = b"data: " + b"x" * (1 << 19) + b"\n\n"
    start = time.process_time()
    assert parse([body[i : i + 1] for i in range(len(body))]) == [("", body[6:-2])]
    assert time.process_time() - start < 20


BARE = '{\n  "error": {\n    "code": 503,\n\n    "message": "a \\"}{[\u2028 b"\n  }\n}'.encode()


@pytest.mark.parametrize("after", [b"", b"\n", b"\n\ndata: 2\n\n"])
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_json_without_a_field_name_is_an_event_when_its_brackets_balance(end: bytes, after: bytes) -> None:
    body = (b"data: 1\n\n" + BARE + after).replace(b"\n", end)
    whole = BARE.replace(b"\n\n", b"\n")
    expected = [("", b"1"), ("", whole)] + [("", b"2")] * bool(after.strip())
    for size in (1, 7, len(body)):
        assert parse([body[i : i + size] for i in range(0, len(body), size)]) == expected


def test_json_without_a_field_name_is_returned_at_once_and_in_order() -> None:
    assert SSEParser().feed(b'data: 1\n{"error": 1}\n') == [("", b"1"), ("", b'{"error": 1}')]
    assert parse([b'[{"a": 1}\n,\n{"a": 2}\n]']) == [("", b'[{"a": 1}\n,\n{"a": 2}\n]')]


def test_json_without_an_end_is_no_event_and_does_no_harm() -> None:
    assert parse([b"{\n: note\nid: 1\n\ndata: 1\n\n}\ndata: 2\n\n{"]) == [("", b"1"), ("", b"2")]
    with pytest.raises(EventTooLargeError):
        parse([b"{\n" + b'"0123456789",\n' * 10], limit=64)


def test_a_long_string_outside_of_events_costs_no_more_memory_than_its_length() -> None:
    body = b'{"error": "' + b"[" * 200_000 + b'"}\n\n'
    tracemalloc.start(1)
    try:
        assert SSEParser().feed(body) == [("", body[:-2])]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 10 * len(body)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_the_end_of_a_stream_may_be_within_the_name_of_a_field(end: bytes) -> None:
    body = b"data: 1\n\ndata: 2\n\ndata: 3\n\n".replace(b"\n", end)
    expected = [("", b"1"), ("", b"2"), ("", b"3")]
    for first in range(len(body) + 1):
        for second in range(first, len(body) + 1):
            assert parse([body[:first], body[first:second], body[second:]]) == expected


@pytest.mark.parametrize("start", [b"d", b"data", b"data:", b"data: ", b"data: 1", b"data: 1\n", b"\n", b"data: 1\r"])
def test_a_read_that_looks_whole_continues_the_event_before_it(start: bytes) -> None:
    """A read that looks like a whole event may be the rest of another.

    The fast path is only for reads between two events.
    """
    rest = b"data: 2\n\n"
    for before in (b"", b"data: 0\n\n"):
        assert parse([before, start, rest]) == reference(before + start + rest)
        assert parse([before + start, rest, rest]) == reference(before + start + rest + rest)


@pytest.mark.parametrize(
    "body",
    [
        b"data: 1\r\n\r\ndata: 2\rdata: 3\r\n\r\n",
        b"data: 1\r\r\ndata: 2\r\n\r\n",
        b"data: 1\rid: 7\r\n\r\ndata: 2\r\n\r\n",
        b"data: 1\r\n\r\ndata: 2\ndata: 3\r\n\r\n",
        b"data: 1\n\r\n\r\n",
        b"data: 1\r\ndata: 2\r\n\r\n",
        b"data: \r\r\n\r\n",
        b"data: 1\n\ndata: 2\rdata: 3\n\n",
        b"data: 1\ndata: 2\n\n",
    ],
)
def test_a_lone_carriage_return_or_line_feed_among_pairs_ends_a_line(body: bytes) -> None:
    before = b"data: 0\r\n\r\n"
    expected = [("", b"0"), *reference(body)]

    assert parse([before, body]) == expected
    assert parse([before + body]) == expected
    for cut in range(len(body) + 1):
        assert parse([before, body[:cut], body[cut:]]) == expected


def test_a_line_of_the_limits_length_passes() -> None:
    parser = SSEParser(max_event_bytes=64)
    assert parser.feed(b"data: " + b"x" * 58) == []
    assert parser.feed(b"\n\n") == [("", b"x" * 58)]
    with pytest.raises(EventTooLargeError):
        parser.feed(b"data: " + b"x" * 59)


def test_the_limit_holds_on_the_fast_paths_too() -> None:
    for end in (b"\n\n", b"\r\n\r\n"):
        parser = SSEParser(max_event_bytes=64)
        assert parser.feed(b"data: 1" + end) == [("", b"1")]
        assert parser.feed(b"data: " + b"x" * 57 + end) == [("", b"x" * 57)]
        with pytest.raises(EventTooLargeError):
            parser.feed(b"data: " + b"x" * 100 + end)


def test_two_objects_in_a_row_without_a_blank_line_are_two_events() -> None:
    body = b'event: a\ndata: {"x":\ndata: 1}\nevent: b\ndata: {"y":2}\ndata: [DONE]\n'

    expected = [("a", b'{"x":\n1}'), ("b", b'{"y":2}'), ("", b"[DONE]")]
    assert parse([body]) == parse([body[at : at + 1] for at in range(len(body))]) == expected


def test_an_event_is_returned_as_soon_as_the_next_event_begins() -> None:
    parser = SSEParser()

    assert parser.feed(b'data: {"a":1}\n') == []
    assert parser.feed(b'data: {"a":2}\n') == [("", b'{"a":1}')]


def test_the_name_of_an_event_may_follow_its_data() -> None:
    assert parse([b'data: {"a":1}\nevent: b\n\ndata: 2\n\n']) == [("b", b'{"a":1}'), ("", b"2")]


def test_json_after_the_field_error_is_an_event_named_error() -> None:
    body = b'data: {"a":1}\n\nerror: {"code":500,"message":"no room"}\n\n'

    assert parse([body]) == [("", b'{"a":1}'), ("error", b'{"code":500,"message":"no room"}')]
    assert parse([b"error: words\n\n"]) == []
