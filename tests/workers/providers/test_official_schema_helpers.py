"""The schemas of response_type lose nothing where the helpers of the official SDKs do. Each difference is listed.

The list is the table of ``docs/decisions/2026-11-29-schemas-of-response-types.md``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

from headrace.schemas.response_type import response_type_of
from headrace.schemas.type_reading import decoder_of, schema_of
from headrace.testing.shared.schema_instances import instance_of
from headrace_workers.providers.shared.schema_walk import parts_of_schema
from tests.answer_models import ANSWER_MODELS
from tests.cases import case
from tests.testing.sdks import Sdk
from tests.testing.test_simulated_schemas import refusals_of_anthropic, refusals_of_openai
from tests.workers.providers.test_fitted_schemas import FITS

JSON = dict[str, Any]
Read = Callable[[Any], Any]

PAGE = Path(__file__).parents[3] / "docs/decisions/2026-11-29-schemas-of-response-types.md"
RULES = """
    minLength maxLength pattern format minItems maxItems uniqueItems minimum maximum exclusiveMinimum exclusiveMaximum multipleOf
"""
openai_helper = Sdk("openai.lib._pydantic")
anthropic_helper = Sdk("anthropic")
google_helper = Sdk("google.genai._transformers")


def of_openai(kind: Any) -> JSON:
    is_model = isinstance(kind, type) and issubclass(kind, pydantic.BaseModel)
    found: JSON = openai_helper.to_strict_json_schema(kind if is_model else pydantic.TypeAdapter(kind))
    return found


def of_anthropic(kind: Any) -> JSON:
    found: JSON = anthropic_helper.transform_schema(kind)
    return found


def of_google(kind: Any) -> JSON:
    found = google_helper.t_schema(None, kind).model_dump(mode="json", by_alias=True, exclude_none=True)
    lower: JSON = as_json_schema(found)
    return lower


def as_json_schema(schema: Any) -> Any:
    """Return a schema of Google's own kind, with types in upper case and ``nullable``, as a JSON schema."""
    if isinstance(schema, list):
        return [as_json_schema(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {word: as_json_schema(value) for word, value in schema.items() if word != "nullable"}
    if isinstance(schema.get("type"), str):
        kind = schema["type"].lower()
        found["type"] = [kind, "null"] if schema.get("nullable") else kind
    return found


HELPERS: dict[str, Callable[[Any], JSON]] = {"openai": of_openai, "anthropic": of_anthropic, "google": of_google}
REFUSALS: dict[str, Callable[[JSON], list[str]]] = {
    "openai": refusals_of_openai,
    "anthropic": refusals_of_anthropic,
    "google": lambda _schema: [],
}
"""Of Google's own kind of schema, the simulated provider does not know what the API refuses."""


def rules_of(schema: JSON) -> Iterator[tuple[str, Any]]:
    """Yield what a schema says about values: descriptions, bounds, defaults, and the types of free keys."""
    for _, part in parts_of_schema(schema):
        for word in ("description", *RULES.split()):
            # The number of places of a tuple is said by the places themselves.
            if word in part and not ("prefixItems" in part and word in {"minItems", "maxItems"}):
                yield word, part[word]
        if part.get("default") is not None:
            yield "default", part["default"]
        if isinstance(part.get("additionalProperties"), dict):
            yield "free keys", part["additionalProperties"].get("type")


def losses(original: JSON, made: JSON) -> set[str]:
    """Return the rules of the original that the other schema says neither by a keyword nor in words."""
    parts = [part for _, part in parts_of_schema(made)]
    words = " ".join(str(part.get("description", "")) for part in parts)
    return {word for word, value in rules_of(original) if not is_said(word, value, parts, words)}


def is_said(word: str, value: Any, parts: list[JSON], words: str) -> bool:
    if word == "description":
        return " ".join(value.split()) in " ".join(words.split())
    if word == "free keys":
        has_entries = any(part.get("properties", {}).keys() == {"key", "value"} for part in parts)
        return has_entries or any(isinstance(part.get("additionalProperties"), dict) for part in parts)
    if any(part.get(word) == value for part in parts):
        return True
    if word == "uniqueItems":
        return "no item twice" in words.lower() or "uniqueItems" in words
    texts = {str(value), json.dumps(value), str(value).removesuffix(".0"), json.dumps(value, separators=(",", ":"))}
    return any(text in words for text in texts)


def verdict(kind: Any, make: Callable[[Any], JSON], refusals: Callable[[JSON], list[str]], read: Read) -> str:
    """Return what is wrong with a helper's schema of a type: raises, refused, loses, misread; "none" if nothing is."""
    try:
        schema = make(kind)
    except Exception:  # noqa: BLE001 - helpers raise anything
        return "raises"
    found = ["refused"] if refusals(schema) else []
    if lost := losses(schema_of(kind), schema):
        found.append(f"loses {' and '.join(sorted(lost))}")
    try:
        read(instance_of(schema))
    except ValueError:
        found.append("misread")
    return ", ".join(found) or "none"


def listed() -> dict[str, list[str]]:
    """Return the table of the page: type → verdicts about the three helpers."""
    rows = re.findall(r"^\| `(.+?)` \|(.+)\|$", PAGE.read_text(), re.MULTILINE)
    return {name.replace("\\|", "|"): [cell.strip() for cell in cells.split("|")] for name, cells in rows}


def test_each_difference_of_the_official_helpers_is_listed_and_each_listed_one_is_there() -> None:
    found = {
        name: [verdict(kind, make, REFUSALS[helper], decoder_of(kind)) for helper, make in HELPERS.items()]
        for name, kind in ANSWER_MODELS.items()
    }
    expected = listed()
    assert {name: cells for name, cells in found.items() if cells != expected.get(name)} == {}
    assert expected.keys() == found.keys()


@pytest.mark.parametrize("provider", FITS)
def test_headraces_own_schemas_have_none_of_these_faults(provider: str) -> None:
    for name, kind in ANSWER_MODELS.items():
        wanted = response_type_of(kind)

        def make(_kind: Any, schema: JSON = wanted.form.schema) -> JSON:
            return FITS[provider]([("response_type", schema)])[0]

        def read(value: Any, read_text: Read = wanted.read) -> Any:
            return read_text(json.dumps(value))

        with case(name):
            assert verdict(kind, make, REFUSALS[provider], read) == "none"
