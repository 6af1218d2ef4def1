"""Facts about Claude models, by their names: sampling parameters, how thinking is asked for, tokens of output. Pure.

From Anthropic's model pages and migration guides, November 2026. An unknown Claude model is treated as the newest one.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Thinking = Literal["none", "budget", "adaptive"]

_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?!\d)")
_NEWEST = (99, 0)


class ModelFacts(msgspec.Struct, frozen=True):
    """What one model takes.

    ``sampling``: whether it takes temperature, top_p and top_k. ``max_tokens`` is the default for a request without a
    limit: the model's maximum, and at most 64,000. Some models count the limit against a context window of 200,000
    tokens and refuse a request that could exceed it; for these models the default leaves room for the prompt.
    ``schemas``: whether it takes a JSON schema for its answer.
    """

    sampling: bool
    thinking: Thinking
    max_tokens: int
    schemas: bool = True


# From the newest to the oldest version. A model has the facts of the first version that is not newer than its own.
_CLAUDE: tuple[tuple[tuple[int, int], ModelFacts], ...] = (
    ((4, 7), ModelFacts(sampling=False, thinking="adaptive", max_tokens=64_000)),
    ((4, 6), ModelFacts(sampling=True, thinking="adaptive", max_tokens=64_000)),
    ((4, 5), ModelFacts(sampling=True, thinking="budget", max_tokens=64_000)),
    ((3, 7), ModelFacts(sampling=True, thinking="budget", max_tokens=32_000, schemas=False)),
    ((3, 5), ModelFacts(sampling=True, thinking="none", max_tokens=8_192, schemas=False)),
    ((0, 0), ModelFacts(sampling=True, thinking="none", max_tokens=4_096, schemas=False)),
)

# Other vendors' models behind the same API.
_OTHER = ModelFacts(sampling=True, thinking="budget", max_tokens=8_192)


def facts_of(model: str) -> ModelFacts:
    """Return the facts about a model. ``model`` may have a date, or the prefix of a cloud."""
    name = model.lower()
    if "claude" not in name:
        return _OTHER
    found = _VERSION.search(name)
    version = (int(found[1]), int(found[2] or 0)) if found else _NEWEST
    return next(facts for since, facts in _CLAUDE if version >= since)
