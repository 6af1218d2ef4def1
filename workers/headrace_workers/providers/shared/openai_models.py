"""Facts about OpenAI's models, by their names: where they call tools, their levels of effort, what they refuse. Pure.

As of 2026-11. Each row names its sources:

* docs: developers.openai.com, the page of the model, or the guides "reasoning" and "using GPT-6"; 2026-07 to 2026-11.
* sdk: openai 3.57.0 for Python, descriptions of the arguments.
* live: answers of the API that others have published. Levels of effort: issues 944 (2026-01) and 1159 (2026-07) of
  enricoros/big-AGI, and pull request 2394 of tetsuo-ai/agenc-core (2026-09). What reasons by default: profiles/openai.py of
  pydantic/pydantic-ai (2026-08). Tools on Chat Completions: pull request 34569 of BerriAI/litellm (2026-07), issue 541 of
  openai/openai-openapi (2026-05), issue 15844 of danny-avila/LibreChat (2026-09). ``stop``: issues 1671 and 1893 of
  huggingface/smolagents (2025).
* map: model_prices_and_context_window.json of litellm 1.110.2 (2026-11).

A model that is not in the table is let through. So is what no source says of a model that is in the table.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

import msgspec

Reasons = Literal["never", "if asked", "by default", "always", "unknown"]
"""When a model reasons. ``if asked``: only with a ``reasoning_effort``. ``by default``: unless it is ``none``."""
ChatTools = Literal["yes", "without effort", "effort none", "no"]
"""When a model calls functions on Chat Completions. ``effort none``: only if ``reasoning_effort`` is given as ``none``."""

AS_OF = "2026-11"

_DATE = re.compile(r"-20\d\d-[01]\d-[0-3]\d$")
_REASONS_BY_NAME = re.compile(r"o\d|gpt-([5-9]|\d\d)")
# Only names of OpenAI's kind: a compatible server may have a gemini-2.5-pro, and no Responses API.
_RESPONSES_BY_NAME = re.compile(r"(gpt-\d|o\d)\S*-(pro|codex|deep-research)(-|$)|(codex|computer-use)-")

_UP_TO_HIGH = ("low", "medium", "high")
_UP_TO_XHIGH = (*_UP_TO_HIGH, "xhigh")
_UP_TO_MAX = (*_UP_TO_XHIGH, "max")


class OpenAIModel(msgspec.Struct, frozen=True, kw_only=True):
    """What one model takes. ``efforts``: its levels of effort; empty if it takes none, None if they are not known.

    ``on_chat``: whether Chat Completions has the model. ``stop`` and ``parallel``: whether it takes stop sequences, and
    parallel_tool_calls.
    """

    efforts: tuple[str, ...] | None = None
    reasons: Reasons = "unknown"
    on_chat: bool = True
    chat_tools: ChatTools = "yes"
    stop: bool = True
    parallel: bool = True

    def is_reasoning(self, effort: str | None) -> bool:
        """Return whether the model is known to reason with this effort; None: no effort is given."""
        if effort == "none":
            return False
        return self.reasons in {"always", "by default"} or (self.reasons == "if asked" and effort is not None)

    def calls_tools_on_chat(self, effort: str | None) -> bool:
        """Return whether the model calls functions on Chat Completions with this effort."""
        match self.chat_tools:
            case "yes":
                return True
            case "without effort":
                return effort in {None, "none"}
            case "effort none":
                return effort == "none"
            case "no":
                return False


_TABLE: tuple[tuple[str, OpenAIModel], ...] = (
    # The first pattern that matches the whole name counts. A date at the end of a name is taken off before.
    # GPT-6. Tools: docs ("calling tools requires the Responses API"; Luna: "only with reasoning_effort none"). Levels: docs, map.
    (r"gpt-6-astra(-law)?|gpt-6\.1-sol", OpenAIModel(efforts=_UP_TO_MAX, reasons="always", chat_tools="no")),
    (r"gpt-6\.1-terra", OpenAIModel(efforts=("none", *_UP_TO_MAX), reasons="by default", chat_tools="no")),
    (r"gpt-6-(sol|luna)", OpenAIModel(efforts=("none", *_UP_TO_MAX), reasons="by default", chat_tools="effort none")),
    # GPT-6.2 Astra takes no effort none: docs, by way of apidog.com (2026-11-18). Its tools on Chat Completions: no source.
    (r"gpt-6\.2-astra", OpenAIModel(efforts=_UP_TO_MAX, reasons="always")),
    # GPT-5.6. Tools and levels: live.
    (
        r"gpt-5\.6(-sol|-terra|-luna)?",
        OpenAIModel(efforts=("none", *_UP_TO_MAX), reasons="by default", chat_tools="effort none"),
    ),
    # GPT-5.2 to 5.5 pro. Only on Responses, and levels: docs, map.
    (
        r"gpt-5\.[245]-pro",
        OpenAIModel(efforts=("medium", "high", "xhigh"), reasons="always", on_chat=False),
    ),
    # GPT-5.4 and 5.5. Tools and levels: live. 5.5 reasons by default, 5.4 does not: live.
    (
        r"gpt-5\.5",
        OpenAIModel(efforts=("none", *_UP_TO_XHIGH), reasons="by default", chat_tools="without effort"),
    ),
    (
        r"gpt-5\.4(-mini|-nano)?",
        OpenAIModel(efforts=("none", *_UP_TO_XHIGH), reasons="if asked", chat_tools="without effort"),
    ),
    # Codex. Only on Responses: live, map. The sources differ on none, so it is let through where one of them has it.
    (r"gpt-5\.3-codex|gpt-5\.1-codex-max", OpenAIModel(efforts=("none", *_UP_TO_XHIGH), on_chat=False)),
    (r"gpt-5\.2-codex", OpenAIModel(efforts=_UP_TO_XHIGH, on_chat=False)),
    (r"gpt-5\.1-codex(-mini)?", OpenAIModel(efforts=("none", *_UP_TO_HIGH), on_chat=False)),
    (r"gpt-5-codex|codex-mini-latest", OpenAIModel(efforts=_UP_TO_HIGH, reasons="always", on_chat=False)),
    # The chat models of GPT-5.1 to 5.3 always reason at medium, that of GPT-5 never: live.
    (r"gpt-5\.[123]-chat(-latest)?", OpenAIModel(efforts=("medium",), reasons="always")),
    (r"gpt-5-chat(-latest)?", OpenAIModel(efforts=(), reasons="never")),
    # GPT-5.1 and 5.2 reason if asked, GPT-5 always. Levels and stop: live.
    (r"gpt-5\.2", OpenAIModel(efforts=("none", *_UP_TO_XHIGH), reasons="if asked", stop=False)),
    (r"gpt-5\.1", OpenAIModel(efforts=("none", *_UP_TO_HIGH), reasons="if asked", stop=False)),
    (r"gpt-5-pro", OpenAIModel(efforts=("high",), reasons="always", on_chat=False)),
    (r"gpt-5(-mini|-nano)?", OpenAIModel(efforts=("minimal", *_UP_TO_HIGH), reasons="always", stop=False)),
    # The o-series. Only on Responses: live, map. Levels: live. stop: sdk. parallel_tool_calls: map.
    (r"o[34](-mini)?-deep-research", OpenAIModel(efforts=("medium",), reasons="always", on_chat=False)),
    (r"o[13]-pro", OpenAIModel(efforts=_UP_TO_HIGH, reasons="always", on_chat=False)),
    (r"o3|o4-mini", OpenAIModel(efforts=_UP_TO_HIGH, reasons="always", stop=False, parallel=False)),
    (r"o1|o3-mini", OpenAIModel(efforts=_UP_TO_HIGH, reasons="always", parallel=False)),
    (r"computer-use-preview", OpenAIModel(efforts=("medium",), on_chat=False)),
    # GPT-4 and older do not reason: docs.
    (r"(gpt-4|gpt-3\.5|chatgpt-4o).*", OpenAIModel(efforts=(), reasons="never")),
)
_ROWS = tuple((re.compile(pattern), facts) for pattern, facts in _TABLE)


@lru_cache(maxsize=256)
def facts_of(model: str) -> OpenAIModel | None:
    """Return the facts about a model; None if it is not known. ``model`` may be a snapshot, or fine-tuned."""
    name = _plain(model)
    return next((facts for pattern, facts in _ROWS if pattern.fullmatch(name)), None)


@lru_cache(maxsize=256)
def is_likely_on_responses_only(model: str) -> bool:
    """Return whether the name of an unknown model is like those that only the Responses API has."""
    return facts_of(model) is None and _RESPONSES_BY_NAME.match(_plain(model)) is not None


def likely_reasons(model: str) -> bool:
    """Return whether an unknown model reasons, judged by its name."""
    return facts_of(model) is None and _REASONS_BY_NAME.match(_plain(model)) is not None


def _plain(model: str) -> str:
    name = model.lower()
    if name.startswith("ft:"):
        name = name.removeprefix("ft:").partition(":")[0]
    return _DATE.sub("", name)
