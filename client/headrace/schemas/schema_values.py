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


def check_schema(schema: dict[str, Any], argument: str) -> None:
    """Raise InvalidRequestError if a schema is not a JSON schema. The error names the place."""
    if schema.get("type") == "json_schema":
        raise InvalidRequestError("takes the bare JSON schema; OpenAI's form goes into response_format", argument)
    kind = _validator(schema)
    try:
        kind.check_schema(schema, format_checker=kind.FORMAT_CHECKER)
    except jsonschema.SchemaError as error:
        place = "".join(step(key) for key in error.absolute_path).lstrip(".")
        where = f"{argument}{'' if place.startswith('[') or not place else '.'}{place}"
        raise InvalidRequestError(f"is not a JSON schema: {error.message}", where) from error


def schema_decoder(schema: dict[str, Any], argument: str) -> Callable[[Any], Any]:
    """Return a function that returns a value that fits the schema, and else raises ValueMismatchError.

    Raises InvalidRequestError if checking a value would never end.
    """
    validator = _validator(schema)(schema)
    _check_end(validator, argument)

    def decode(value: Any) -> Any:
        fault = best_match(validator.iter_errors(value))
        if fault is None:
            return value
        path = "$" + "".join(step(key) for key in fault.absolute_path)
        words = fault.message  # it quotes the value, which may be long
        raise ValueMismatchError(path, words if len(words) <= _MAX_WORDS else words[: _MAX_WORDS - 1] + "…")

    return decode


def _validator(schema: dict[str, Any]) -> Any:
    return validator_for(schema, default=jsonschema.Draft202012Validator)


def _check_end(validator: Any, argument: str) -> None:
    """Raise InvalidRequestError if checking a value would never end, or cannot be done."""
    values: tuple[Any, ...] = (None, {}, [])
    for value in values:
        try:
            validator.is_valid(value)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a library of jsonschema's ends in a panic if the stack is full
            words = "refers to itself without end" if _is_endless(error) else f"cannot be checked: {error}"
            raise InvalidRequestError(f"the schema {words}", argument) from None


def _is_endless(error: BaseException) -> bool:
    return isinstance(error, RecursionError) or not isinstance(error, Exception)
