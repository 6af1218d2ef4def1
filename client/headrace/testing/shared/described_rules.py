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
        # As the helper of Anthropic's SDK writes them: {maximum: 5, pattern: ^a+$}
        ("minLength", r"[{ ]minLength: (\d+)[,}]"),
        ("maxLength", r"[{ ]maxLength: (\d+)[,}]"),
        ("minItems", r"[{ ]minItems: (\d+)[,}]"),
        ("maxItems", r"[{ ]maxItems: (\d+)[,}]"),
        ("minimum", rf"[{{ ]minimum: {_NUMBER}[,}}]"),
        ("maximum", rf"[{{ ]maximum: {_NUMBER}[,}}]"),
        ("exclusiveMinimum", rf"[{{ ]exclusiveMinimum: {_NUMBER}[,}}]"),
        ("exclusiveMaximum", rf"[{{ ]exclusiveMaximum: {_NUMBER}[,}}]"),
        ("multipleOf", rf"[{{ ]multipleOf: {_NUMBER}[,}}]"),
        ("enum", r"\bone of (\[.*?\])(?=[;.)]|$)"),
        ("const", r"\balways ([^;)]+?)(?=[;.)]|$)"),
    )
)
_TEXT_RULES = (
    ("pattern", re.compile(r"[{ ]pattern: (.+)\}$")),
    ("format", re.compile(r"[{ ]format: ([\w-]+)[,}]")),
)
_TRUE_RULES = (
    ("uniqueItems", re.compile(r"\bno item twice\b|[{ ]uniqueItems: True\b", re.IGNORECASE)),
    ("hasUniqueKeys", re.compile(r"\beach with a key of its own\b", re.IGNORECASE)),
)


def with_described_rules(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the rules that its description says in words. Its own keywords count first."""
    description = schema.get("description")
    if not isinstance(description, str) or not description:
        return schema
    said: dict[str, Any] = {word: True for word, pattern in _TRUE_RULES if pattern.search(description)}
    said |= {word: found[1] for word, pattern in _TEXT_RULES if (found := pattern.search(description)) is not None}
    for word, pattern in _RULES:
        if (found := pattern.search(description)) is not None and word not in said:
            try:
                said[word] = msgspec.json.decode(found[1])
            except msgspec.DecodeError:
                continue
    rest = {word: value for word, value in said.items() if word not in schema or word.startswith(("min", "max"))}
    return merged_schemas(schema, rest) if rest else schema
