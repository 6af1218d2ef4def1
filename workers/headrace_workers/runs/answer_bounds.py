"""Says when an answer is more than a run may hold: events, characters, bytes.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from headrace.types import RunEvent
from headrace_workers.providers.shared.answer_limits import (
    MAX_BODY,
    MAX_PIECES,
    MAX_TEXT,
    MAX_VECTORS_BODY,
    MAX_WIDE_TEXT,
    MIB,
    LimitError,
    too_large,
)
from headrace_workers.runs.whole_answer import is_ascii


class AnswerBounds:
    """The limits of one answer. ``max_body`` is in bytes."""

    __slots__ = ("_gathered_bytes", "_is_ascii", "max_body")

    def __init__(self, *, has_vectors: bool) -> None:
        self.max_body = MAX_VECTORS_BODY if has_vectors else MAX_BODY
        self._gathered_bytes = 0
        # Whether all characters of a long answer are ASCII. None until the answer is long.
        self._is_ascii: bool | None = None

    def excess(
        self, count: int, characters: int, new: Iterable[RunEvent], earlier: Callable[[], Iterable[RunEvent]]
    ) -> LimitError | None:
        """Return the limit that a long answer breaks, or None.

        ``count`` is the number of its events. ``characters`` is the length of the answer without its newest events, ``new``. ``earlier`` returns the other
        events.
        """
        if count > MAX_PIECES:
            return too_large(f"{MAX_PIECES} pieces")
        if characters > MAX_TEXT:
            return too_large(f"{MAX_TEXT} characters")
        if self._is_ascii is None:
            self._is_ascii = all(map(is_ascii, earlier()))
        if self._is_ascii and all(map(is_ascii, new)):
            return None
        return too_large(f"{MAX_WIDE_TEXT} characters, and not all of them are ASCII")

    def add_gathered(self, size: int) -> bool:
        """Count ``size`` bytes of a streamed answer that is sent at its end only.

        Return whether the sum is too large.
        """
        self._gathered_bytes += size
        return self._gathered_bytes > self.max_body

    def body_too_large(self) -> LimitError:
        """Return the error for a body that is larger than ``max_body``."""
        return too_large(f"{self.max_body // MIB} MiB")
