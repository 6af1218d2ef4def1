"""What a model is told of a function, and what the function gets from a call."""

from __future__ import annotations

import datetime
import gc
import inspect
import math
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest

import headrace
from headrace import InvalidRequestError
from headrace.arguments.tool_list import read_tools, with_functions_read
from headrace.tools.function_tool import FunctionTool, UnfitArgumentsError, function_tool
from tests.cases import case, each
from tests.client.tools import tool_functions as given

UUID_TEXT = "12345678-1234-5678-1234-567812345678"
NODE = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "default": []},
    },
    "required": ["name"],
}


def string(**words: Any) -> dict[str, Any]:
    return {"type": "string", **words}


def integer(**words: Any) -> dict[str, Any]:
    return {"type": "integer", **words}


Row = tuple[Callable[..., Any], str, str, dict[str, Any], list[str], dict[str, Any], dict[str, Any]]
WEATHER = "Get the weather."
UNITS = ["celsius", "fahrenheit"]
PLACE = {
    "type": "object",
    "properties": {"city": string(), "country": string(default="NO", description="ISO code")},
    "required": ["city"],
}
POINT = {"type": "object", "properties": {"x": integer(), "y": integer(default=0)}, "required": ["x"]}
ORDER = {"type": "object", "properties": {"item": string(), "count": integer(default=1)}, "required": ["item"]}

