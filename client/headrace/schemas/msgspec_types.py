"""Reads types with msgspec. Pydantic models in their fields are given to pydantic."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.schemas.annotation_parts import is_pydantic
from headrace.schemas.mismatch_keys import with_keys
from headrace.schemas.msgspec_completion import complete
from headrace.schemas.type_schema import TypeSchema
from headrace.schemas.value_mismatch import ValueMismatchError

_REFERENCE = "#/$defs/{name}"
_PLACE = re.compile(r" - at (?P<key>`key` in )?`(?P<path>[^`]*)`$")


def read_with_msgspec(annotation: Any) -> TypeSchema:
    """Return the schema and the decoder of a type.

    Raises any exception if msgspec cannot read the type.
    """
    (schema,), definitions = msgspec.json.schema_components(
        [annotation], schema_hook=_schema_of_model, ref_template=_REFERENCE
    )
    complete(annotation, schema, definitions)
    if definitions:
        schema = {**schema, "$defs": definitions}
    schema = _with_inner_definitions(schema)
    return TypeSchema(schema, _decoder(annotation))


def _schema_of_model(annotation: Any) -> dict[str, Any]:
    if not is_pydantic(annotation):
        raise NotImplementedError
    from headrace.schemas.pydantic_types import read_with_pydantic

    return read_with_pydantic(annotation).schema


def _with_inner_definitions(schema: dict[str, Any]) -> dict[str, Any]:
    """Move the definitions of pydantic models, which stand inside the schema, to the schema's own definitions."""
    found: dict[str, Any] = {}

    def moved(part: Any, names: dict[str, str]) -> Any:
        if isinstance(part, list):
            return [moved(item, names) for item in part]
        if not isinstance(part, dict):
            return part
        inner = part.get("$defs")
        if isinstance(inner, dict):
            names = {name: _new_name(name, definition, origins) for name, definition in inner.items()}
            for name, definition in inner.items():
                if names[name] not in found:
                    found[names[name]] = moved(definition, names)
        kept = {key: moved(value, names) for key, value in part.items() if key != "$defs"}
        target = kept.get("$ref")
        if isinstance(target, str) and (name := target.removeprefix("#/$defs/")) in names:
            kept["$ref"] = f"#/$defs/{names[name]}"
        return kept

    own = schema.get("$defs", {})
    origins: dict[str, Any] = dict(own)
    definitions = {name: moved(definition, {}) for name, definition in own.items()}
    root = moved({key: value for key, value in schema.items() if key != "$defs"}, {})
    definitions |= found
    return {**root, "$defs": definitions} if definitions else root


def _new_name(name: str, definition: Any, origins: dict[str, Any]) -> str:
    """Return a name for a definition: its own, unless another definition has it. ``origins``: what the names stand for."""
    wanted, number = name, 1
    while origins.get(name, definition) != definition:
        number += 1
        name = f"{wanted}_{number}"
    origins[name] = definition
    return name


def _decoder(annotation: Any) -> Callable[[Any], Any]:
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(annotation, dec_hook=_model_of)

    def attempt(value: Any) -> Any:
        try:
            return decoder.decode(json.dumps(value))
        except msgspec.ValidationError as error:
            raise _mismatch(error) from error

    def decode(value: Any) -> Any:
        try:
            return attempt(value)
        except ValueMismatchError as mismatch:
            path = with_keys(mismatch, value, attempt)
            raise ValueMismatchError(path, mismatch.reason) from mismatch.__cause__

    return decode


def _model_of(annotation: type, value: Any) -> Any:
    if not is_pydantic(annotation):
        raise NotImplementedError
    from headrace.schemas.pydantic_types import read_with_pydantic

    return read_with_pydantic(annotation).decode(value)


def _mismatch(error: msgspec.ValidationError) -> ValueMismatchError:
    text = str(error)
    place = _PLACE.search(text)
    path = place["path"] if place else "$"
    inner = error.__cause__
    if isinstance(inner, ValueMismatchError):
        return ValueMismatchError(path + inner.path.removeprefix("$"), inner.reason)
    reason = text[: place.start()] if place else text
    return ValueMismatchError(path, f"{reason}, as a key" if place and place["key"] else reason)
