"""Functions to offer as tools, one for each way to write a function. Annotations are types here, not texts."""

import dataclasses
import datetime
import enum
import functools
import math
import uuid
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Optional, TypedDict, TypeVar

import msgspec
import pydantic

import headrace

T = TypeVar("T")
UserId = NewType("UserId", int)


class Unit(enum.Enum):
    CELSIUS = "celsius"
    FAHRENHEIT = "fahrenheit"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(pydantic.BaseModel):
    city: str
    country: str = pydantic.Field("NO", description="ISO code")


class Box(pydantic.BaseModel, Generic[T]):
    inside: T


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Node(msgspec.Struct):
    name: str
    children: "list[Node]" = []


@dataclasses.dataclass
class Order:
    item: str
    count: int = 1


class Filters(TypedDict):
    status: str
    limit: NotRequired[int]


class Pair(NamedTuple):
    first: int
    second: str


def google_style(location: str, unit: Unit = Unit.CELSIUS) -> str:
    """Get the weather.

    Only for today.

    Args:
        location: The city,
            with its country.
        unit (Unit): The unit of the answer.

    Returns:
        The weather in words.
    """
    return f"{location} {unit}"


def numpy_style(location: str, days: int = 3) -> str:
    """Get the weather.

    Parameters
    ----------
    location : str
        The city.
    days : int, optional
        How many days.

    Returns
    -------
    str
        The weather in words.
    """
    return f"{location} {days}"


def rest_style(location: str, days: int) -> str:
    """Get the weather.

    :param location: The city.
    :param int days: How many days.
    :returns: The weather in words.
    """
    return f"{location} {days}"


def no_docstring(a: int, b: float) -> float:
    return a + b


def no_parameters() -> str:
    """Say what time it is."""
    return "noon"


def annotated_text(city: Annotated[str, "The city."], days: Annotated[int, "How many days."] = 1) -> str:
    """Get the weather.

    Args:
        city: The annotation wins over these words.
    """
    return f"{city} {days}"


def annotated_meta(days: Annotated[int, msgspec.Meta(ge=1, le=7, description="How many days.")]) -> int:
    return days


def annotated_field(days: Annotated[int, pydantic.Field(ge=1, le=7, description="How many days.")]) -> int:
    return days


def field_as_default(days: int = pydantic.Field(3, ge=1, description="How many days.")) -> int:
    return days


def field_without_default(days: int = pydantic.Field(description="How many days.")) -> int:
    return days


def field_with_factory(names: list[str] = pydantic.Field(default_factory=lambda: ["a"])) -> list[str]:  # noqa: B008
    return names


def pydantic_argument(place: Place) -> Place:
    return place


def generic_pydantic(box: Box[int]) -> Box[int]:
    return box


def struct_argument(point: Annotated[Point, "Where."]) -> Point:
    return point


def recursive_struct(root: Node) -> str:
    return root.name


def dataclass_argument(order: Order) -> Order:
    return order


def typed_dict_argument(filters: Filters) -> Filters:
    return filters


def tuple_argument(pair: Pair) -> Pair:
    return pair


def mixed_libraries(place: Place, point: Point, order: Order) -> str:
    return f"{place.city} {point.x} {order.item}"


def old_optional(city: Optional[str] = None) -> str | None:  # noqa: UP045 - as older programs have it
    return city


def union(key: int | str) -> int | str:
    return key


def literal(mode: Literal["fast", "slow"] = "fast") -> str:
    return mode


def int_enum(level: Level) -> Level:
    return level


def nested_lists(rows: list[dict[str, list[int]]]) -> int:
    return len(rows)


def anything(value: Any) -> Any:
    return value


def dates(day: datetime.date, at: datetime.datetime | None = None) -> str:
    return f"{day} {at}"


def numbers_and_ids(price: Decimal, key: uuid.UUID) -> str:
    return f"{price} {key}"


def new_type(user: UserId) -> int:
    return user


def positional_only(a: int, b: int = 2, /, c: int = 3) -> tuple[int, int, int]:
    return a, b, c


def keyword_only(*, a: int, b: int = 2) -> int:
    return a + b


def a_sequence(names: Sequence[str]) -> int:
    return len(names)


async def asynchronous(city: str) -> str:
    """Get the weather, later."""
    return city


def _with_key(key: str, city: str, days: int = 1) -> str:
    """Get the weather."""
    return f"{key} {city} {days}"


partial_by_position = functools.partial(_with_key, "secret")
partial_by_name = functools.partial(_with_key, key="secret", days=2)


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@logged
def wrapped(city: str) -> str:
    """Get the weather."""
    return city


@headrace.tool(name="renamed-tool", description="Another description.", timeout=5)
def renamed(city: str) -> str:
    """Get the weather."""
    return city


@headrace.tool
def decorated(city: str) -> str:
    """Get the weather."""
    return city


class Shop:
    """A shop."""

    def __init__(self, name: str) -> None:
        self.name = name

    def price(self, item: str) -> str:
        """Look up a price.

        Args:
            item: What to buy.
        """
        return f"{self.name}: {item}"

    @classmethod
    def opened(cls, name: str) -> str:
        """Open a shop."""
        return f"{cls.__name__} {name}"

    @staticmethod
    def tax(amount: float) -> float:
        """Compute the tax."""
        return amount / 4

    @headrace.tool(name="sell")
    def sell_item(self, item: str) -> str:
        """Sell."""
        return f"{self.name} sells {item}"

    def __call__(self, question: str) -> str:
        """Answer a question."""
        return question


shop = Shop("Corner")
square_root = headrace.tool(name="square_root")(math.sqrt)
named_method = headrace.tool(name="look_up_price")(shop.price)
