"""What Gemini models refuse, before anything is sent; the simulated provider refuses the same."""

from __future__ import annotations

from itertools import product
from typing import Any

from headrace.testing.google.gemini_models import refusal_by
from headrace.testing.google.rules import refusal_of as refused_by_google
from headrace.types import Message, ToolCallPart
from headrace_workers.providers.google.api import API
from headrace_workers.providers.google.models import facts_of
from headrace_workers.providers.shared.wire_format import ProviderSettings
from tests.cases import each
from tests.workers.providers.model_requests import HI, body_sent, refusal_of

SETTINGS = ProviderSettings(name="google", api="google", base_url="https://generativelanguage.googleapis.com")
SAID = Message("assistant", "Once upon a time")
NAMES = """
    gemini-4-hydrogen gemini-4-argon gemini-3.8-flash gemini-3.7-flash gemini-3.6-flash gemini-3.5-flash
    gemini-3.5-flash-lite gemini-3.1-pro-preview gemini-3.1-flash-lite gemini-3-pro-preview gemini-3-flash-preview
    gemini-2.5-pro gemini-2.5-flash gemini-2.5-flash-lite gemini-2.0-flash
"""
MODELS = NAMES.split()
LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def sent(model: str, *messages: Message, **fields: Any) -> dict[str, Any]:
    return body_sent(API, SETTINGS, model, *messages, **fields)


def refusal(model: str, *messages: Message, **fields: Any) -> tuple[str, str] | None:
    return refusal_of(lambda: sent(model, *messages, **fields))


@each(
    ("model", "levels"),
    [
        ("gemini-4-hydrogen", "low medium high xhigh"),
        ("gemini-4-argon", "low medium high"),
        ("gemini-3.8-flash", "low medium high"),
        ("models/gemini-3.7-flash-001", "low medium high"),
        ("gemini-3.6-flash", "minimal low medium high"),
        ("gemini-3.5-flash-lite-preview-09-2026", "minimal low medium high"),
        ("gemini-3.1-pro-preview-customtools", "low medium high"),
        ("gemini-3-pro", "low medium high"),
        ("gemini-3-flash-preview", "minimal low medium high"),
        ("gemini-2.5-pro", "minimal low medium high"),
        ("gemini-2.5-flash", "none minimal low medium high"),
        ("gemini-2.0-flash", ""),
        ("gemma-3-27b-it", ""),
        ("gemma-4-31b-it", "minimal low medium high xhigh"),
        ("gemini-3-pro-image-preview", "minimal low medium high xhigh"),
        ("gemini-5-neon", "minimal low medium high xhigh"),
    ],
)
def test_a_level_of_effort_that_the_model_lacks_is_refused_by_name(model: str, levels: str) -> None:
    assert [level for level in LEVELS if refusal(model, reasoning_effort=level) is None] == levels.split()


def test_the_refusal_of_a_level_names_the_levels_and_the_way_around_if_there_is_one() -> None:
    option = "{'generationConfig': {'thinkingConfig': {'thinkingLevel': 'MINIMAL'}}}"
    assert refusal("gemini-3.8-flash", reasoning_effort="minimal") == (
        "reasoning_effort",
        "gemini-3.8-flash takes low, medium, high, not minimal "
        f"(as of 2026-11; custom_options={option} is sent unchecked)",
    )
    assert refusal("gemini-3.8-flash", reasoning_effort="none") == (
        "reasoning_effort",
        "gemini-3.8-flash takes low, medium, high, not none",
    )
    level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}}
    assert sent("gemini-3.8-flash", custom_options=level)["generationConfig"] == level["generationConfig"]


@each(
    ("model", "is_refused"),
    [
        ("gemini-4-argon", True),
        ("gemini-3.8-flash", True),
        ("gemini-3.6-flash", True),
        ("gemini-3.5-flash-lite", True),
        ("gemini-3.5-flash", False),
        ("gemini-3.1-pro-preview", False),
        ("gemini-2.5-flash", False),
        ("gemini-5-neon", False),
    ],
)
def test_a_last_message_of_the_assistant_is_refused_by_models_that_do_not_go_on(
    model: str, *, is_refused: bool
) -> None:
    said = refusal(model, HI, SAID)

    assert (said is not None) == is_refused
    assert said is None or (said[0], "sent unchecked" in said[1]) == ("messages[1]", True)
    assert refusal(model, HI, Message("assistant", [ToolCallPart("c1", "look", {})])) is None
    assert refusal(model, HI, SAID, HI) is None


def test_sampling_is_sent_to_all_models_because_newer_ones_ignore_it() -> None:
    assert sent("gemini-3.8-flash", temperature=0.3)["generationConfig"] == {"temperature": 0.3}
    assert facts_of("gemini-flash-latest") is None


def test_the_simulated_provider_takes_what_headrace_sends_and_refuses_what_it_refuses() -> None:
    for model, effort, messages in product(MODELS, (None, *LEVELS), ([HI], [HI, SAID])):
        if refusal(model, *messages, reasoning_effort=effort) is None:
            body = sent(model, *messages, reasoning_effort=effort)
            assert refused_by_google(body, model) is None
            assert refusal_by(model, body) is None, (model, effort)
    for model in MODELS:
        if refusal(model, HI, SAID) is not None:
            body = sent("m", HI, SAID)
            assert refusal_by(model, body) is not None, model
        said = refusal(model, reasoning_effort="minimal")
        if said is not None and "unchecked" in said[1]:
            level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}}
            assert refusal_by(model, sent(model, custom_options=level)) is not None, model
