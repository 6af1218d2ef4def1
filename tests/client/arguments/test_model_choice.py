"""What is promised of retries and fallbacks: where they come from, and which fallbacks are refused."""

from __future__ import annotations

import pytest

from headrace.arguments.model_choice import ModelDefaults, default_fallbacks, fallback_models
from headrace.errors import InvalidRequestError
from headrace.settings.limit_settings import ModelConfig
from tests.cases import each

PROVIDERS = ("openai", "anthropic", "groq")
FIRST = ("openai", "gpt-4o")


def table(*fallbacks: str, **facts: int) -> ModelConfig:
    return ModelConfig(fallbacks=list(fallbacks), **facts)  # type: ignore[arg-type]


def test_fallbacks_are_named_like_models() -> None:
    assert fallback_models(FIRST, ["claude-x", "groq/llama", "gpt-4o-mini"], PROVIDERS) == [
        ("anthropic", "claude-x"),
        ("groq", "llama"),
        ("openai", "gpt-4o-mini"),
    ]


@each(
    ("named", "argument", "words"),
    [
        (["gpt-4o"], "fallbacks[0]", "the model itself"),
        (["claude-x", "openai/gpt-4o"], "fallbacks[1]", "the model itself"),
        (["claude-x", "anthropic/claude-x"], "fallbacks[1]", "named twice"),
        (["claude-x", "llama"], "fallbacks[1]", "cannot tell the provider"),
        (["nobody/llama"], "fallbacks[0]", "there is no provider"),
        ([""], "fallbacks[0]", "takes the name of a model"),
        ([f"gpt-{number}" for number in range(17)], "fallbacks", "at most 16"),
    ],
)
def test_a_fallback_that_cannot_be_used_is_named(named: list[str], argument: str, words: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        fallback_models(FIRST, named, PROVIDERS)

    assert caught.value.argument == argument
    assert words in caught.value.reason


def test_the_table_with_a_models_name_goes_before_patterns_and_a_longer_pattern_before_a_shorter_one() -> None:
    tables = {
        "openai/gpt-4o": table(max_retries=1),
        "openai/gpt-*": table(max_retries=2),
        "openai/gpt-4o*": table(max_retries=3),
        "anthropic/*": table(max_retries=4),
    }
    defaults = ModelDefaults(tables)
    found = {
        name: defaults.of(provider, name).max_retries
        for provider, name in [
            ("openai", "gpt-4o"),
            ("openai", "gpt-4o-2024-08-06"),
            ("openai", "gpt-4o-mini"),
            ("openai", "gpt-5"),
            ("anthropic", "claude-x"),
            ("groq", "llama"),
        ]
    }

    assert found == {
        "gpt-4o": 1,
        "gpt-4o-2024-08-06": 1,
        "gpt-4o-mini": 3,
        "gpt-5": 2,
        "claude-x": 4,
        "llama": None,
    }


def test_a_table_with_a_pattern_never_makes_a_model_its_own_fallback() -> None:
    tables = {"openai/*": table("gpt-4o-mini", "claude-x")}

    assert default_fallbacks(("openai", "gpt-4o-mini"), tables["openai/*"], PROVIDERS) == [("anthropic", "claude-x")]
    assert default_fallbacks(FIRST, tables["openai/*"], PROVIDERS)[0] == ("openai", "gpt-4o-mini")
