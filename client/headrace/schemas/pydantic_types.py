"""Reads types with pydantic. Imported only for types that need it."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaWarningKind

from headrace.schemas.type_schema import TypeSchema
from headrace.schemas.value_mismatch import ValueMismatchError, step

_MAX_FURTHER = 5
"""Further faults that an error names."""


class _StrictSchema(GenerateJsonSchema):
    """Refuses a union with a type that has no schema: pydantic would leave that type out, with a warning.

    It does not warn of a default that JSON cannot hold: the default stays the model's.
    """

    def emit_warning(self, kind: JsonSchemaWarningKind, detail: str) -> None:
        if kind == "skipped-choice":
            raise PydanticInvalidForJsonSchema(detail)


@functools.lru_cache(maxsize=256)
def read_with_pydantic(annotation: Any) -> TypeSchema:
    """Return the schema and the decoder of a type.

    Raises any exception if pydantic cannot read the type.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(annotation)
    schema = adapter.json_schema(mode="validation", schema_generator=_StrictSchema)

    def decode(value: Any) -> Any:
        try:
            return adapter.validate_json(json.dumps(value))
        except ValidationError as error:
            raise _mismatch(error, value) from error

    return TypeSchema(schema, decode)


def _mismatch(error: ValidationError, value: Any) -> ValueMismatchError:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    first, *further = [(_path(fault["loc"], fault["type"], value), fault["msg"]) for fault in faults]
    reason = first[1]
    if further:
        named = "; ".join(f"{path}: {words}" for path, words in further[:_MAX_FURTHER])
        left = len(further) - _MAX_FURTHER
        reason += f" (also {named}{f'; and {left} more' if left > 0 else ''})"
    return ValueMismatchError(first[0], reason)


def _path(location: Sequence[Any], kind: str, value: Any) -> str:
    """Return the path of a fault.

    pydantic's location also names the branches of unions, which are no keys of the value: they are left out.
    """
    path = "$"
    for index, key in enumerate(location):
        if (isinstance(value, dict) and key in value) or (
            isinstance(value, list) and isinstance(key, int) and key < len(value)
        ):
            value = value[key]
        elif not (kind == "missing" and index == len(location) - 1):
            continue
        path += step(key)
    return path
