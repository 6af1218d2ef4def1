"""Facts about Claude models, by their names: sampling, thinking, levels of effort, forced tools, tokens of output. Pure.

As of 2026-11, from platform.claude.com: the migration guides and "what's new" of Fable 5, Opus 5, Opus 5.5, Sonnet 5.5 and
Haiku 5.5 (2026-06 to 2026-10), and the page "effort" (2026-10). Forced tools on Fable 5 and Mythos: profiles/anthropic.py of
pydantic/pydantic-ai (2026-08).

A Claude model that is not known is asked as the newest one, and nothing is refused in its name.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

Thinking = Literal["none", "budget", "adaptive"]
ThinkingOff = Literal["disabled", "between_tools", "never"]
"""How thinking is turned off. ``between_tools`` leaves short notes between calls of tools."""

AS_OF = "2026-11"

_NAME = re.compile(r"claude-(?:(?P<family>[a-z]+)-)?(?:(?P<major>\d{1,2})(?:[-.](?P<minor>\d{1,2}))?(?!\d)|preview)")
_NEWEST = (99, 0)

_BEFORE_XHIGH = ("low", "medium", "high", "max")


class ModelFacts(msgspec.Struct, frozen=True):
    """What one model takes.

    ``sampling``: whether it takes temperature, top_p and top_k. ``max_tokens`` is the default for a request without a
    limit: the model's maximum, and at most 64,000. Some models count the limit against a context window of 200,000
    tokens and refuse a request that could exceed it; for these models the default leaves room for the prompt.
    ``schemas``: whether it takes a JSON schema for its answer. ``efforts``: its levels of effort, None if all are taken.
    ``prefill``: whether the last message may be the assistant's. ``forced_tools``: whether a tool choice may force a call.
    """

    sampling: bool
    thinking: Thinking
    max_tokens: int
    schemas: bool = True
    efforts: tuple[str, ...] | None = None
    off: ThinkingOff = "disabled"
    prefill: bool = True
    forced_tools: bool = True


_UNKNOWN = ModelFacts(sampling=True, thinking="adaptive", max_tokens=64_000)
_SINCE_4_7 = ModelFacts(sampling=False, thinking="adaptive", max_tokens=64_000, prefill=False)

# From the newest to the oldest version. A model has the facts of the first version that is not newer than its own.
_CLAUDE: tuple[tuple[tuple[int, int], ModelFacts], ...] = (
    ((5, 6), _UNKNOWN),
    ((4, 7), _SINCE_4_7),
    (
        (4, 6),
        ModelFacts(sampling=True, thinking="adaptive", max_tokens=64_000, efforts=_BEFORE_XHIGH, prefill=False),
    ),
    ((4, 5), ModelFacts(sampling=True, thinking="budget", max_tokens=64_000)),
    ((3, 7), ModelFacts(sampling=True, thinking="budget", max_tokens=32_000, schemas=False)),
    ((3, 5), ModelFacts(sampling=True, thinking="none", max_tokens=8_192, schemas=False)),
    ((0, 0), ModelFacts(sampling=True, thinking="none", max_tokens=4_096, schemas=False)),
)

# Models whose family differs from others of their version.
_ALWAYS_THINKS = msgspec.structs.replace(_SINCE_4_7, off="never", forced_tools=False)
_SPECIAL: dict[tuple[str | None, tuple[int, int]], ModelFacts] = {
    ("fable", (5, 0)): _ALWAYS_THINKS,
    ("fable", (5, 1)): _ALWAYS_THINKS,
    ("mythos", (5, 0)): _ALWAYS_THINKS,
    ("mythos", (5, 1)): _ALWAYS_THINKS,
    ("mythos", _NEWEST): msgspec.structs.replace(_SINCE_4_7, forced_tools=False),  # claude-mythos-preview
    ("opus", (5, 5)): _ALWAYS_THINKS,
    ("sonnet", (5, 5)): msgspec.structs.replace(_SINCE_4_7, off="between_tools", forced_tools=False),
}

# Other vendors' models behind the same API.
_OTHER = ModelFacts(sampling=True, thinking="budget", max_tokens=8_192)


def facts_of(model: str) -> ModelFacts:
    """Return the facts about a model. ``model`` may have a date, or the prefix of a cloud."""
    name = model.lower()
    if "claude" not in name:
        return _OTHER
    found = _NAME.search(name)
    family = found["family"] if found else None
    version = (int(found["major"]), int(found["minor"] or 0)) if found and found["major"] else _NEWEST
    special = _SPECIAL.get((family, version))
    return special or next(facts for since, facts in _CLAUDE if version >= since)
