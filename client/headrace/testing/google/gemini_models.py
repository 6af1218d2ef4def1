"""What each Gemini model refuses, with Google's error texts. Pure.

As of 2026-11, from the answers of the real API. A model that is not listed refuses nothing by its name.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.google.rules import GeminiRefusal, camel

_FROM_MINIMAL = "MINIMAL LOW MEDIUM HIGH"
_LEVELS = (
    (r"gemini-4-hydrogen", "LOW MEDIUM HIGH XHIGH"),
    (r"gemini-4-argon|gemini-3\.[78]-flash|gemini-3(\.1)?-pro(-preview)?", "LOW MEDIUM HIGH"),
    (r"gemini-3(\.[56])?-flash(-preview)?|gemini-3\.[15]-flash-lite(-preview)?", _FROM_MINIMAL),
)
"""Pattern of a model's name → the levels of thinking that it takes."""
_GOES_ON = re.compile(r"(?!gemini-4|gemini-3\.[6-9]|gemini-3\.5-flash-lite)")
"""Models that take a last turn of the model."""


def refusal_by(model: str, body: dict[str, Any]) -> GeminiRefusal | None:
    """Return why this model would refuse a body that the API takes; None if it would not."""
    config = camel(camel(body).get("generationConfig", {}), "generation_config")
    thinking = camel(config.get("thinkingConfig", {}), "thinking_config")
    levels = next((levels.split() for names, levels in _LEVELS if re.fullmatch(names, model)), None)
    if levels is not None and "thinkingBudget" in thinking:
        return GeminiRefusal("Thinking budget is not supported for this model. Use thinking level instead.")
    level = str(thinking.get("thinkingLevel", "HIGH")).upper()
    if levels is not None and level not in levels:
        return GeminiRefusal(f"Thinking level {level} is not supported for this model.")
    last = body["contents"][-1]
    if last.get("role") == "model" and not _GOES_ON.match(model):
        return GeminiRefusal("Requests ending with a model turn are not supported.")
    return None
