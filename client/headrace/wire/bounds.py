"""How long, how many and how large what crosses a process boundary may be: more is no message. Pure.

A decoder refuses what is out of bounds before it makes it. Limits of credit are not here: their receiver clamps them.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

MAX_NAME = 1024
"""Characters of a name: of a provider, a model, a worker, a place. Who has a longer one to tell cuts it."""
MAX_REASON = 4096
"""Characters of a reason. Who has a longer one to tell cuts it."""
MAX_AVOIDED = 256
"""Workers that one run may avoid."""

Id = Annotated[str, Meta(max_length=64)]
"""An id of a run or a span: 19 characters, where it is ours."""
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Reason = Annotated[str, Meta(max_length=MAX_REASON)]
Secret = Annotated[str, Meta(max_length=64 * 1024)]
"""A key, or an address that may hold one."""
Word = Annotated[str, Meta(max_length=64)]
Words = Annotated[list[Word], Meta(max_length=64)]

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Small = Annotated[int, Meta(ge=0, le=2**31 - 1)]
"""An attempt, a process id, a minor version."""
Capacity = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Seconds = Annotated[float, Meta(ge=0.0, le=1e12)]
Epochs = Annotated[list[Count], Meta(max_length=MAX_AVOIDED)]
Counts = Annotated[dict[Word, Count], Meta(max_length=64)]
"""Numbers by reason."""


def cut(text: str, limit: int = MAX_REASON) -> str:
    """Return as much of ``text`` as may be told."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
