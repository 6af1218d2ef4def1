"""Finds where the JSON body of a request differs from a recorded one. Pure."""

from __future__ import annotations

import json
from typing import Any

_MAX_SHOWN = 60
_MISSING = object()


def first_difference(recorded: Any, asked: Any, place: str = "body") -> str | None:
    """Return words on the first difference, with its path, such as ``body.messages[1].content``; None if there is none."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        for key in [*recorded, *(key for key in asked if key not in recorded)]:
            found = first_difference(recorded.get(key, _MISSING), asked.get(key, _MISSING), f"{place}.{key}")
            if found is not None:
                return found
        return None
    if isinstance(recorded, list) and isinstance(asked, list):
        for index in range(max(len(recorded), len(asked))):
            found = first_difference(_item(recorded, index), _item(asked, index), f"{place}[{index}]")
            if found is not None:
                return found
        return None
    if recorded == asked and isinstance(recorded, bool) == isinstance(asked, bool):
        return None
    return f"{place} is {_shown(asked)}, recorded was {_shown(recorded)}"


def likeness(recorded: Any, asked: Any) -> int:
    """Return how many values of two bodies are equal, to find the recording that was meant."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        return sum(likeness(value, asked[key]) for key, value in recorded.items() if key in asked)
    if isinstance(recorded, list) and isinstance(asked, list):
        return sum(map(likeness, recorded, asked))
    return int(recorded == asked)


def _item(values: list[Any], index: int) -> Any:
    return values[index] if index < len(values) else _MISSING


def _shown(value: Any) -> str:
    if value is _MISSING:
        return "missing"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"
