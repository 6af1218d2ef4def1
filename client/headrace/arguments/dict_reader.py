"""Reads messages, parts, tools and results from dicts: ``from_dict``, and fields of pydantic models. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args

import msgspec

from headrace.arguments.conversation import read_message
from headrace.arguments.message_parts import read_part
from headrace.arguments.original_paths import OriginalPaths, original_path
from headrace.arguments.plain_values import named, shown
from headrace.arguments.tool_list import read_tool
from headrace.dict_form import DictForm
from headrace.errors import InvalidRequestError
from headrace.types import Message, Part, Tool

F = TypeVar("F", bound=DictForm)

_PARTS = get_args(Part)
_PLACE = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")

_Reader = Callable[[str, object, OriginalPaths], DictForm]


class CallersDicts:
    """A DictReader that takes messages, parts and tools in all forms that ``messages=`` and ``tools=`` take."""

    def read(self, kind: type[F], given: object) -> F:
        """Return ``given`` as a ``kind``. Raises InvalidRequestError, which names the place of what is wrong."""
        if isinstance(given, kind):
            return given
        place = _WORD.sub("_", kind.__name__).lower()
        if not isinstance(given, Mapping):
            raise InvalidRequestError(f"takes a dict, not {named(given)}", place)
        if (reader := _reader_of(kind)) is None:
            return _converted(kind, given, place)
        original_paths: OriginalPaths = {}
        tag = kind.__struct_config__.tag
        if kind in _PARTS and given.get("type") is None:
            given = {"type": tag, **given}
        try:
            value = reader(place, given, original_paths)
        except InvalidRequestError as error:
            path = None if error.argument is None else original_path(error.argument, original_paths)
            raise InvalidRequestError(error.reason, path) from None
        if not isinstance(value, kind):
            raise InvalidRequestError(f"takes {tag!r}, not {shown(given.get('type'))}", f"{place}.type")
        return value

    def pydantic_schema(self, kind: type[DictForm]) -> Any:
        """Return pydantic's core schema for a field of the type ``kind``."""
        from pydantic_core import core_schema

        def validated(given: object) -> DictForm:
            try:
                return self.read(kind, given)
            except InvalidRequestError as error:
                raise ValueError(str(error)) from None  # pydantic adds its own path to a ValueError

        writes = core_schema.plain_serializer_function_ser_schema(DictForm.to_dict)
        return core_schema.no_info_plain_validator_function(validated, serialization=writes)

    def json_schema(self, kind: type[DictForm]) -> dict[str, Any]:
        """Return the JSON schema of the dicts of ``kind``, in one piece."""
        _, components = msgspec.json.schema_components([kind], ref_template="{name}")
        schema: dict[str, Any] = _in_one_piece({"$ref": kind.__name__}, components)
        return schema


def _reader_of(kind: type[DictForm]) -> _Reader | None:
    if issubclass(kind, Message):
        return read_message
    if issubclass(kind, Tool):
        return read_tool
    return read_part if kind in _PARTS else None


def _converted(kind: type[F], given: Mapping[str, Any], place: str) -> F:
    """Return a type that no argument has, such as a result. It is read in its own form only."""
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        reason = str(error)
        found = _PLACE.search(reason)
        path = found["path"] if found is not None else ""
        reason = reason if found is None else reason[: found.start()]
        raise InvalidRequestError(reason[:1].lower() + reason[1:], f"{place}{path}") from None


def _in_one_piece(schema: Any, components: Mapping[str, Any]) -> Any:
    """Return a schema with each reference replaced by what it refers to. None of these types holds itself."""
    if isinstance(schema, list):
        return [_in_one_piece(item, components) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(name := schema.get("$ref"), str):
        return _in_one_piece(components[name], components)
    return {key: _in_one_piece(item, components) for key, item in schema.items() if key != "discriminator"}
