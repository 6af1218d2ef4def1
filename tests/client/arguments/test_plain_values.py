"""What is promised of nested values: JSON's equal is sent, and what has none is refused with the path to it."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from django.utils.safestring import mark_safe
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.arguments.plain_values import MAX_DEPTH, path_to, plain, plain_dict, plain_text, shown
from headrace.errors import InvalidRequestError
from tests.cases import each


class Colour(enum.StrEnum):
    RED = "red"


class MixedColour(str, enum.Enum):  # noqa: UP042 - its str() is not its value
    RED = "red"


class BareColour(enum.Enum):
    RED = "red"


class NumberEnum(enum.IntEnum):
    TWO = 2


class Celsius(float):
    def __str__(self) -> str:
        return "warm"


class Point(NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class TaggedName:
    name: str
    tags: tuple[str, ...]


class Doubled(Mapping[str, Any]):
    """A Mapping that is not a dict."""

    def __getitem__(self, key: str) -> Any:
        return key * 2

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "b"])

    def __len__(self) -> int:
        return 2


class Scalar:
    """Behaves like numpy's bool."""

    ndim = 0

    def item(self) -> bool:
        return True


MADE_PLAIN: list[tuple[Any, Any]] = [
    (mark_safe("<b>"), "<b>"),
    (mark_safe("é"), "é"),
    (Colour.RED, "red"),
    (MixedColour.RED, "red"),
    (BareColour.RED, "red"),
    (NumberEnum.TWO, 2),
    (Celsius(21.5), 21.5),
    (fractions.Fraction(1, 2), 0.5),
    (Scalar(), True),
    (collections.UserString("Hi"), "Hi"),
    ((1, (2, [3])), [1, [2, [3]]]),
    (Point(1, 2), [1, 2]),
    (range(3), [0, 1, 2]),
    (collections.deque("ab"), ["a", "b"]),
    (collections.OrderedDict(a=1), {"a": 1}),
    (collections.defaultdict(list, a=[1]), {"a": [1]}),
    (collections.ChainMap({"a": 1}), {"a": 1}),
    (MappingProxyType({"a": (1,)}), {"a": [1]}),
    (Doubled(), {"a": "aa", "b": "bb"}),
    ({Colour.RED: 1}, {"red": 1}),
    (TaggedName("Bern", ("a",)), {"name": "Bern", "tags": ["a"]}),
    (2**64 - 1, 2**64 - 1),
    (-(2**63), -(2**63)),
]


def types_in(value: Any) -> set[type]:
    if isinstance(value, dict):
        return {dict, *(kind for key, item in value.items() for kind in types_in(key) | types_in(item))}
    if isinstance(value, list):
        return {list, *(kind for item in value for kind in types_in(item))}
    return {type(value)}


PLAIN_TYPES = {dict, list, str, int, float, bool, type(None)}


@pytest.mark.parametrize(("value", "expected"), MADE_PLAIN, ids=lambda value: type(value).__name__)
def test_a_value_with_an_equal_in_json_becomes_it(value: Any, expected: Any) -> None:
    made = plain("custom_options", {"at": [value]})

    assert made == {"at": [expected]}
    assert types_in(made) <= PLAIN_TYPES


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring += [ring, ring]
    return ring


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


REFUSED: list[tuple[Any, str]] = [
    (float("nan"), "finite"),
    (float("inf"), "finite"),
    (Celsius("-inf"), "finite"),
    (2**64, "64 bits"),
    (-(2**63) - 1, "64 bits"),
    (10**5000, "64 bits"),
    ("\ud83d", "lone surrogate"),
    (mark_safe("a\udc4b"), "lone surrogate"),
    (b"x", "bytes.*base64"),
    (bytearray(b"x"), "bytearray.*base64"),
    (memoryview(b"x"), "memoryview"),
    ({1, 2}, "set; give a list"),
    (frozenset(), "frozenset; give a list"),
    ({}.keys(), "dict_keys; give a list"),
    (iter([1]), "list_iterator"),
    ((item for item in [1]), "generator; give a list"),
    (datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "isoformat"),
    (datetime.date(2026, 1, 1), "isoformat"),
    (datetime.timedelta(1), "total_seconds"),
    (decimal.Decimal("0.5"), "Decimal"),
    (fractions.Fraction(1, 3), "Fraction"),
    (uuid.UUID(int=1), "UUID"),
    (pathlib.Path("x"), "Path"),
    (1j, "complex"),
    (object(), "object"),
    (int, "type"),
    (test_a_value_with_an_equal_in_json_becomes_it, "function"),
    (TaggedName, "type"),
    ({1: "x"}, "str keys, not 1"),
    ({None: "x"}, "str keys, not None"),
    ({("a",): "x"}, "str keys, not tuple"),
]


