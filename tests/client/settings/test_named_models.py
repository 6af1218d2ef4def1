"""A model's name tells its provider, and patterns fit names."""

from __future__ import annotations

import pytest

from headrace.settings.named_models import named_model
from headrace.text.model_names import fits

PROVIDERS = ("openai", "anthropic", "groq")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt-4o", ("openai", "gpt-4o")),
        ("groq/meta-llama/llama-3.3-70b", ("groq", "meta-llama/llama-3.3-70b")),
        ("groq/", None),
        ("mine/large", None),
        ("gemini-2.5-pro", None),
    ],
)
def test_a_name_tells_its_provider_by_its_beginning(name: str, meant: tuple[str, str] | None) -> None:
    assert named_model(name, PROVIDERS) == meant


@pytest.mark.parametrize(
    ("pattern", "name", "is_fit"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o*", "gpt-4o", True),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("*/llama*", "meta-llama/llama-3.3-70b", True),
        ("a*b*c", "a-c-b", False),
        ("gpt.4*", "gpt-4", False),
        ("*a" * 400 + "b", "a" * 1000, False),
    ],
)
def test_a_star_stands_for_any_characters(pattern: str, name: str, is_fit: bool) -> None:
    assert fits(pattern, name) is is_fit
