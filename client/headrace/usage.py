"""Usage: the tokens of a run. Other modules import it from ``headrace.types``."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.dict_form import DictForm
from headrace.text.foreign_attributes import knows_foreign_attributes

UsageSource = Literal["provider", "partial", "estimated", "none"]


@knows_foreign_attributes
class Usage(DictForm, frozen=True, omit_defaults=True, gc=False):
    """Tokens of a run."""

    input_tokens: int = 0
    """Tokens of the prompt, cached ones included."""
    output_tokens: int = 0
    """Tokens of the answer, reasoning included."""
    total_tokens: int = 0
    """Tokens of the prompt and of the answer together."""
    cached_input_tokens: int = 0
    """Tokens of the prompt that the provider read from its cache."""
    cache_write_tokens: int = 0
    """Tokens of the prompt that the provider wrote to its cache."""
    reasoning_tokens: int = 0
    """Tokens of the reasoning."""
    source: UsageSource = "none"
    """How far to trust the figures.

    ``provider``: the provider's final figures. ``partial``: its last figures of a run that did not end. ``estimated``:
    counted by Headrace, one token for four characters. ``none``: nothing is known, and all figures are 0.
    """
    server_tool_requests: dict[str, int] = msgspec.field(default_factory=dict)
    """How often the provider ran its own tools, in its own words, such as ``{"web_search_requests": 2}``."""