ROWS: list[Row] = [
    # function, name, description, properties, required, arguments of a call → what the function gets
    (
        given.google_style,
        "google_style",
        f"{WEATHER}\n\nOnly for today.",
        {
            "location": string(description="The city, with its country."),
            "unit": string(enum=UNITS, description="The unit of the answer.", default="celsius"),
        },
        ["location"],
        {"location": "Oslo", "unit": "fahrenheit"},
        {"location": "Oslo", "unit": given.Unit.FAHRENHEIT},
    ),
    (
        given.numpy_style,
        "numpy_style",
        WEATHER,
        {"location": string(description="The city."), "days": integer(description="How many days.", default=3)},
        ["location"],
        {"location": "Oslo"},
        {"location": "Oslo", "days": 3},
    ),
    (
        given.rest_style,
        "rest_style",
        WEATHER,
        {"location": string(description="The city."), "days": integer(description="How many days.")},
        ["location", "days"],
        {"location": "Oslo", "days": 2.0},
        {"location": "Oslo", "days": 2},
    ),
    (
        given.no_docstring,
        "no_docstring",
        "",
        {"a": integer(), "b": {"type": "number"}},
        ["a", "b"],
        {"a": 1, "b": 2},
        {"a": 1, "b": 2.0},
    ),
    (given.no_parameters, "no_parameters", "Say what time it is.", {}, [], {}, {}),
    (
        given.annotated_text,
        "annotated_text",
        WEATHER,
        {"city": string(description="The city."), "days": integer(description="How many days.", default=1)},
        ["city"],
        {"city": "Oslo"},
        {"city": "Oslo", "days": 1},
    ),
    (
        given.annotated_meta,
        "annotated_meta",
        "",
        {"days": integer(minimum=1, maximum=7, description="How many days.")},
        ["days"],
        {"days": 7},
        {"days": 7},
    ),
    (
        given.annotated_field,
        "annotated_field",
        "",
        {"days": integer(minimum=1, maximum=7, description="How many days.")},
        ["days"],
        {"days": 7},
        {"days": 7},
    ),
    (
        given.field_as_default,
        "field_as_default",
        "",
        {"days": integer(minimum=1, description="How many days.", default=3)},
        [],
        {},
        {"days": 3},
    ),
    (
        given.field_without_default,
        "field_without_default",
        "",
        {"days": integer(description="How many days.")},
        ["days"],
        {"days": 1},
        {"days": 1},
    ),
    (
        given.field_with_factory,
        "field_with_factory",
        "",
        {"names": {"type": "array", "items": string()}},
        [],
        {},
        {"names": ["a"]},
    ),
    (
        given.pydantic_argument,
        "pydantic_argument",
        "",
        {"place": PLACE},
        ["place"],
        {"place": {"city": "Oslo"}},
        {"place": given.Place(city="Oslo", country="NO")},
    ),
    (
        given.generic_pydantic,
        "generic_pydantic",
        "",
        {"box": {"type": "object", "properties": {"inside": integer()}, "required": ["inside"]}},
        ["box"],
        {"box": {"inside": 1}},
        {"box": given.Box[int](inside=1)},
    ),
    (
        given.struct_argument,
        "struct_argument",
        "",
        {"point": POINT | {"description": "Where."}},
        ["point"],
        {"point": {"x": 1}},
        {"point": given.Point(1)},
    ),
    (
        given.recursive_struct,
        "recursive_struct",
        "",
        {"root": {"$ref": "#/$defs/Node"}},
        ["root"],
        {"root": {"name": "a", "children": [{"name": "b"}]}},
        {"root": given.Node("a", [given.Node("b")])},
    ),
    (
        given.dataclass_argument,
        "dataclass_argument",
        "",
        {"order": {"$ref": "#/$defs/Order"}},
        ["order"],
        {"order": {"item": "tea"}},
        {"order": given.Order("tea")},
    ),
    (
        given.typed_dict_argument,
        "typed_dict_argument",
        "",
        {"filters": {"$ref": "#/$defs/Filters"}},
        ["filters"],
        {"filters": {"status": "open"}},
        {"filters": {"status": "open"}},
    ),
    (
        given.tuple_argument,
        "tuple_argument",
        "",
        {"pair": {"$ref": "#/$defs/Pair"}},
        ["pair"],
        {"pair": [1, "a"]},
        {"pair": given.Pair(1, "a")},
    ),
    (
        given.mixed_libraries,
        "mixed_libraries",
        "",
        {"place": PLACE, "point": {"$ref": "#/$defs/Point"}, "order": {"$ref": "#/$defs/Order"}},
        ["place", "point", "order"],
        {"place": {"city": "Oslo"}, "point": {"x": 1}, "order": {"item": "tea"}},
        {"place": given.Place(city="Oslo", country="NO"), "point": given.Point(1), "order": given.Order("tea")},
    ),
    (
        given.old_optional,
        "old_optional",
        "",
        {"city": {"anyOf": [string(), {"type": "null"}]}},
        [],
        {"city": None},
        {"city": None},
    ),
    (
        given.union,
        "union",
        "",
        {"key": {"anyOf": [integer(), string()]}},
        ["key"],
        {"key": "a"},
        {"key": "a"},
    ),
    (
        given.literal,
        "literal",
        "",
        {"mode": string(enum=["fast", "slow"], default="fast")},
        [],
        {"mode": "slow"},
        {"mode": "slow"},
    ),
    (
        given.int_enum,
        "int_enum",
        "",
        {"level": {"$ref": "#/$defs/Level"}},
        ["level"],
        {"level": 2},
        {"level": given.Level.HIGH},
    ),
    (
        given.nested_lists,
        "nested_lists",
        "",
        {
            "rows": {
                "type": "array",
                "items": {"type": "object", "additionalProperties": {"type": "array", "items": integer()}},
            }
        },
        ["rows"],
        {"rows": [{"a": [1, 2.0]}]},
        {"rows": [{"a": [1, 2]}]},
    ),
    (given.anything, "anything", "", {"value": {}}, ["value"], {"value": {"a": [1]}}, {"value": {"a": [1]}}),
    (
        given.dates,
        "dates",
        "",
        {"day": string(format="date"), "at": {"anyOf": [string(format="date-time"), {"type": "null"}]}},
        ["day"],
        {"day": "2026-11-29"},
        {"day": datetime.date(2026, 11, 29), "at": None},
    ),
    (
        given.numbers_and_ids,
        "numbers_and_ids",
        "",
        {"price": string(format="decimal"), "key": string(format="uuid")},
        ["price", "key"],
        {"price": "1.50", "key": UUID_TEXT},
        {"price": Decimal("1.50"), "key": UUID(UUID_TEXT)},
    ),
    (given.new_type, "new_type", "", {"user": integer()}, ["user"], {"user": 7}, {"user": 7}),
    (
        given.positional_only,
        "positional_only",
        "",
        {"a": integer(), "b": integer(default=2), "c": integer(default=3)},
        ["a"],
        {"a": 1, "c": 5},
        {"a": 1, "b": 2, "c": 5},
    ),
    (
        given.keyword_only,
        "keyword_only",
        "",
        {"a": integer(), "b": integer(default=2)},
        ["a"],
        {"a": 1},
        {"a": 1, "b": 2},
    ),
    (
        given.a_sequence,
        "a_sequence",
        "",
        {"names": {"type": "array", "items": string()}},
        ["names"],
        {"names": ["a", "b"]},
        {"names": ["a", "b"]},
    ),
    (
        given.asynchronous,
        "asynchronous",
        "Get the weather, later.",
        {"city": string()},
        ["city"],
        {"city": "Oslo"},
        {"city": "Oslo"},
    ),
    (
        given.partial_by_position,
        "_with_key",
        WEATHER,
        {"city": string(), "days": integer(default=1)},
        ["city"],
        {"city": "Oslo"},
        {"city": "Oslo", "days": 1},
    ),
    (
        given.partial_by_name,
        "_with_key",
        WEATHER,
        {"city": string()},
        ["city"],
        {"city": "Oslo"},
        {"key": "secret", "city": "Oslo", "days": 2},
    ),
    (given.wrapped, "wrapped", WEATHER, {"city": string()}, ["city"], {"city": "Oslo"}, {"city": "Oslo"}),
    (
        given.renamed,
        "renamed-tool",
        "Another description.",
        {"city": string()},
        ["city"],
        {"city": "Oslo"},
        {"city": "Oslo"},
    ),
    (given.decorated, "decorated", WEATHER, {"city": string()}, ["city"], {"city": "Oslo"}, {"city": "Oslo"}),
    (
        given.shop.price,
        "price",
        "Look up a price.",
        {"item": string(description="What to buy.")},
        ["item"],
        {"item": "tea"},
        {"item": "tea"},
    ),
    (given.Shop.opened, "opened", "Open a shop.", {"name": string()}, ["name"], {"name": "a"}, {"name": "a"}),
    (
        given.Shop.tax,
        "tax",
        "Compute the tax.",
        {"amount": {"type": "number"}},
        ["amount"],
        {"amount": 8},
        {"amount": 8},
    ),
    (given.shop.sell_item, "sell", "Sell.", {"item": string()}, ["item"], {"item": "tea"}, {"item": "tea"}),
    (
        given.shop,
        "Shop",
        "Answer a question.",
        {"question": string()},
        ["question"],
        {"question": "why"},
        {"question": "why"},
    ),
    (
        given.named_method,
        "look_up_price",
        "Look up a price.",
        {"item": string(description="What to buy.")},
        ["item"],
        {"item": "tea"},
        {"item": "tea"},
    ),
]


