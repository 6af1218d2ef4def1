"""Takes names of models apart: the family without its version, and patterns with a ``*``. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

_SUFFIX = re.compile(r"(-latest|[-@](20\d\d-?[01]\d-?[0-3]\d|\d{4}))$")
"""The end of a model's name that says which version it is: ``-2024-08-06``, ``-20241022``, ``@20240620``, ``-0613``."""


@lru_cache(maxsize=4096)
def model_family(model: str) -> str:
    """Return the name of a model without its version: providers limit all versions of one model together."""
    return _SUFFIX.sub("", model)


def fits(pattern: str, name: str) -> bool:
    """Return whether a name fits a pattern. A ``*`` stands for any characters, or none; all other characters for themselves."""
    first, *others = pattern.split("*")
    if not others:
        return name == pattern
    if not name.startswith(first):
        return False
    *middle, last = others
    at = len(first)
    for part in middle:
        if (found := name.find(part, at)) < 0:
            return False
        at = found + len(part)
    return len(name) - len(last) >= at and name.endswith(last)
