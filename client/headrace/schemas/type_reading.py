"""The JSON schema of a Python type, and the decoder that reads a JSON value into the type.

msgspec reads plain types, Structs, dataclasses, TypedDicts, NamedTuples and enums. pydantic reads what is or holds a
pydantic model; it is imported only then, or where msgspec cannot read the type and pydantic is installed.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from types import NoneType
from typing import Any, ForwardRef

from headrace.errors import InvalidRequestError
from headrace.schemas.annotation_parts import Traits, is_annotation, is_pydantic, owner_of, parts_of, traits_of, unknown
from headrace.schemas.type_schema import TypeSchema

_ADVICE = (
    "give a pydantic model, msgspec Struct, dataclass, TypedDict, NamedTuple, enum, "
    "or a type that JSON can hold, such as list[str]"
)


_NOISE = ("Generating JSON schema for custom", "- specifying", "- annotating")
"""Beginnings of lines with which msgspec names its hooks: users cannot set them here."""

_QUOTES = "'\""

Reader = Callable[[Any], TypeSchema]


def schema_of(annotation: object, argument: str = "response_type") -> dict[str, Any]:
    """Return the JSON schema of a type. Do not change it.

    ``argument``: the name of the argument that the type is from, for errors.

    Raises InvalidRequestError if the type has no schema. The error names the field.
    """
    return type_schema(annotation, argument).schema


def decoder_of(annotation: object, argument: str = "response_type") -> Callable[[Any], Any]:
    """Return the function that reads a JSON value into the type. It raises ValueMismatchError.

    Raises InvalidRequestError if the type has no schema.
    """
    return type_schema(annotation, argument).decode


def type_schema(annotation: object, argument: str = "response_type") -> TypeSchema:
    """Return the schema and the decoder of a type. The last 256 types are remembered."""
    try:
        hash(annotation)
    except TypeError:
        return _made(annotation, argument)
    return _remembered(annotation, argument)


@functools.lru_cache(maxsize=256)
def _remembered(annotation: object, argument: str) -> TypeSchema:
    return _made(annotation, argument)


def _made(annotation: object, argument: str) -> TypeSchema:
    if not is_annotation(annotation):
        is_plain = isinstance(annotation, (str, int, NoneType))
        given = repr(annotation) if is_plain else f"an object of the type {type(annotation).__name__}"
        raise InvalidRequestError(f"takes a type, not {given}: {_ADVICE}", argument)
    traits = traits_of(annotation, argument)
    readers = _readers(traits)
    if not readers:
        raise InvalidRequestError(_mixture(traits), argument)
    problem = ""
    for reader in readers:
        found = _tried(reader, annotation)
        if isinstance(found, TypeSchema):
            return found
        problem = problem or found
    place, part, readers = _culprit(annotation, readers, argument)
    raise InvalidRequestError(_no_schema(place, part, problem if not place else _problem(readers, part)), argument)


def _readers(traits: Traits) -> list[Reader]:
    """Return the libraries that can read a type without the loss of a constraint, the best one first."""
    found: list[Reader] = [] if traits.foreign else [_with_msgspec]
    if not traits.struct and not traits.meta and _has_pydantic():
        found.insert(0 if traits.pydantic else len(found), _with_pydantic)
    return found


def _with_msgspec(annotation: Any) -> TypeSchema:
    from headrace.schemas.msgspec_types import read_with_msgspec

    return read_with_msgspec(annotation)


def _with_pydantic(annotation: Any) -> TypeSchema:
    from headrace.schemas.pydantic_types import read_with_pydantic

    return read_with_pydantic(annotation)


@functools.cache
def _has_pydantic() -> bool:
    return importlib.util.find_spec("pydantic") is not None


def _mixture(traits: Traits) -> str:
    """Say why no library can read the type."""
    if traits.struct or traits.meta:
        holder = f"the Struct {traits.struct}" if traits.struct else f"msgspec.Meta at {traits.meta}"
        return (
            f"{traits.foreign}: msgspec reads this type, because it holds {holder}, and it would ignore this; "
            "write msgspec.Meta(…) instead, such as Annotated[int, msgspec.Meta(ge=0)], or a pydantic model"
        )
    return f"{traits.foreign}: only pydantic reads this constraint; install pydantic, or write msgspec.Meta(…)"


def _tried(reader: Reader, annotation: object) -> TypeSchema | str:
    """Return what the library makes of the type, or its words if it cannot read it."""
    try:
        return reader(annotation)
    except InvalidRequestError:
        raise
    except Exception as error:  # noqa: BLE001 - hooks of users' classes raise anything
        return _first_line(error)


def _problem(readers: list[Reader], part: object) -> str:
    found = _tried(readers[0], part)
    return found if isinstance(found, str) else ""


def _culprit(annotation: object, readers: list[Reader], argument: str) -> tuple[str, object, list[Reader]]:
    """Return the innermost part of a type that has no schema: its path, the part, and its readers."""
    place, part = "", annotation
    seen: list[object] = []
    while part not in seen:
        seen.append(part)
        if is_pydantic(owner_of(part)):
            readers = [_with_pydantic]  # it reads all fields of its models
        for step, inner in parts_of(part, argument):
            if inner not in seen and all(isinstance(_tried(reader, inner), str) for reader in readers):
                place, part = place + step, inner
                break
    return place.lstrip("."), part, readers


def _no_schema(place: str, part: object, problem: str) -> str:
    where = f"field {place}: " if place else ""
    if isinstance(part, ForwardRef):
        return f"{where}its annotation names {unknown(part.__forward_arg__.strip(_QUOTES))}"
    detail = f" ({problem})" if problem else ""
    if "union" in problem.lower():
        detail += "; give Structs a tag (class A(msgspec.Struct, tag=True)), or use pydantic models"
    return f"{where}{_shown(part)} has no JSON schema{detail}; {_ADVICE}"


def _shown(annotation: object) -> str:
    return annotation.__qualname__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).strip().splitlines() if line and not line.startswith(_NOISE)]
    return lines[0].rstrip(" :") if lines else type(error).__name__