def test_there_are_thirty_functions_and_more() -> None:
    assert len(ROWS) >= 30


@each(("function", "name", "description", "properties", "required", "call", "gets"), ROWS)
def test_a_model_is_told_of_a_function_what_the_function_says_of_itself(
    function: Callable[..., Any],
    name: str,
    description: str,
    properties: dict[str, Any],
    required: list[str],
    call: dict[str, Any],
    gets: dict[str, Any],
) -> None:
    read = function_tool("tools[0]", function)

    assert (read.tool.name, read.tool.description) == (name, description)
    schema = read.tool.parameters
    assert (schema["type"], schema["additionalProperties"]) == ("object", False)
    assert schema["properties"] == properties
    assert schema.get("required", []) == required

    positional, named = read.read_arguments(call)
    bound = inspect.signature(function).bind(*positional, **named)
    bound.apply_defaults()
    assert bound.arguments == gets


def test_definitions_stand_once_beside_the_properties() -> None:
    schema = function_tool("tools[0]", given.mixed_libraries).tool.parameters

    assert schema["$defs"]["Point"] == POINT
    assert schema["$defs"]["Order"] == ORDER
    assert function_tool("tools[0]", given.recursive_struct).tool.parameters["$defs"] == {"Node": NODE}


def test_two_types_of_one_name_keep_apart() -> None:
    def other() -> type:
        class Point(msgspec.Struct):
            z: str

        return Point

    def both(a: given.Point, b: Any) -> None: ...

    both.__annotations__["b"] = other()
    schema = function_tool("tools[0]", both).tool.parameters

    names = [schema["properties"][name]["$ref"].removeprefix("#/$defs/") for name in ("a", "b")]
    assert [list(schema["$defs"][name]["properties"]) for name in names] == [["x", "y"], ["z"]]


