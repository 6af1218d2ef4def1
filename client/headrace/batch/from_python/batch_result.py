"""BatchResult: the end of one row of a batch job: its result, or its error."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar, cast

import msgspec

from headrace.errors import HeadraceError
from headrace.types import RunEmbeddingResult, RunLocalResult

T_co = TypeVar("T_co", covariant=True)

ResultOrigin = Literal["run", "shared", "cache", "journal"]
"""Where a result comes from: a run, the run of an equal row, the file ``cache``, or the file ``path``.

``path`` has the results of earlier starts. With ``via_provider`` or ``background``, and ``ordered``, it also has those of
this start that have waited for an earlier row, beyond 4,096.
"""


class BatchResult(msgspec.Struct, Generic[T_co], frozen=True, kw_only=True):
    """The end of one row. One of ``result`` and ``error`` is set.

    ``BatchResult[Invoice]`` is that of a job with ``response_type=Invoice``.
    """

    id: str
    """The row's id: its ``custom_id`` or ``id``, else ``row-1``, ``row-2``, …"""
    number: int
    """The row's number in the input, from 1."""
    result: RunLocalResult[T_co] | RunEmbeddingResult | None = None
    """What the run returned. A row that embeds has a RunEmbeddingResult."""
    error: HeadraceError | None = None
    """Why there is no result. The other rows are not affected."""
    origin: ResultOrigin = "run"
    """Where the result comes from. From a file (``cache``, ``journal``) it lacks what the file does not keep."""

    @property
    def text(self) -> str:
        """The answer's text. Raises the row's error if it failed, TypeError if the row embeds."""
        return self._answer().text

    @property
    def parsed(self) -> T_co:
        """The answer as an object of the ``response_type``. Raises as :attr:`text` does."""
        return self._answer().parsed

    @property
    def embeddings(self) -> list[list[float]]:
        """The vectors of a row that embeds. Raises the row's error if it failed, TypeError if the row does not embed."""
        result = self._result()
        if not isinstance(result, RunEmbeddingResult):
            raise TypeError(f"row {self.id} has an answer and no vectors: use text")
        return result.embeddings

    @property
    def cost(self) -> float | None:
        """US dollars of the row; ``None`` if it failed, or if the price is not known."""
        return None if self.result is None else self.result.cost

    def _result(self) -> RunLocalResult[T_co] | RunEmbeddingResult:
        if self.error is not None:
            raise self.error
        return cast("RunLocalResult[T_co] | RunEmbeddingResult", self.result)

    def _answer(self) -> RunLocalResult[T_co]:
        result: Any = self._result()
        if isinstance(result, RunEmbeddingResult):
            raise TypeError(f"row {self.id} has vectors and no text: use embeddings")
        return cast("RunLocalResult[T_co]", result)
