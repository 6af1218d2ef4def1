"""Facts about Gemini models, by their names: levels of thinking, and whether they go on from a message of the model. Pure.

As of 2026-11. Levels: the developer's guides to 3.5, 3.7 and 3.8 Flash at docs.cloud.google.com (2026-07 to 2026-10), for
Gemini 4 also model_prices_and_context_window.json of litellm 1.110.2. A last turn of the model: Google's "what's new in
Gemini 3.6" (3.6 Flash, 3.5 Flash-Lite "and all future releases"), and answers of the API in pull request 323 of
LibreChat-AI/agents (2026-07) and issue 47034 of anomalyco/opencode (2026-09). A model that is not in the table is let through.

Not refused: temperature, topP and topK on 3.6 and later, which Google ignores.
"""

from __future__ import annotations

import re

import msgspec

AS_OF = "2026-11"

BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576}
"""Level of effort → tokens, for models that take a budget. As Google's OpenAI-compatible endpoint has them."""
LEVELS = ("minimal", "low", "medium", "high", "xhigh")
"""The levels that later models may take. ``none`` has no place in their requests."""

_TO_HIGH = ("low", "medium", "high")
_FROM_MINIMAL = ("minimal", *_TO_HIGH)


class GeminiModel(msgspec.Struct, frozen=True):
    """What one model takes. ``efforts``: its levels of effort, none if it does not think.

    ``has_budget``: whether a level becomes a budget of tokens. ``prefill``: whether the last turn may be the model's own.
    """

    efforts: tuple[str, ...]
    has_budget: bool = False
    prefill: bool = True


_ROWS: tuple[tuple[re.Pattern[str], GeminiModel], ...] = tuple(
    (re.compile(rf"(models/)?({names})(-preview|-latest|-customtools|-\d[\d-]*)*"), facts)
    for names, facts in (
        (r"gemini-4-hydrogen", GeminiModel((*_TO_HIGH, "xhigh"), prefill=False)),
        (r"gemini-4-argon|gemini-3\.[78]-flash", GeminiModel(_TO_HIGH, prefill=False)),
        (r"gemini-3\.6-flash|gemini-3\.5-flash-lite", GeminiModel(_FROM_MINIMAL, prefill=False)),
        (r"gemini-3(\.5)?-flash|gemini-3\.1-flash-lite", GeminiModel(_FROM_MINIMAL)),
        (r"gemini-3(\.1)?-pro", GeminiModel(_TO_HIGH)),
        (r"gemini-2\.5-pro.*", GeminiModel(_FROM_MINIMAL, has_budget=True)),
        (r"gemini-2\.5.*", GeminiModel(tuple(BUDGETS), has_budget=True)),
        (r"gemini-(1|2\.0).*|gemma-[1-3].*", GeminiModel(())),
    )
)


def facts_of(model: str) -> GeminiModel | None:
    """Return the facts about a model; None if it is not known."""
    name = model.lower()
    return next((facts for pattern, facts in _ROWS if pattern.fullmatch(name)), None)