def a_generator(city: str) -> Iterator[str]:
    yield city


async def an_async_generator(city: str) -> AsyncIterator[str]:
    yield city


def half_annotated(city: str, days=1): ...  # type: ignore[no-untyped-def]


def many(*cities: str) -> None: ...


def unwrapped(*args: Any, **kwargs: Any) -> None: ...


def options(**options: str) -> None: ...


def unknown_name(city: NoSuchType) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def without_schema(city: Callable[[], str]) -> None: ...


def größe(city: str) -> None: ...  # noqa: PLC2401 - the name is the case


REFUSED: list[tuple[Any, str]] = [
    (half_annotated, "the parameter 'days' of half_annotated() has no annotation: write its type, such as days: str"),
    (lambda: None, "the tool's name '<lambda>' must have 1 to 64"),
    (lambda city: city, "the tool's name '<lambda>' must have 1 to 64"),
    (größe, "the tool's name 'größe' must have 1 to 64"),
    (many, "many() takes *cities, but a model gives arguments by name: name each parameter"),
    (unwrapped, "decorate it with functools.wraps"),
    (options, "options() takes **options, but"),
    (given.Shop.price, "price() is a method without its object: give the method of an object"),
    (given.Shop, "takes a function, not the class Shop"),
    (unknown_name, "the annotation 'NoSuchType' of the parameter 'city' of unknown_name() cannot be read"),
    (without_schema, "the parameter 'city' of without_schema():"),
    (a_generator, "a_generator() is a generator"),
    (an_async_generator, "an_async_generator() is a generator"),
    (math.hypot, "hypot() "),
    (given.square_root, "the parameter 'x' of sqrt() has no annotation"),
]


def test_a_function_that_no_model_can_call_is_refused_by_its_place_and_parameter() -> None:
    for function, words in REFUSED:
        with case(function), pytest.raises(InvalidRequestError) as caught:
            read_tools(with_functions_read([given.literal, function]), {})
        assert caught.value.argument == "tools[1]"
        assert words in str(caught.value), str(caught.value)


def test_two_functions_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"tools\[2\]: has the name 'literal', as tools\[0\] has"):
        read_tools(with_functions_read([given.literal, given.union, {"name": "literal"}]), {})


def test_what_was_read_of_a_function_is_remembered_as_long_as_the_function_lives() -> None:
    def price(item: str) -> str:
        return item

    first = function_tool("tools[0]", price)
    assert function_tool("tools[7]", price).tool is first.tool
    assert (
        function_tool("tools[0]", given.Shop("a").price).tool is function_tool("tools[0]", given.Shop("b").price).tool
    )
    assert function_tool("tools[0]", given.Shop("b").price).function("tea") == "b: tea"

    headrace.tool(name="cost")(price)
    assert function_tool("tools[0]", price).tool.name == "cost"
    reference = weakref.ref(price)
    del price, first
    gc.collect()
    assert reference() is None


