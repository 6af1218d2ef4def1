"""Reads the text of an answer as JSON: the whole text, or the beginning of a text that grows. Pure.

A server that ignores the schema often writes the JSON between the lines ``` ```json ``` and ``` ``` ```. One fence around
the whole text is taken off. Words before or after the JSON are not.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.schemas.value_mismatch import ValueMismatchError

_FENCE = "```"
_OPENING = re.compile(r"```[\w+-]*[ \t]*(\r?\n|$)")
_MAX_SHOWN = 60
NOTHING = object()
"""What :func:`partial_value` returns for a text without the beginning of a value."""


def whole_value(text: str) -> Any:
    """Return the JSON value of a whole answer. Raises ValueMismatchError if the text is not JSON."""
    bare = text.strip().removeprefix("\ufeff")
    if (opening := _OPENING.match(bare)) and bare.endswith(_FENCE) and opening.end() < len(bare):
        bare = bare[opening.end() : -len(_FENCE)].strip()
    if not bare:
        raise ValueMismatchError("$", "the answer has no text")
    try:
        return msgspec.json.decode(bare)
    except msgspec.DecodeError as error:
        raise ValueMismatchError("$", f"the answer is not JSON ({error}): {_shown(bare)}") from error
    except RecursionError:
        raise ValueMismatchError("$", "the answer is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueMismatchError("$", "the answer has half of a surrogate pair, which is no character") from None


def partial_value(text: str) -> Any:
    """Return the JSON value of the beginning of an answer, as far as it goes; NOTHING if it has no value yet."""
    import jiter

    bare = text.lstrip().removeprefix("\ufeff")
    if bare.startswith(_FENCE):
        opening = _OPENING.match(bare)
        bare = bare[opening.end() :].rstrip().rstrip("`") if opening else ""
    try:
        return jiter.from_json(bare.encode("utf-8", "replace"), partial_mode="trailing-strings")
    except ValueError:
        return NOTHING


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…")
