"""Reads rules out of the description of a JSON schema, as a model does: "at least 3 characters". Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.testing.shared.merged_schemas import merged_schemas

_NUMBER = r"(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"
_RULES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (word, re.compile(pattern, re.IGNORECASE))
    for word, pattern in (
        ("minLength", r"\bat least (\d+) characters?\b"),
        ("maxLength", r"\bat most (\d+) characters?\b"),
        ("minItems", r"\bat least (\d+) items?\b"),
        ("maxItems", r"\bat most (\d+) items?\b"),
        ("minProperties", r"\bat least (\d+) properties\b"),
        ("minimum", rf"\bat least {_NUMBER}(?! (?:character|item|propert))(?=[;.)\s]|$)"),
        ("maximum", rf"\bat most {_NUMBER}(?! (?:character|item|propert))(?=[;.)\s]|$)"),
        ("exclusiveMinimum", rf"\bmore than {_NUMBER}"),
        ("exclusiveMaximum", rf"\bless than {_NUMBER}"),
        ("multipleOf", rf"\ba multiple of {_NUMBER}"),
        ("pattern", r'\bmatches the regular expression ("(?:[^"\\]|\\.)*")'),
        ("format", r'\bin the format ("(?:[^"\\]|\\.)*")'),
        ("contentEncoding", r'\bencoded as ("(?:[^"\\]|\\.)*")'),
        ("enum", r"\bone of (\[.*?\])(?=[;.)]|$)"),
        ("const", r"\balways ([^;)]+?)(?=[;.)]|$)"),
    )
)
_TRUE_RULES = (
    ("uniqueItems", re.compile(r"\bno item twice\b", re.IGNORECASE)),
    ("hasUniqueKeys", re.compile(r"\beach with a key of its own\b", re.IGNORECASE)),
)


def with_described_rules(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the rules that its description says in words. Its own keywords count first."""
    description = schema.get("description")
    if not isinstance(description, str) or not description:
        return schema
    said: dict[str, Any] = {word: True for word, pattern in _TRUE_RULES if pattern.search(description)}
    for word, pattern in _RULES:
        if (found := pattern.search(description)) is not None:
            try:
                said[word] = msgspec.json.decode(found[1])
            except msgspec.DecodeError:
                continue
    rest = {word: value for word, value in said.items() if word not in schema or word.startswith(("min", "max"))}
    return merged_schemas(schema, rest) if rest else schema
