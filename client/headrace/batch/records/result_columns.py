"""The columns that all tables of results share: the figures of a run, and the vector of a row that embeds."""

from __future__ import annotations

from typing import Any

from headrace.types import RunEmbeddingResult, RunLocalResult


def figures_of(result: RunLocalResult[Any] | RunEmbeddingResult) -> dict[str, Any]:
    """Return the model, the tokens and the cost in US dollars (None: not known), by the names of their columns."""
    return {
        "model": result.model,
        "input_tokens": result.usage.input_tokens,
        "output_tokens": result.usage.output_tokens,
        "cost": result.cost,
    }


def vector_of(result: RunEmbeddingResult) -> list[float] | None:
    """Return the vector of a row, which embeds one text. None if there is none."""
    return result.embeddings[0] if result.embeddings else None
