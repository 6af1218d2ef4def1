"""What a model is told of a function's result, and of its error."""

from __future__ import annotations

import dataclasses
import datetime
import enum
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest

from headrace import ImagePart, TextPart
from headrace.tools.tool_results import UnfitResultError, content_of, error_words, failure_content
from tests.cases import each


class Point(msgspec.Struct):
    x: int


class Place(pydantic.BaseModel):
    city: str
    day: datetime.date


@dataclasses.dataclass
class Order:
    places: list[Place]


class Unit(enum.Enum):
    CELSIUS = "celsius"


class Text(str):
    __slots__ = ()


IMAGE = ImagePart(data="AAAA", media_type="image/png")
PLACE = Place(city="Oslo", day=datetime.date(2026, 11, 29))


@each(
    ("value", "content"),
    [
        ("plain {text}", "plain {text}"),
        (Text("a"), "a"),
        ("", ""),
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        ({"a": [1, None]}, '{"a":[1,null]}'),
        ([], "[]"),
        (Point(1), '{"x":1}'),
        (PLACE, '{"city":"Oslo","day":"2026-11-29"}'),
        (Order([PLACE]), '{"places":[{"city":"Oslo","day":"2026-11-29"}]}'),
        (Unit.CELSIUS, '"celsius"'),
        (datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC), '"2026-11-29T00:00:00Z"'),
        (Decimal("1.50"), '"1.50"'),
        (range(3), "[0,1,2]"),
        ((1, "a"), '[1,"a"]'),
        (IMAGE, [IMAGE]),
        ([TextPart("a"), IMAGE], [TextPart("a"), IMAGE]),
    ],
)
def test_a_result_becomes_text_or_parts(value: Any, content: Any) -> None:
    assert content_of(value) == content


@each(
    ("value", "words"),
    [
        (
            b"\x89PNG",
            "the tool returned bytes, which a model cannot read: return a str, or a part such as headrace.ImagePart",
        ),
        (bytearray(b"x"), "the tool returned bytearray"),
        (object(), "the tool returned object, which JSON cannot hold: return a str, or a dict"),
        ({"a": object()}, "the tool returned dict, which JSON cannot hold"),
        ((item for item in "ab"), "the tool returned generator, which JSON cannot hold"),
        ({"a": "\ud800"}, "the tool returned dict, which JSON cannot hold"),
    ],
)
def test_a_result_that_no_message_can_hold_says_what_to_return_instead(value: Any, words: str) -> None:
    with pytest.raises(UnfitResultError) as caught:
        content_of(value)
    assert words in str(caught.value)


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@each(
    ("error", "words"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError("x"), "KeyError: 'x'"),
        (TimeoutError(), "TimeoutError"),
        (UnspeakableError(), "UnspeakableError"),
    ],
)
def test_an_error_is_told_by_its_type_and_text(error: Exception, words: str) -> None:
    assert error_words(error) == words
    assert failure_content(words) == f"Error: {words}"


def test_a_long_error_is_cut_and_a_broken_character_replaced() -> None:
    assert len(failure_content("x" * 50_000)) < 11_000
    assert failure_content("\ud800") == "Error: \ufffd"
    assert content_of("a\ud800") == "a\ufffd"