@each(("value", "words"), REFUSED)
def test_a_value_without_one_is_refused_with_the_path_to_it(value: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        plain("tools[0].parameters", {"properties": {"x y": [1, {"default": value}]}})

    assert caught.value.argument == "tools[0].parameters.properties['x y'][1].default"


def test_a_path_quotes_what_is_no_name() -> None:
    assert path_to("tools[0]", "input_schema") == "tools[0].input_schema"
    assert path_to("custom_options", "x-key") == "custom_options.x-key"
    assert path_to("custom_options", "a b") == "custom_options['a b']"


def test_a_key_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate") as caught:
        plain("custom_options", {"a": {"\ud800": 1}})
    assert caught.value.argument == "custom_options.a"


@pytest.mark.parametrize("value", [cycle(), {"a": [cycle()]}])
def test_a_value_that_holds_itself_is_refused(value: Any) -> None:
    with pytest.raises(InvalidRequestError, match="holds itself"):
        plain("custom_options", value)


def test_a_value_may_stand_in_two_places() -> None:
    shared = {"a": [1]}

    assert plain("custom_options", [shared, shared]) == [shared, shared]


def test_nesting_is_bounded() -> None:
    assert plain("custom_options", deep(MAX_DEPTH)) == deep(MAX_DEPTH)
    assert MAX_DEPTH == 200
    for levels in (MAX_DEPTH + 1, 100_000):
        with pytest.raises(InvalidRequestError, match="deeper than 200 levels") as caught:
            plain("custom_options", deep(levels))
        assert str(caught.value.argument).startswith("custom_options[0][0]")
        assert len(str(caught.value)) < 200


def test_dicts_and_dataclasses_count_as_levels_too() -> None:
    for step in (lambda value: {"a": value}, lambda value: TaggedName("x", value)):
        value: Any = "x"
        for _ in range(MAX_DEPTH):
            value = step(value)
        plain("custom_options", value)
        with pytest.raises(InvalidRequestError, match="deeper than 200 levels"):
            plain("custom_options", step(value))


def test_a_path_of_many_steps_is_cut_and_a_shorter_one_is_whole() -> None:
    for levels, is_cut in ((24, False), (25, True)):
        value: Any = b""
        for _ in range(levels):
            value = [value]
        with pytest.raises(InvalidRequestError) as caught:
            plain("custom_options", value)
        assert caught.value.argument == "custom_options" + "[0]" * 24 + ("…" if is_cut else "")


def test_a_text_and_a_dict_are_taken_as_such_alone() -> None:
    assert type(plain_text("user_id", mark_safe("a"))) is str
    assert plain_text("user_id", "é") == "é"
    for no_text in (5, b"a", None, ["a"]):
        with pytest.raises(InvalidRequestError, match=f"takes a str, not {type(no_text).__name__}"):
            plain_text("user_id", no_text)
    assert plain_dict("custom_options", MappingProxyType({"a": (1,)})) == {"a": [1]}
    for no_dict in ([], "a", None, [("a", 1)]):
        with pytest.raises(InvalidRequestError, match=f"takes a dict, not {type(no_dict).__name__}"):
            plain_dict("custom_options", no_dict)


def test_what_an_error_quotes_is_short() -> None:
    assert [shown(value) for value in ("x" * 80, 10**80 - 1, 1.5, None, True, mark_safe("a"), [1])] == [
        repr("x" * 80),
        "9" * 80,
        "1.5",
        "None",
        "True",
        "'a'",
        "list",
    ]
    assert shown("x" * 81) == repr("x" * 80 + "…")
    assert shown(-(10**80)) == "an int of many digits"


def test_no_error_shows_more_than_the_beginning_of_a_value() -> None:
    for value in ("x" * 10_000, 10**5000, {"a": "x" * 10_000}, b"x" * 10_000):
        assert len(shown(value)) < 100


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@settings(deadline=None)
@given(value=JSON)
def test_what_json_carries_stays_as_it_is(value: Any) -> None:
    made = plain("custom_options", value)

    assert made == value
    assert msgspec.json.encode(made) == msgspec.json.encode(value)


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=()))
    | st.binary()
    | st.decimals()
    | st.datetimes()
    | st.uuids()
    | st.sampled_from([Colour.RED, NumberEnum.TWO, Point(1, 2), Scalar()]),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=20,
)


@settings(deadline=None)
@given(value=ANYTHING)
def test_whatever_is_given_becomes_plain_or_is_refused_with_its_path(value: Any) -> None:
    refused: InvalidRequestError | None = None
    made: Any = None
    try:
        made = plain("custom_options", {"at": value})
    except InvalidRequestError as error:
        refused = error
    if refused is not None:
        assert str(refused.argument).startswith("custom_options.at")
        return
    assert types_in(made) <= PLAIN_TYPES
    assert msgspec.json.decode(msgspec.json.encode(made)) == made
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(made)) == made
