"""ResponseType: what ``response_type=`` asks for. It has the schema for the worker, and reads answers into the type."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import msgspec

from headrace.schemas.answer_text import NOTHING, whole_value
from headrace.schemas.portable_form import PortableForm, portable_form
from headrace.schemas.type_reading import type_schema
from headrace.schemas.value_mismatch import ValueMismatchError

_ARGUMENT = "response_type"
_MAX_NAME = 64


class ResponseType(msgspec.Struct, frozen=True):
    """A type that an answer is read into."""

    name: str
    """The type's name, as providers take it: letters, digits, ``_`` and ``-``."""
    form: PortableForm
    decode: Callable[[Any], Any]

    @property
    def response_format(self) -> dict[str, Any]:
        """The schema in portable form, as a request has it."""
        inner: dict[str, Any] = {"name": self.name, "schema": self.form.schema, "strict": True}
        return {"type": "json_schema", "json_schema": inner}

    def read(self, text: str) -> Any:
        """Return the object of a whole answer.

        Raises ValueMismatchError if the answer is not JSON, or does not fit the type.
        """
        value = self.form.restore(whole_value(text))
        try:
            return self.decode(value)
        except ValueMismatchError as error:
            if error.path != "$":
                raise
            raise ValueMismatchError("$", f"the answer does not fit: {error.reason}") from error.__cause__
        except RecursionError:
            raise ValueMismatchError("$", "the answer is nested too deeply") from None
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # such as CancelledError, with which no future may end
            raise ValueMismatchError("$", f"a validator raised {type(error).__name__}: {error}") from error

    def restored(self, value: Any) -> Any:
        """Return the beginning of an answer, in the form of the type; NOTHING if nothing of the object is there yet."""
        if self.form.is_wrapped and value == {}:
            return NOTHING
        try:
            return self.form.restore_partial(value)
        except ValueMismatchError:
            return NOTHING


def response_type_of(given: object) -> ResponseType:
    """Return what ``response_type=`` asks for: a type, or a JSON schema as a dict of plain values.

    The last types and schemas are remembered.

    Raises InvalidRequestError if the type has no schema, or if the schema is wrong.
    """
    if isinstance(given, dict):
        return _of_schema(msgspec.json.encode(given))
    try:
        hash(given)
    except TypeError:
        return _of_type(given)
    return _remembered(given)


@functools.lru_cache(maxsize=64)
def _of_schema(encoded: bytes) -> ResponseType:
    from headrace.schemas.schema_values import check_schema, schema_decoder

    schema = msgspec.json.decode(encoded)
    check_schema(schema, _ARGUMENT)
    form = portable_form(schema, _ARGUMENT)
    return ResponseType(_name(schema.get("title")), form, schema_decoder(schema, _ARGUMENT))


def _of_type(annotation: object) -> ResponseType:
    found = type_schema(annotation, _ARGUMENT)
    name = getattr(annotation, "__name__", "") if isinstance(annotation, type) else ""
    return ResponseType(_name(name or found.schema.get("title")), portable_form(found.schema, _ARGUMENT), found.decode)


_remembered = functools.lru_cache(maxsize=256)(_of_type)


def _name(words: object) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", str(words or "")).strip("_")[:_MAX_NAME] or "response"
