"""The rows of a batch job: as they are read from the input, and as they end. Types only."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.errors import HeadraceError
from headrace.types import RunEmbeddingResult, RunLocalResult

RowKind = Literal["chat", "responses", "embeddings"]
"""What a row asks for: an answer in the form of Chat Completions or of Responses, or vectors."""
RowForm = Literal["openai", "short", "table"]
"""How a row was written: as a line of OpenAI's Batch API, in the short form, or as a record of a table with a prompt."""


class Row(msgspec.Struct, frozen=True):
    """One row of a job, read and checked as far as its form goes.

    ``number``: its line or record in the input, from 1. ``id``: unique in its job. ``arguments``: the keyword arguments
    of ``run_local``, or of ``run_embedding`` for the kind ``embeddings``. ``hash``: 16 bytes over everything that shapes
    the answer; rows with the same hash may share one answer.
    """

    number: int
    id: str
    kind: RowKind
    form: RowForm
    arguments: dict[str, Any]
    hash: bytes


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be run: bad JSON, a wrong field, or too large.

    ``id`` is ``line-N`` where the row has none that can be read. ``problem`` says what is wrong and what to do.
    ``argument``: the wrong field, None for the row as a whole. ``form``: how it was written, as far as that can be told.
    """

    number: int
    id: str
    problem: str
    argument: str | None = None
    form: RowForm = "short"

    @property
    def text(self) -> str:
        """The problem, after the name of the wrong field."""
        return self.problem if self.argument is None else f"{self.argument}: {self.problem}"


class FinishedRow(msgspec.Struct, frozen=True):
    """A row that has ended: with its result, or with the error that says why there is none."""

    row: Row
    result: RunLocalResult | RunEmbeddingResult | HeadraceError
