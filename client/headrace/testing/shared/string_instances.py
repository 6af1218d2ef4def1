"""Makes a text that fits the format, the pattern and the length of a JSON schema, for the simulated model. Pure."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator
from typing import Any

from headrace.testing.shared.pattern_texts import texts_of_pattern

_WORDS = ["stone", "wheel", "river", "miller", "bridge", "meadow", "lantern", "harbour"]
_TEXTS_OF_FORMAT = {
    "date-time": "2026-11-{day:02}T12:30:00Z",
    "date": "2026-11-{day:02}",
    "time": "12:30:{day:02}Z",
    "duration": "P{day}DT2H",
    "email": "ada{day}@example.com",
    "idn-email": "ada{day}@example.com",
    "hostname": "host{day}.example.com",
    "ipv4": "192.0.2.{day}",
    "ipv6": "2001:db8::{day}",
    "uuid": "9b2fd1a5-3d4e-4c6f-8a7b-0000000000{day:02}",
    "uuid1": "9b2fd1a5-3d4e-1c6f-8a7b-0000000000{day:02}",
    "uuid3": "9b2fd1a5-3d4e-3c6f-8a7b-0000000000{day:02}",
    "uuid4": "9b2fd1a5-3d4e-4c6f-8a7b-0000000000{day:02}",
    "uuid5": "9b2fd1a5-3d4e-5c6f-8a7b-0000000000{day:02}",
    "uri": "https://example.com/{day}",
    "uri-reference": "/page/{day}",
    "iri": "https://example.com/{day}",
    "decimal": "{day}.25",
    "regex": "a{{{day}}}",
    "json-pointer": "/field{day}",
    "ipv4network": "192.0.2.0/24",
    "ipv6network": "2001:db8::/32",
    "ipv4interface": "192.0.2.{day}/24",
    "ipv6interface": "2001:db8::{day}/64",
    "ipvanyaddress": "192.0.2.{day}",
    "file-path": "/etc/hostname",
    "directory-path": "/",
    "path": "folder/file{day}",
    "json-string": '{{"number":{day}}}',
}
_DAYS = 28


def string_instance(schema: dict[str, Any], number: int) -> str | None:
    """Return a text that fits the schema; None if none was found. Another ``number`` gives another text."""
    for text in _candidates(schema, number):
        if _fits(schema, text):
            return text
    return None


def _candidates(schema: dict[str, Any], number: int) -> Iterator[str]:
    sample = _TEXTS_OF_FORMAT.get(str(schema.get("format")))
    if sample is not None:
        yield sample.format(day=1 + number % _DAYS)
    if "JSON text" in str(schema.get("description")):
        yield "null"
    least = int(schema.get("minLength", 0))
    if "pattern" in schema:
        yield from texts_of_pattern(str(schema["pattern"]), least, number)
    if schema.get("contentEncoding") in {"base64", "base64url"}:
        yield base64.b64encode(f"bytes {number}".encode()).decode()
    word = _WORDS[number % len(_WORDS)] + (str(number // len(_WORDS)) if number >= len(_WORDS) else "")
    most = schema.get("maxLength", math.inf)
    text = (word * (least // len(word) + 1))[: max(least, len(word))]
    yield text if len(text) <= most else text[-int(most) :] if most else ""
    yield str(number)


def _fits(schema: dict[str, Any], text: str) -> bool:
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", math.inf):
        return False
    try:
        return "pattern" not in schema or re.search(str(schema["pattern"]), text) is not None
    except re.error:  # a pattern of JavaScript that Python does not know
        return True
