"""TypeSchema: the JSON schema of a Python type, with the decoder that reads a value into the type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class TypeSchema(msgspec.Struct, frozen=True):
    """A type's JSON schema, and its decoder."""

    schema: dict[str, Any]
    """The schema, in the form that its library makes. Do not change it."""
    decode: Callable[[Any], Any]
    """Reads a JSON value (dict, list, str, int, float, bool or None) into the type.

    Raises ValueMismatchError.
    """
