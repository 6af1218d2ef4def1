"""The schema and the decoder of each kind of type, and the errors of types without a schema."""

from __future__ import annotations

import enum
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypedDict, TypeVar

import annotated_types
import msgspec
import pydantic
import pydantic.dataclasses
import pytest
from pydantic import BaseModel, Field, RootModel

from headrace.errors import InvalidRequestError
from headrace.schemas.portable_form import portable_form
from headrace.schemas.type_reading import decoder_of, schema_of
from headrace.schemas.value_mismatch import ValueMismatchError
from tests.cases import each

T = TypeVar("T")


class Line(BaseModel):
    name: str
    price: Annotated[float, Field(ge=0)]
    tax: float = Field(default=0.0, alias="taxRate")

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def total(self) -> float:
        return self.price * (1 + self.tax)


class Bill(BaseModel):
    number: int
    lines: list[Line]

    @pydantic.field_validator("number")
    @classmethod
    def _is_odd(cls, number: int) -> int:
        if number % 2 == 0:
            raise ValueError("is even")
        return number


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Owner(BaseModel):
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]


class Names(RootModel[list[str]]):
    pass


class PageOf(BaseModel, Generic[T]):
    items: list[T]


class Square(msgspec.Struct, tag="square"):
    side: int


class Round(msgspec.Struct, tag=True, rename="camel", forbid_unknown_fields=True):
    outer_radius: int


class Box(msgspec.Struct, Generic[T]):
    inner: T


class Pair(msgspec.Struct, array_like=True):
    left: int
    right: int = 0


class Mixed(msgspec.Struct):
    bill: Bill
    others: list[Line] = []


class Place(NamedTuple):
    name: str
    height: int = 0


class Encoded(BaseModel):
    lines: pydantic.Json[dict[str, Line]]
    any: pydantic.Json[Any]
    words: pydantic.Json[str] = "none"


class PlaceModel(BaseModel):
    place: Place


class Address(TypedDict):
    street: str
    flat: NotRequired[int]


class InDict(TypedDict):
    bill: Bill


class Size(enum.Enum):
    SMALL = "small"
    BIG = 2


@dataclass
class Tree:
    name: str
    kids: list[Tree] = field(default_factory=list)


@dataclass
class Plain:
    x: Annotated[int, msgspec.Meta(ge=1, description="The x.")]


@dataclass
class Other:
    y: int


@dataclass
class Another:
    z: int


@dataclass
class Strict:
    x: Annotated[int, annotated_types.Ge(1)]


@pydantic.dataclasses.dataclass
class Checked:
    x: int


@dataclass
class HoldsModel:
    bill: Bill | None
    place: Place


Id = uuid.UUID("12345678123456781234567812345678")
BILL: dict[str, Any] = {"number": 1, "lines": [{"name": "a", "price": 2, "taxRate": 0.5}]}
THE_BILL = Bill(number=1, lines=[Line.model_validate(BILL["lines"][0])])


