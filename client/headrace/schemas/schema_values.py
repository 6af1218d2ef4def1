"""Checks values against a JSON schema that the caller gave as a dict. Imported only for such schemas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
from jsonschema.exceptions import best_match
from jsonschema.validators import validator_for

from headrace.errors import InvalidRequestError
from headrace.schemas.value_mismatch import ValueMismatchError, step

_MAX_WORDS = 300


def schema_decoder(schema: dict[str, Any], argument: str) -> Callable[[Any], Any]:
    """Return a function that returns a value that fits the schema, and else raises ValueMismatchError.

    Raises InvalidRequestError if the schema is not a JSON schema.
    """
    if schema.get("type") == "json_schema":
        raise InvalidRequestError("takes the bare JSON schema; OpenAI's form goes into response_format", argument)
    kind: Any = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
    except jsonschema.SchemaError as error:
        place = "".join(step(key) for key in error.absolute_path).lstrip(".")
        where = f"{argument}{'' if place.startswith('[') or not place else '.'}{place}"
        raise InvalidRequestError(f"is not a JSON schema: {error.message}", where) from error
    validator = kind(schema)

    def decode(value: Any) -> Any:
        fault = best_match(validator.iter_errors(value))
        if fault is None:
            return value
        path = "$" + "".join(step(key) for key in fault.absolute_path)
        words = fault.message  # it quotes the value, which may be long
        raise ValueMismatchError(path, words if len(words) <= _MAX_WORDS else words[: _MAX_WORDS - 1] + "…")

    return decode
