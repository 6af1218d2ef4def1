"""The session of a batch job: the id under which the spans of all its starts are found."""

from __future__ import annotations

from secrets import token_hex

from headrace.batch.journal.journal import Journal

_FACT = "session_id"


def session_id_of(journal: Journal | None) -> str:
    """Return the session's id, such as ``batch-5f1c8e0a9b7d6342``. The journal keeps it for the next start."""
    known = None if journal is None else journal.fact(_FACT)
    if known is None:
        known = f"batch-{token_hex(8)}"
        if journal is not None:
            journal.set_fact(_FACT, known)
    return known