@each(
    ("annotation", "value", "expected"),
    [
        (Bill, BILL, THE_BILL),
        (list[Bill] | None, [BILL], [THE_BILL]),
        (Owner, {"pet": {"kind": "dog", "tricks": ["sit"]}}, Owner(pet=Dog(kind="dog", tricks=["sit"]))),
        (Cat | Dog, {"kind": "cat", "lives": 9}, Cat(kind="cat", lives=9)),
        (Names, ["a"], Names(["a"])),
        (PageOf[Line], {"items": [{"name": "a", "price": 1}]}, PageOf[Line](items=[Line(name="a", price=1)])),
        (Square | Round, {"type": "Round", "outerRadius": 2}, Round(2)),
        (Box[Square], {"inner": {"type": "square", "side": 1}}, Box(Square(1))),
        (Pair, [1, 2], Pair(1, 2)),
        (Mixed, {"bill": BILL}, Mixed(THE_BILL)),
        (HoldsModel, {"bill": BILL, "place": ["a", 1]}, HoldsModel(THE_BILL, Place("a", 1))),
        (InDict, {"bill": BILL}, {"bill": THE_BILL}),
        (list[Checked], [{"x": "1"}], [Checked(1)]),
        (Place, ["a"], Place("a", 0)),
        (Address, {"street": "x"}, {"street": "x"}),
        (Size, "small", Size.SMALL),
        (Tree, {"name": "a", "kids": [{"name": "b", "kids": []}]}, Tree("a", [Tree("b")])),
        (Other | Another, {"z": 1}, Another(1)),
        (Strict, {"x": 1}, Strict(1)),
        (Annotated[int, Field(ge=1)], 1, 1),
        (Annotated[list[int], msgspec.Meta(min_length=1)], [1], [1]),
        (Literal["a", 1] | None, 1, 1),
        (dict[str, Decimal], {"a": "1.50"}, {"a": Decimal("1.50")}),
        (Decimal, 1.5, Decimal("1.5")),
        (dict[int, date], {"1": "2026-01-02"}, {1: date(2026, 1, 2)}),
        (datetime, "2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (time, "03:04:05", time(3, 4, 5)),
        (timedelta, "PT90S", timedelta(seconds=90)),
        (uuid.UUID, str(Id), Id),
        (tuple[int, str], [1, "a"], (1, "a")),
        (tuple[int, ...], [1, 2], (1, 2)),
        (set[int], [1, 1], {1}),
        (str | int | list[int], [1], [1]),
        (int, 2**70, 2**70),
        (bool, True, True),
        (Any, {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_is_read_into_its_type(annotation: Any, value: Any, expected: Any) -> None:
    portable_form(schema_of(annotation))

    read = decoder_of(annotation)(value)

    assert read == expected
    assert type(read) is type(expected)


@each(
    ("annotation", "value", "path", "words"),
    [
        (Bill, {"number": 1, "lines": [{"name": "a", "price": -1}]}, "$.lines[0].price", "greater than or equal to 0"),
        (Bill, {"number": 2, "lines": []}, "$.number", "is even"),
        (Bill, {"lines": 1}, "$.number", "Field required (also $.lines: "),
        (Cat | Dog, {"kind": "cat"}, "$.lives", "Field required"),
        (Mixed, {"bill": {**BILL, "number": 2}}, "$.bill.number", "is even"),
        (Round, {"type": "Round", "outerRadius": 1, "unit price": 2}, "$", "unknown field `unit price`"),
        (dict[int, int], {"a": 1}, "$", "Expected `int`, got `str`, as a key"),
        (list[dict[str, Tree]], [{"a": {"name": 1}}], "$[0].a.name", "Expected `str`, got `int`"),
        (dict[str, dict[str, int]], {"a": {"b": 1}, "c": {"d": 1, "e f": "x"}}, "$.c['e f']", "Expected `int`"),
        (dict[str, dict[str, Tree]], {"e f": {"g": {"name": 1}}}, "$['e f'].g.name", "Expected `str`"),
        (dict[str, list[Bill]], {"a": [], "b": [{**BILL, "number": 2}]}, "$.b[0].number", "is even"),
        (dict[str, Mixed], {"a": {"bill": {**BILL, "number": 2}}}, "$.a.bill.number", "is even"),
        (dict[str, Tree], {str(n): {"name": 1 if n == 500 else ""} for n in range(501)}, "$[...].name", "Expected"),
        (Plain, {"x": 0}, "$.x", "Expected `int` >= 1"),
        (Strict, {"x": 0}, "$.x", "greater than or equal to 1"),
    ],
)
def test_a_value_that_does_not_fit_is_a_mismatch_with_a_path(
    annotation: Any, value: Any, path: str, words: str
) -> None:
    with pytest.raises(ValueMismatchError) as raised:
        decoder_of(annotation)(value)

    assert raised.value.path == path
    assert words in raised.value.reason


class Odd:
    """A class without a schema."""


@dataclass
class HoldsOdd:
    name: str
    odd: list[Odd]


class ModelOfOdd(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    inner: dict[str, Odd]


class ModelOfChoice(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    either: int | Odd
    twin: set[Odd] = set()


class ModelOfStruct(BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    square: Square


class Untagged(msgspec.Struct):
    x: int


class Choice(msgspec.Struct):
    either: Untagged | Plain


class Foreign(msgspec.Struct):
    x: Annotated[int, annotated_types.Ge(1)]


class HoldsChecked(msgspec.Struct):
    inner: list[Checked]


@dataclass
class Lost:
    x: "Missing"  # type: ignore[name-defined] # noqa: F821, UP037


class LostModel(BaseModel):
    x: "Missing"  # type: ignore[name-defined] # noqa: F821, UP037


@each(
    ("annotation", "words"),
    [
        (Odd, "Odd has no JSON schema"),
        (HoldsOdd, "field odd[]: Odd has no JSON schema"),
        (ModelOfOdd, "field inner[]: Odd has no JSON schema"),
        (ModelOfStruct, "field square: Square"),
        (Callable[[], int], "has no JSON schema"),
        (ModelOfChoice, "field either: Odd has no JSON schema"),
        (Choice, "field either: "),
        (Choice, "give Structs a tag"),
        (Foreign, "write msgspec.Meta(…) instead"),
        (HoldsChecked, "inner[] (a pydantic dataclass): msgspec reads this type, because it holds the Struct"),
        (Lost, "class Lost names 'Missing', which Python cannot find"),
        (LostModel, "field x: its annotation names 'Missing', which Python cannot find"),
        ("Bill", "takes a type, not 'Bill': give a pydantic model"),
        (None, "takes a type, not None"),
        (5, "takes a type, not 5"),
        (THE_BILL, "takes a type, not an object of the type Bill: give"),
        (len, "not an object of the type builtin_function_or_method"),
        (test_a_value_is_read_into_its_type, "not an object of the type function"),
    ],
)
def test_a_type_without_a_schema_is_refused_by_name(annotation: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        schema_of(annotation)

    assert words in str(raised.value)
    assert raised.value.argument == "response_type"


def test_a_field_keeps_its_description() -> None:
    assert schema_of(Plain)["$defs"]["Plain"]["properties"]["x"]["description"] == "The x."


class Times(msgspec.Struct):
    when: datetime
    at: list[time | None]
    by_id: dict[int, tuple[datetime, str]]
    by_size: dict[Literal["a", "b"], Square | list[datetime] | Round | None] = {}
    place: Place | None = None
    utc: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


def test_a_schema_says_what_texts_look_like() -> None:
    schema = schema_of(Times)["$defs"]["Times"]["properties"]

    moment = {"type": "string", "format": "date-time"}
    assert schema["when"] == moment
    assert schema["at"]["items"]["anyOf"][0] == {"type": "string", "format": "time"}
    assert schema["by_id"]["propertyNames"] == {"pattern": "^-?[0-9]+$"}
    assert schema["by_id"]["additionalProperties"]["prefixItems"][0] == moment
    assert schema["by_size"]["propertyNames"] == {"enum": ["a", "b"]}
    assert schema["by_size"]["additionalProperties"]["anyOf"][0]["items"] == moment
    assert schema["utc"]["anyOf"][0] == moment


@each("annotation", [Place, PlaceModel])
def test_the_places_of_a_named_tuple_have_their_names(annotation: Any) -> None:
    words = str(portable_form(schema_of(annotation)).schema).lower()

    assert "'description': 'height" in words
    assert "'description': 'name" in words


def test_a_text_that_holds_json_is_written_as_the_value() -> None:
    form = portable_form(schema_of(Encoded))
    said = {"lines": [{"key": "a", "value": {"name": "b", "price": 1}}], "any": '{"x": 1}', "words": "c"}
    restored = form.restore(said)

    assert restored["lines"] == '{"a": {"name": "b", "price": 1}}'
    assert decoder_of(Encoded)(restored) == Encoded(lines=restored["lines"], any='{"x": 1}', words='"c"')
    assert form.restore({"lines": restored["lines"], "any": "1"}) == {"lines": restored["lines"], "any": "1"}
    assert "$ref" in str(form.schema["properties"]["lines"])


def test_types_that_need_no_pydantic_do_not_import_it() -> None:
    program = """
import sys, dataclasses, typing
from headrace.schemas.type_reading import schema_of
import msgspec

class Inner(msgspec.Struct):
    x: int

@dataclasses.dataclass
class Outer:
    inner: list[Inner] | None
    d: dict[str, typing.Any]

schema_of(Outer)
print(*sys.modules)
"""
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)

    assert not {"pydantic", "jsonschema", "jiter", "asyncio"} & {*seen.stdout.split()}


def test_without_pydantic_an_error_says_what_needs_it() -> None:
    program = """
import sys, dataclasses, typing
sys.modules["pydantic"] = None
import annotated_types
from headrace.errors import InvalidRequestError
from headrace.schemas.type_reading import decoder_of, schema_of

@dataclasses.dataclass
class Inner:
    x: int

@dataclasses.dataclass
class Strict:
    x: typing.Annotated[int, annotated_types.Ge(1)]

print(decoder_of(list[Inner])([{"x": 1}]))
for kind in (Strict, Inner | Strict, object):
    try:
        schema_of(kind)
    except InvalidRequestError as error:
        print(error)
"""
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True, timeout=60)

    read, strict, union, odd = seen.stdout.splitlines()
    assert read == "[Inner(x=1)]"
    assert "x (Ge): only pydantic reads this constraint; install pydantic" in strict
    assert "x (Ge): only pydantic reads" in union
    assert "object has no JSON schema" in odd
