"""Forty types for structured output, of the kinds that people write. Tests send each of them to each provider."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import ipaddress
import uuid
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, TypeVar

import msgspec
import pydantic
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic reads the one of ``typing`` only from Python 3.12 on

T = TypeVar("T")


class Contact(BaseModel):
    """A person, with descriptions of the fields."""

    name: str = Field(description="The full name.")
    age: int
    is_member: bool


class Address(BaseModel):
    street: str
    city: str


class Company(BaseModel):
    """Nested, twice the same model with descriptions of its own."""

    name: str
    office: Address = Field(description="Where people work.")
    billing: Address = Field(description="Where bills go.")


class InvoiceLine(BaseModel):
    text: str
    amount: Annotated[int, Field(ge=1, le=100)]
    price: Annotated[float, Field(gt=0)]


class Bill(BaseModel):
    """A list of models, with bounds for its length."""

    number: Annotated[str, Field(pattern=r"^[A-Z]{2}-\d{4}$")]
    lines: Annotated[list[InvoiceLine], Field(min_length=1, max_length=3)]


class Profile(BaseModel):
    """Optional fields and defaults."""

    nick: str
    email: str | None = None
    age: int | None = Field(None, ge=0)
    language: str = "en"
    tags: list[str] = []
    score: float = 0.5


class RequiredButNull(BaseModel):
    """A field that must be there, and may be null."""

    found: str | None
    place: Address | None


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Paint(BaseModel):
    """Enums of texts and numbers, and one that is optional."""

    color: Color
    level: Level
    second: Color | None = None
    colors: list[Color]


class Choice(BaseModel):
    """Literals: of texts, of a number, mixed, and of one value."""

    kind: Literal["choice"]
    size: Literal["small", "large"]
    version: Literal[1]
    mixed: Literal["a", 2, True] | None


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    breed: str


class Owner(BaseModel):
    """A discriminated union, alone and in a list."""

    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    others: list[Annotated[Cat | Dog, Field(discriminator="kind")]] = []


class Mixed(BaseModel):
    """Unions of plain types, of models, and of a list."""

    value: int | str
    thing: Address | Contact
    one_or_more: str | list[str]


class TreeNode(BaseModel):
    """Refers to itself in a list."""

    name: str
    children: list[TreeNode] = []


class RequiredTree(BaseModel):
    """Refers to itself in a list that must be there."""

    name: str
    children: list[RequiredTree]


class Chain(BaseModel):
    """Refers to itself, or to nothing."""

    value: int
    next: Chain | None = None


class Folder(BaseModel):
    """Two models that refer to each other."""

    name: str
    files: list[File]


class File(BaseModel):
    name: str
    parent: Folder | None = None


class Sum(BaseModel):
    kind: Literal["sum"] = "sum"
    parts: list[Expression]


class Constant(BaseModel):
    kind: Literal["constant"] = "constant"
    value: float


Expression = Annotated[Sum | Constant, Field(discriminator="kind")]


class Formula(BaseModel):
    """A recursive union."""

    root: Expression


class Event(BaseModel):
    """Dates, times, and what else has a format."""

    at: datetime.datetime
    day: datetime.date
    opens: datetime.time
    lasts: datetime.timedelta
    id: uuid.UUID
    site: pydantic.AnyUrl
    address: ipaddress.IPv4Address


class Scores(BaseModel):
    """Dicts with free keys."""

    points: dict[str, int]
    people: dict[str, Contact] = {}
    nested: dict[str, dict[str, float]]


class Route(BaseModel):
    """Tuples, of fixed and of free length."""

    start: tuple[float, float]
    named: tuple[str, int, bool]
    stops: tuple[str, ...]
    legs: list[tuple[str, int]]


class Limits(BaseModel):
    """Numbers with bounds."""

    percent: Annotated[int, Field(ge=0, le=100)]
    ratio: Annotated[float, Field(gt=0, lt=1)]
    dozen: Annotated[int, Field(multiple_of=12, ge=12)]
    below: Annotated[int, Field(lt=0)]
    half: Annotated[float, Field(multiple_of=0.5, ge=1, le=3)]


class Texts(BaseModel):
    """Texts with bounds and patterns."""

    short: Annotated[str, Field(max_length=3)]
    long: Annotated[str, Field(min_length=30)]
    code: Annotated[str, Field(min_length=4, max_length=4, pattern=r"^[a-z]+$")]
    mail: Annotated[str, Field(pattern=r"^[\w.]+@[\w.]+\.\w{2,}$")]
    word: Annotated[str, Field(pattern=r"\bstop\b")]


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]
    total: int


class Renamed(BaseModel):
    """Aliases."""

    model_config = pydantic.ConfigDict(populate_by_name=True)
    user_name: str = Field(alias="userName")
    is_active: bool = Field(alias="isActive", default=True)


class Names(pydantic.RootModel[list[str]]):
    """A root that is a list."""


class Anything(BaseModel):
    """Values of any type."""

    value: Any
    data: dict[str, Any]
    items: list[Any]


class Unique(BaseModel):
    """Sets."""

    tags: set[str]
    numbers: Annotated[frozenset[int], Field(min_length=2)]


class Money(BaseModel):
    """Decimals and bytes."""

    amount: decimal.Decimal
    rounded: Annotated[decimal.Decimal, Field(ge=0, max_digits=6, decimal_places=2)]
    raw: bytes


class Level5(BaseModel):
    text: str
    numbers: list[list[int]]


class Level4(BaseModel):
    five: Level5


class Level3(BaseModel):
    four: Level4


class Level2(BaseModel):
    three: Level3


class Deep(BaseModel):
    """Eight levels of objects and lists."""

    two: list[Level2]


class Open(BaseModel):
    """Free keys beside named ones."""

    model_config = pydantic.ConfigDict(extra="allow")
    name: str


class Described(BaseModel):
    """Titles, examples, defaults and a docstring of several lines.

    The second paragraph.
    """

    model_config = pydantic.ConfigDict(title="A described model")
    city: str = Field("Rome", title="The city", description="Where.", examples=["Oslo"])
    place: Address = Field(default=Address(street="s", city="c"), description="The default place.")


class ManyOptional(BaseModel):
    """More optional fields than Anthropic takes."""

    a1: str | None = None
    a2: str | None = None
    a3: str | None = None
    a4: str | None = None
    a5: str | None = None
    a6: str | None = None
    a7: str | None = None
    a8: str | None = None
    a9: str | None = None
    b1: int | None = None
    b2: int | None = None
    b3: int | None = None
    b4: int | None = None
    b5: int | None = None
    b6: int | None = None
    b7: int | None = None
    b8: int | None = None
    b9: int | None = None
    c1: bool | None = None
    c2: bool | None = None
    c3: bool | None = None
    c4: bool | None = None
    c5: bool | None = None
    c6: bool | None = None
    c7: bool | None = None
    c8: bool | None = None
    c9: bool | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


@dataclasses.dataclass
class Line:
    """A dataclass in a dataclass."""

    start: Point
    end: Point
    label: str | None = None
    marks: list[Point] = dataclasses.field(default_factory=list)


class Sensor(msgspec.Struct):
    """A Struct with constraints."""

    id: Annotated[str, msgspec.Meta(min_length=2, max_length=8)]
    value: Annotated[float, msgspec.Meta(ge=-50, le=50)]
    unit: Literal["C", "F"] = "C"
    history: list[float] = []


class Circle(msgspec.Struct, tag=True):
    radius: float


class Square(msgspec.Struct, tag=True):
    side: float


class Drawing(msgspec.Struct):
    """A union of tagged Structs."""

    shapes: list[Circle | Square]
    main: Circle | Square | None = None


class Message(msgspec.Struct, rename="camel"):
    """A renamed Struct that refers to itself."""

    reply_to: Message | None
    sent_at: datetime.datetime
    size: Annotated[decimal.Decimal, msgspec.Meta(description="In euro.")]


class Movie(TypedDict):
    """A TypedDict with a key that need not be there."""

    title: str
    year: NotRequired[int]
    cast: list[str]


class Pair(NamedTuple):
    left: str
    right: int = 3


class Secret(BaseModel):
    """A nested model with an optional nested model, and a value that is checked by a function."""

    code: str
    inner: Choice | None = None

    @pydantic.field_validator("code")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("empty")
        return value


ANSWER_MODELS: dict[str, Any] = {
    kind.__name__: kind
    for kind in (
        Contact, Company, Bill, Profile, RequiredButNull, Paint, Choice, Owner, Mixed, TreeNode, RequiredTree, Chain,
        Folder, Formula, Event, Scores, Route, Limits, Texts, Renamed, Names, Anything, Unique, Money, Deep, Open,
        Described, ManyOptional, Line, Sensor, Drawing, Message, Movie, Pair, Secret,
    )
} | {
    "Page[Contact]": Page[Contact],
    "list[Point]": list[Point],
    "int": int,
    "Contact | None": Contact | None,
    "dict[str, Sensor]": dict[str, Sensor],
}  # fmt: skip
