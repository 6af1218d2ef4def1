"""Bounds of what crosses a process boundary: how long, how many, how large. Pure.

A decoder refuses a value beyond its bound before it makes the value. The limits of credit have no bound here: their
receiver clamps them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_NAME = 1024
"""Characters of a name of a provider, a model, a worker or a place. A sender cuts a longer name."""
MAX_REASON = 4096
"""Characters of a reason. A sender cuts a longer reason."""
MAX_WORD = 64
"""Characters of a word, such as an outcome."""
MAX_AVOIDED = 256
"""Workers that one run may avoid."""
MAX_COUNT = 2**63 - 1
MAX_SMALL = 2**31 - 1
MAX_SECONDS = 1e12

Id = Annotated[str, Meta(max_length=64)]
"""Id of a run or a span. Headrace's own have 19 characters."""
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
Secret = Annotated[str, Meta(max_length=64 * 1024)]
"""A key, or an address that may contain one."""
Word = Annotated[str, Meta(max_length=MAX_WORD)]
Words = Annotated[list[Word], Meta(max_length=64)]

Count = Annotated[int, Meta(ge=0, le=MAX_COUNT)]
Small = Annotated[int, Meta(ge=0, le=MAX_SMALL)]
"""An attempt, a process id, a minor version, an HTTP status."""
Capacity = Annotated[int, Meta(ge=-1, le=MAX_SMALL)]
Seconds = Annotated[float, Meta(ge=0.0, le=MAX_SECONDS)]
Epochs = Annotated[list[Count], Meta(max_length=MAX_AVOIDED)]
Counts = Annotated[dict[Word, Count], Meta(max_length=64)]
"""Numbers by reason."""


def cut(text: str, limit: int = MAX_REASON) -> str:
    """Return the text, cut to ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
