"""Checks of request bodies for all of OpenAI's simulated APIs, with the error texts of the real APIs. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Kind = type | tuple[type, ...]

_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
_FUNCTION_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class OpenAIRefusal(Exception):  # noqa: N818 - it is an answer of the API, not a fault of this program
    """The API refuses the request; the fields are those of the error response."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message, param, code, status)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


def first_refusal(check: Callable[[object], None], body: object) -> OpenAIRefusal | None:
    """Return why the real API would refuse this body, as ``check`` raises it; None if it would not."""
    try:
        check(body)
    except OpenAIRefusal as refusal:
        return refusal
    return None


def check_fields(body: dict[str, Any], required: Sequence[str], types: Mapping[str, tuple[str, Kind]]) -> None:
    """Refuse a body without a required field, and fields of another type than ``types`` says: field → (word, type)."""
    for name in required:
        if body.get(name) in (None, "", []):
            raise OpenAIRefusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    for name, value in body.items():
        if value is not None and name in types:
            check_type(name, value, *types[name])


def is_of_type(value: object, kind: Kind) -> bool:
    """Return whether a JSON value has a type. true and false are no numbers."""
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def check_type(where: str, value: object, word: str, kind: Kind) -> None:
    """Refuse a value of another type. ``word`` is the API's name of the right type."""
    if not is_of_type(value, kind):
        got = _word_for(value)
        raise OpenAIRefusal(
            f"Invalid type for '{where}': expected {word}, but got {got} instead.", where, "invalid_type"
        )


def check_choice(where: str, value: object, known: tuple[str, ...]) -> None:
    """Refuse a word that the API does not know. null is taken."""
    if value is not None and value not in known:
        supported = ", ".join(f"'{word}'" for word in known)
        raise OpenAIRefusal(f"Invalid value: '{value}'. Supported values are: {supported}.", where, "invalid_value")


def check_ranges(body: dict[str, Any], ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse numbers that are too small or too large."""
    for name, (low, high) in ranges.items():
        value = body.get(name)
        if value is not None and not low <= value <= high:
            side, bound, code = ("<=", high, "above_max_value") if value > high else (">=", low, "below_min_value")
            code = f"{'integer' if isinstance(value, int) else 'decimal'}_{code}"
            expected = f"Expected a value {side} {bound}, but got {value} instead."
            raise OpenAIRefusal(f"Invalid '{name}': {code.replace('_', ' ')}. {expected}", name, code)


def check_function_name(where: str, name: object) -> None:
    """Refuse an invalid name of a function."""
    check_type(where, name, "string", str)
    if not isinstance(name, str) or not _FUNCTION_NAME.fullmatch(name):
        message = f"Invalid '{where}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
        raise OpenAIRefusal(message, where, "invalid_value")


def check_object(where: str, value: object, *, known: set[str], required: str | None) -> dict[str, Any]:
    """Return an object. Refuse another type, a missing required field, and fields that the API does not know."""
    if value is None:
        raise OpenAIRefusal(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
    check_type(where, value, "object", dict)
    if not isinstance(value, dict) or (required is not None and required not in value):
        param = f"{where}.{required}"
        raise OpenAIRefusal(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")
    for name in value:
        if name not in known:
            raise OpenAIRefusal(f"Unknown parameter: '{where}.{name}'.", f"{where}.{name}", "unknown_parameter")
    return value


def check_metadata(metadata: object) -> None:
    """Refuse metadata that is too large, or has other values than texts."""
    if metadata is None:
        return
    check_type("metadata", metadata, "object", dict)
    pairs = metadata if isinstance(metadata, dict) else {}
    if len(pairs) > _MAX_PAIRS:
        message = f"Invalid 'metadata': too many properties. Expected an object with at most {_MAX_PAIRS} properties, but got an object with {len(pairs)} properties instead."
        raise OpenAIRefusal(message, "metadata", "object_above_max_properties")
    for key, value in pairs.items():
        check_type(f"metadata.{key}", value, "a string", str)
        if len(key) > _MAX_KEY or len(value) > _MAX_VALUE:
            long, limit = ("key", _MAX_KEY) if len(key) > _MAX_KEY else ("value", _MAX_VALUE)
            message = f"Invalid 'metadata': {long} too long. Expected a string with maximum length {limit}."
            raise OpenAIRefusal(message, f"metadata.{key}", "string_above_max_length")


def _word_for(value: object) -> str:
    if value is None:
        return "null"
    words = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    return words.get(type(value), "an object")
