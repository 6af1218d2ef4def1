"""Finds the provider and the model that a name such as ``groq/llama-3.3-70b`` or ``gpt-4o`` means. Pure."""

from __future__ import annotations

from collections.abc import Collection

from headrace.settings.provider_table import MODEL_PREFIXES


def named_model(name: str, providers: Collection[str]) -> tuple[str, str] | None:
    """Return the provider, one of ``providers``, and the model that a name means; None if it does not tell the provider."""
    head, slash, rest = name.partition("/")
    if slash and rest and head in providers:
        return head, rest
    for prefix, provider in MODEL_PREFIXES:
        if name.startswith(prefix) and provider in providers:
            return provider, name
    return None