def test_a_default_that_json_cannot_hold_is_refused_by_its_place() -> None:
    def huge(number: int = 10**30) -> int:
        return number

    with pytest.raises(
        InvalidRequestError, match=r"tools\[0\].parameters.properties.number.default: takes integers of"
    ):
        read_tools(with_functions_read([huge]), {})


UNFIT: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
    (given.numpy_style, {}, "location: is missing. numpy_style takes: location, days"),
    (given.numpy_style, {"location": "a", "town": "b"}, "town: there is no such argument"),
    (given.numpy_style, {"location": 5}, "location: Expected `str`, got `int`"),
    (given.numpy_style, {"days": "x"}, "location: is missing; days: Expected `int`"),
    (given.struct_argument, {"point": {"x": "a"}}, "point.x: Expected `int`, got `str`"),
    (given.pydantic_argument, {"place": {}}, "place.city: Field required"),
    (given.nested_lists, {"rows": [{"a": [1, None]}]}, "rows[0].a[1]: Expected `int`, got `null`"),
    (given.annotated_field, {"days": 9}, "days: Input should be less than or equal to 7"),
    (given.no_parameters, {"a": 1}, "no_parameters takes: no arguments"),
]


@each(("function", "call", "words"), UNFIT)
def test_arguments_that_do_not_fit_are_told_by_their_names(
    function: Callable[..., Any], call: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnfitArgumentsError) as caught:
        function_tool("tools[0]", function).read_arguments(call)
    assert words in str(caught.value)


def test_a_strict_tool_is_told_in_portable_form_and_its_arguments_come_back_in_their_own() -> None:
    @headrace.tool(strict=True)
    def count(words: dict[str, int], limit: int | None = None) -> int:
        return len(words)

    read = function_tool("tools[0]", count)

    assert read.tool.strict is True
    assert read.tool.parameters["properties"]["words"]["type"] == "array"
    given_by_model = {"words": [{"key": "a", "value": 1}], "limit": None}
    assert read.read_arguments(given_by_model) == ([], {"words": {"a": 1}, "limit": None})


def test_the_decorator_leaves_the_function_as_it_is() -> None:
    def price(item: str) -> str:
        return item

    assert headrace.tool(price) is price
    assert headrace.tool(name="x")(price) is price
    assert price("tea") == "tea"
    assert given.shop.sell_item("tea") == "Corner sells tea"
    assert isinstance(function_tool("tools[0]", price), FunctionTool)


@each(
    ("wrong", "words"),
    [
        ({"name": 5}, "headrace.tool: name: takes a str, not int"),
        ({"name": "get the weather"}, "headrace.tool: name: takes 1 to 64 letters A-Z a-z, .*, not 'get the weather'"),
        ({"description": b"x"}, "headrace.tool: description: takes a str, not bytes"),
        ({"strict": "yes"}, "headrace.tool: strict: takes a bool, not str"),
        ({"timeout": 0}, "headrace.tool: timeout: takes a number of seconds above 0"),
        ({"timeout": "5"}, "headrace.tool: timeout: takes a number of seconds above 0"),
        ({"raises": "ValueError"}, "headrace.tool: raises: takes an exception type"),
    ],
)
def test_a_wrong_word_to_the_decorator_is_refused_at_once(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        headrace.tool(**wrong)
    with pytest.raises(InvalidRequestError, match="decorates a function, not int"):
        headrace.tool(5)  # type: ignore[call-overload]
    with pytest.raises(InvalidRequestError, match="not the class Shop; decorate a function"):
        headrace.tool(given.Shop)
