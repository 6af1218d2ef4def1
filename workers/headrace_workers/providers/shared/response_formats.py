"""Reads ``response_format``. Each form that callers use means the same on every wire format. Pure.

The forms are: a bare JSON schema; ``{"type": "json_schema", "json_schema": {"name", "schema", "strict"}}`` (OpenAI
Chat); ``{"type": "json_schema", "schema", "name", "strict"}`` (Anthropic, OpenAI Responses); ``{"type":
"json_object"}``; and ``{"type": "text"}``.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec

from headrace_workers.providers.shared.openai_schemas import is_strict
from headrace_workers.providers.shared.provider_errors import request_failure

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_DEFAULT_NAME = "response"
_FIELDS = {"name", "schema", "strict", "description"}
_SCHEMA_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_SCHEMA_WORD_NAMES = """
    $defs $ref additionalProperties allOf anyOf const definitions enum if items not oneOf prefixItems properties required
"""
_SCHEMA_WORDS = frozenset(_SCHEMA_WORD_NAMES.split())
_TAKES = "takes a JSON schema, or an object with type json_schema, json_object or text"


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form that an answer must have.

    ``strict`` is None if the caller did not set it. Only ``json_schema`` has a schema.
    """

    kind: Literal["json_schema", "json_object", "text"]
    schema: dict[str, Any] = {}
    name: str = _DEFAULT_NAME
    description: str | None = None
    strict: bool | None = None

    def for_openai(self) -> dict[str, Any]:
        """Return the fields for both of OpenAI's formats.

        ``strict`` is added where the schema follows the rules of strict mode.
        """
        fields: dict[str, Any] = {"name": self.name, "schema": self.schema}
        if self.description is not None:
            fields["description"] = self.description
        strict = self.strict if self.strict is not None else is_strict(self.schema) or None
        return fields if strict is None else fields | {"strict": strict}


def read_response_format(given: dict[str, Any]) -> ResponseFormat:
    """Read the caller's ``response_format``.

    Raises ProviderFailedError (``invalid_request``) if it has none of the forms.
    """
    where = "response_format"
    if given.keys() == {"format"} and isinstance(given["format"], dict):
        given, where = given["format"], f"{where}.format"  # as in Anthropic's output_config and in Responses' text
    kind = given.get("type")
    match kind:
        case "text":
            _refuse_unknown(where, given, {"type"})
            return ResponseFormat("text")
        case "json_object":
            _refuse_unknown(where, given, {"type", "schema"})
            if given.get("schema") is not None:  # as Together and llama.cpp take a schema
                return _schema(where, {"schema": given["schema"]})
            return ResponseFormat("json_object")
        case "json_schema":
            return _wrapped(where, given)
    if _looks_like_schema(given):
        return ResponseFormat("json_schema", given)
    if "type" in given and kind not in _SCHEMA_TYPES:
        raise request_failure(
            f"{_TAKES}, not {kind!r}; give a form that only one server knows in custom_options", f"{where}.type"
        )
    raise request_failure(f"{_TAKES}; it has no key of a JSON schema such as type or properties", where)


def _looks_like_schema(given: dict[str, Any]) -> bool:
    kind = given.get("type")
    is_type = all(
        isinstance(word, str) and word in _SCHEMA_TYPES for word in (kind if isinstance(kind, list) else [kind])
    )
    return is_type if "type" in given else not _SCHEMA_WORDS.isdisjoint(given)


def _wrapped(where: str, given: dict[str, Any]) -> ResponseFormat:
    inner = given.get("json_schema")
    if inner is None:
        _refuse_unknown(where, given, _FIELDS | {"type", "json_schema"})
        return _schema(where, given)
    _refuse_unknown(where, given, {"type", "json_schema"})
    if not isinstance(inner, dict):
        raise request_failure(f"takes an object with a schema, not {inner!r}", f"{where}.json_schema")
    _refuse_unknown(f"{where}.json_schema", inner, _FIELDS)
    return _schema(f"{where}.json_schema", inner)


def _schema(where: str, fields: dict[str, Any]) -> ResponseFormat:
    schema, strict, description = fields.get("schema"), fields.get("strict"), fields.get("description")
    name = fields.get("name")
    if not isinstance(schema, dict):
        raise request_failure("takes a JSON schema: a dict", f"{where}.schema")
    if name is not None and not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise request_failure(f"takes 1 to 64 letters, digits, _ and -, not {name!r}", f"{where}.name")
    if strict is not None and not isinstance(strict, bool):
        raise request_failure(f"takes true or false, not {strict!r}", f"{where}.strict")
    if description is not None and not isinstance(description, str):
        raise request_failure(f"takes a str, not {description!r}", f"{where}.description")
    return ResponseFormat("json_schema", schema, name or _DEFAULT_NAME, description, strict)


def _refuse_unknown(where: str, given: dict[str, Any], known: set[str]) -> None:
    for key, value in given.items():
        if key not in known and value is not None:
            raise request_failure(f"is an unknown key; known are {', '.join(sorted(known))}", f"{where}.{key}")
