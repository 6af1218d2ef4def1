"""RowOptions: what the lines of an input file are completed with, so that they become rows. Types only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

InputFormat = Literal["jsonl", "csv", "tsv", "parquet", "txt"]
"""How an input file is written. ``.ndjson`` is ``jsonl`` too."""


class RowProvider(msgspec.Struct, frozen=True):
    """What rows must know of a configured provider: its address, and its wire format.

    A changed address changes the hashes of the rows. ``api`` is that of the settings, such as ``openai-chat``.
    """

    base_url: str
    api: str = ""

    def __repr__(self) -> str:
        return f"RowProvider(api={self.api!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no address, which may have a password in it."""
        return [("api", self.api)]


class RowOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What completes each row of an input. A value that the row itself has goes first, but for ``provider``."""

    model: str | None = None
    """The model of rows that name none."""
    provider: str | None = None
    """The provider of all rows. None: the model's name, or the row, tells it."""
    prompt: str | None = None
    """The template of a record's prompt, such as ``Summarise: {text}``. ``{{`` and ``}}`` are braces.

    Needed for tables. Lines of JSON are then records too: their keys are the columns, and arguments in them are not read.
    Text files have the column ``text``, and their template is ``{text}`` if there is no other.
    """
    embed: str | None = None
    """The column of a record to embed. Not together with ``prompt``."""
    system: str | None = None
    """The system message of rows that have none. Its braces stay as they are."""
    arguments: Mapping[str, Any] = {}
    """Run arguments of rows that do not name them, by their Headrace names: ``temperature``, ``response_format``, ….

    Rows that embed take those that ``run_embedding`` knows.
    """
    input_format: InputFormat | None = None
    """How the input is written. None: the suffix of the file's name says it, and without a known one it is ``jsonl``."""
    providers: Mapping[str, RowProvider] = {}
    """The configured providers, by name. Empty: not known, so any name of a provider or a model is taken."""
