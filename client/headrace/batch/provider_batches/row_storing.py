"""Turns rows of a job into rows that are stored until their batch is over, and back. Checks their arguments."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from headrace.batch.row import Row, RowForm, RowKind
from headrace.connections.row_plans import RowPlans
from headrace.connections.run_starter import RunStarter
from headrace.errors import InvalidRequestError
from headrace.schemas.response_type import ResponseType
from headrace.wire.batch_frames import StoredRow

_REFUSED = {
    "provider_api_key": "rows that a provider runs in its own time use the key of the environment or of the settings",
    "fallbacks": "rows that a provider runs in its own time have no fallbacks: leave it out",
    "hedge_after_ms": "rows that a provider runs in its own time are not hedged: leave it out",
}
_LONG = frozenset(("messages", "input", "response_type", "variables"))
"""Arguments that no record repeats."""
_WITHOUT_ARGUMENTS: tuple[RowKind, ...] = ("chat",)
"""Rows of these kinds have records that repeat no argument."""
_DIGEST_BYTES = 16


class RowStoring:
    """Makes stored rows. ``shared``: arguments for each row that has none of its own of that name."""

    def __init__(self, starter: RunStarter, shared: Mapping[str, Any]) -> None:
        self._plans = RowPlans(starter, shared)
        self._response_types: dict[bytes, ResponseType] = {}

    def begin_group(self) -> None:
        """Rows follow: look at the environment once for all of them."""
        self._plans.begin_group()

    def know(self, response_type: ResponseType) -> bytes:
        """Remember a response type, so that stored rows which have it can be read. Return what stands for it."""
        schema = msgspec.json.encode(response_type.response_format, order="sorted")
        digest = hashlib.blake2b(schema, digest_size=_DIGEST_BYTES).digest()
        self._response_types.setdefault(digest, response_type)
        return digest

    def response_type(self, stored: StoredRow) -> ResponseType | None:
        """Return what reads the answer of a stored row. None if it has none, or if no row that has it was seen."""
        return self._response_types.get(stored.schema) if stored.schema else None

    def stored(self, row: Row) -> StoredRow:
        """Return the row as it is stored. Raises InvalidRequestError or ConfigurationError if it cannot be sent."""
        for name, advice in _REFUSED.items():
            if row.arguments.get(name):
                raise InvalidRequestError(advice, name)
        plan, _, response_type = self._plans.plan(row.arguments, is_embedding=row.kind == "embeddings")
        return StoredRow(
            row.number,
            row.id,
            row.kind,
            row.form,
            row.hash,
            plan.request,
            plan.provider,
            plan.model,
            {} if row.kind in _WITHOUT_ARGUMENTS else _plain(row.arguments),
            b"" if response_type is None else self.know(response_type),
        )


def row_of(stored: StoredRow) -> Row:
    """Return a stored row as a row of the job, with the arguments that its record repeats."""
    kind, form = cast("RowKind", stored.kind), cast("RowForm", stored.form)
    return Row(stored.number, stored.id, kind, form, stored.arguments, stored.hash)


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that can be stored, in plain types."""
    plain: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in _LONG:
            try:
                plain[name] = msgspec.to_builtins(value)
            except (TypeError, ValueError, RecursionError):
                continue  # a function as a tool, for example: the record leaves it out
    return plain
