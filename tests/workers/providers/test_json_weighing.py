"""JSON is weighed before it is decoded: its values, levels, wide text and slow numbers have limits."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from functools import cache

import msgspec
import pytest

from headrace_workers.providers.embeddings.openai_embeddings import read_openai
from headrace_workers.providers.google.embeddings import read_google
from headrace_workers.providers.shared.answer_limits import (
    LIGHT,
    MAX_DEPTH,
    MAX_ELEMENTS,
    MAX_WIDE,
    MIB,
    LimitError,
    weigh,
)
from headrace_workers.providers.shared.wire_format import finished
from tests.repetition import only_long
from tests.waiting import cpu_slack
from tests.workers.providers.heavy_json import CHEAP, list_of


@cache
def image() -> bytes:
    """Return ASCII text that is longer than wide text may be."""
    return b"A" * (MAX_WIDE + MIB)


@pytest.mark.parametrize(
    "make",
    [
        lambda: list_of(b"[]", MAX_ELEMENTS),
        lambda: list_of(b"{}", MAX_ELEMENTS),
        lambda: list_of(b'"a"', MAX_ELEMENTS + 1),
        lambda: list_of(b"1", MAX_ELEMENTS + 1),
        lambda: b"{" + b'"a":0,' * MAX_ELEMENTS + b'"a":0}',
        lambda: b'"' + b"a" * (5 * MIB) + b'\\\\", ' + list_of(b"1", MAX_ELEMENTS + 1),
        lambda: b'"a",' * MAX_ELEMENTS * 3,
    ],
    ids=["lists", "objects", "strings", "numbers", "one key", "behind a long string", "no list"],
)
def test_json_of_too_many_values_and_keys_is_refused(make: Callable[[], bytes]) -> None:
    heavy = make()
    with pytest.raises(LimitError, match=f"more than {MAX_ELEMENTS} values and keys"):
        weigh(heavy)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":[],"b":'])
def test_json_that_is_nested_too_deeply_is_refused(opening: bytes) -> None:
    closing = {91: b"]", 123: b"}"}
    ends = b"".join(closing[byte] for byte in reversed(opening.replace(b"[]", b"")) if byte in closing)
    levels = len(ends)
    deep = b'{"x": "%b", "y": %b}' % (b"a" * LIGHT, opening * (MAX_DEPTH // levels + 1) + b"1" + ends * MAX_DEPTH)
    with pytest.raises(LimitError, match=f"more than {MAX_DEPTH} levels"):
        weigh(deep)

    shallow = MAX_DEPTH // levels - 2
    weigh(b'{"x": "%b", "y": %b}' % (b"a" * LIGHT, list_of(opening * shallow + b"1" + ends * shallow, 300)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: "😀".encode() + image(),
        lambda: image() + "😀".encode(),
        lambda: b'\\"' + image(),
        lambda: image() + b'\\"',
        lambda: "😀".encode() * 3 * MIB + image(),
    ],
    ids=["first", "last", "escape first", "escape last", "many first"],
)
def test_one_wide_character_makes_its_whole_string_wide(make: Callable[[], bytes]) -> None:
    with pytest.raises(LimitError, match="more than 8 MiB of text"):
        weigh(b'{"image": "' + make() + b'"}')


@pytest.mark.parametrize("odd", ["😀", "ä", "\\u00e4", "\\n", '\\"'])
def test_text_that_may_take_four_bytes_a_character_is_limited_and_an_image_beside_it_is_not(odd: str) -> None:
    unit = odd.encode()
    beside = b'{"image": "' + image() + b'", "text": "'
    weigh(beside + unit * 1000 + b'"}')
    weigh(beside + b'plain"}')

    with pytest.raises(LimitError, match="more than 8 MiB of text"):
        weigh(beside + unit * (MAX_WIDE // len(unit) + 1) + b'"}')


@pytest.mark.parametrize(
    "make",
    [
        lambda: json.dumps({"text": "[{,:}]" * MAX_ELEMENTS}).encode(),
        lambda: json.dumps({"text": '\\"[,' * (MAX_ELEMENTS + 1)}).encode(),
        lambda: json.dumps({"csv": '"a","b"\n' * MAX_ELEMENTS}).encode(),
        lambda: list_of(b"0.5", MAX_ELEMENTS - 2),
    ],
    ids=["punctuation in text", "quotes in text", "a table in text", "numbers"],
)
def test_punctuation_inside_strings_does_not_count(make: Callable[[], bytes]) -> None:
    light = make()
    weigh(light)
    assert msgspec.json.decode(light)


@pytest.mark.parametrize("size", [*only_long(16 * MIB), 32 * MIB])
@pytest.mark.parametrize(
    "unit", [b"[],", b'{"a":1},', b'"a",', b'"a"', b'\\"', b"a", "😀".encode(), b"[", b"{", b"\\ud83d\\ude00"]
)
def test_weighing_takes_little_time(unit: bytes, size: int) -> None:
    heavy = b'["' * 2 + unit * (size // len(unit))
    began = time.thread_time()
    with contextlib.suppress(LimitError):
        weigh(heavy)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "number",
    [
        b"1e308",
        b"5E-324",
        b"1e+0308",
        b"0." + b"1" * 90 + b"e-300",
        b"0." + b"0" * 320 + b"1",
        b"9" * 4200,
        b"2.27939714866850867e+99",
    ],
    ids=lambda number: f"{number[:12].decode()}, {len(number)}",
)
def test_numbers_that_are_slow_to_decode_are_limited(number: bytes) -> None:
    """A megabyte of ``1e308`` took five seconds to decode."""
    began = time.thread_time()
    with contextlib.suppress(LimitError):
        heavy = b'{"a":' + list_of(number, min(MAX_ELEMENTS - 10, 8 * MIB // len(number))) + b"}"
        weigh(heavy)
        msgspec.json.decode(heavy)
    assert time.thread_time() - began < CHEAP * cpu_slack()


@pytest.mark.parametrize(
    "make",
    [
        lambda: list_of(b"-1.2345678901234567e-05", MAX_ELEMENTS - 1),
        lambda: list_of(b"-0.0012345678901234567", 39_000),
        lambda: b'"' + b"1e308," * 100_000 + b"1" * MIB + b'"',
    ],
    ids=["probabilities", "long probabilities", "text"],
)
def test_ordinary_numbers_pass(make: Callable[[], bytes]) -> None:
    light = make()
    weigh(light)


@pytest.mark.parametrize("kind", ["openai", "google"])
@pytest.mark.parametrize("number", [b"1e308", b"0." + b"1" * 90 + b"e-300"], ids=["short", "long"])
@pytest.mark.parametrize("size", [MIB // 2, 8 * MIB], ids=["small", "large"])
def test_vectors_that_are_slow_to_decode_are_refused(kind: str, number: bytes, size: int) -> None:
    row = list_of(number, min(60_000, size // len(number)))
    rows = [row] * max(1, size // len(row))
    body = (
        b'{"data":[' + b",".join(b'{"embedding":' + row + b"}" for row in rows) + b"]}"
        if kind == "openai"
        else b'{"embeddings":[' + b",".join(b'{"values":' + row + b"}" for row in rows) + b"]}"
    )
    began = time.thread_time()
    with pytest.raises(LimitError, match="large exponents"):
        finished((read_openai if kind == "openai" else read_google)(body, len(rows)))
    assert time.thread_time() - began < CHEAP * cpu_slack()


def test_slow_numbers_inside_strings_do_not_count() -> None:
    around = b'[{"a":"' + b",1e308" * 50_000 + b'"},%b,' + list_of(b"[]", MAX_DEPTH + 1) + b"]"
    weigh(around % list_of(b"1.5", 3000))
    with pytest.raises(LimitError, match="large exponents"):
        weigh(around % list_of(b"1e308", 3000))
