"""DictForm: the base of the public types that can be written as plain dicts, for JSON, and read from dicts again.

Pure. Writing needs nothing else. Reading checks a caller's dict, with the rules of ``messages=``; these rules stand
above this module, so the package ``headrace`` gives them, with :func:`read_with`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Protocol, Self, TypeVar

import msgspec

from headrace.text.foreign_attributes import knows_foreign_attributes

F = TypeVar("F", bound="DictForm")


class DictReader(Protocol):
    """Reads public types from dicts, and tells pydantic how."""

    def read(self, kind: type[F], given: object) -> F:
        """Return ``given`` as a ``kind``. Raises InvalidRequestError, which names the place of what is wrong."""

    def pydantic_schema(self, kind: type[DictForm]) -> Any:
        """Return pydantic's core schema for a field of the type ``kind``."""

    def json_schema(self, kind: type[DictForm]) -> dict[str, Any]:
        """Return the JSON schema of the dicts of ``kind``, in one piece."""


_loaders: list[Callable[[], DictReader]] = []


def read_with(load: Callable[[], DictReader]) -> None:
    """Name the function that imports the reader. It is called when the first dict is read."""
    _loaders[:] = [load]


@knows_foreign_attributes
class DictForm(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """A public type with a form as a plain dict. pydantic models can have fields of these types."""

    def to_dict(self) -> dict[str, Any]:
        """Return this value as a dict of plain values, which ``json.dumps`` can write.

        ``from_dict`` makes an equal value of it. Raises TypeError if a value inside has no form in JSON.
        """
        return _fields(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any] | Self) -> Self:
        """Return the value of a dict that ``to_dict`` has made. An instance is returned as it is.

        A message, a part or a tool may also have each other form that ``messages=`` or ``tools=`` takes.

        Raises InvalidRequestError if the dict does not fit; its ``argument`` names the place.
        """
        return _loaders[0]().read(cls, given)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:
        """Let a pydantic model have a field of this type: it takes an instance, or a dict as ``from_dict`` does."""
        return _loaders[0]().pydantic_schema(cls)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: object, _handler: object) -> dict[str, Any]:
        """Return the JSON schema of a field of this type."""
        return _loaders[0]().json_schema(cls)


def _fields(value: DictForm) -> dict[str, Any]:
    """Return the fields as a dict. Types that leave out defaults on the wire leave out None here, and nothing else."""
    config = value.__struct_config__
    fields: dict[str, Any] = {"type": config.tag} if config.tag is not None else {}
    for name in value.__struct_fields__:
        field = getattr(value, name)
        if field is not None or not config.omit_defaults:
            fields[name] = _plain(field, name)
    return fields


def _plain(value: Any, place: str) -> Any:
    """Return a value in the types of JSON. ``place`` is its path, for an error."""
    kind = type(value)
    if kind is str or kind is int or kind is float or kind is bool or value is None:
        return value
    if isinstance(value, DictForm):
        return _fields(value)
    if isinstance(value, Mapping):
        return {_plain(key, place): _plain(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]") for index, item in enumerate(value)]
    return _converted(value, place)


def _converted(value: Any, place: str) -> Any:
    """Return a value of another type in the types of JSON, such as the object that ``response_type`` made."""
    if isinstance(value, Enum):
        return _plain(value.value, place)
    if isinstance(value, str):  # a subclass, as below: numpy.str_, numpy.float64
        return str.__str__(value)
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=lambda inner: _unknown(inner, place))
    except TypeError as error:
        raise TypeError(f"{place}: {error}") from None


def _unknown(value: Any, place: str) -> Any:
    """Return a value that msgspec does not know: a pydantic model, or a number of numpy."""
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):
        return _plain(item(), place)
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
