"""BatchOptions: how a batch job runs its rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from headrace.schemas.response_type import ResponseType

BackgroundWindow = Literal["2h", "8h"]
"""How long OpenAI may take for a background run: the longer, the cheaper."""

NO_MAX_COST = "cannot be kept if a provider runs the rows in its own time: all rows are sent at once"
"""Why ``max_cost`` is refused with ``via_provider`` and ``background``."""

DEFAULT_CONCURRENCY = 1024
"""Rows that a job has with the engine at most, where ``concurrency`` does not say otherwise."""


class BatchOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job runs its rows. The rows themselves have all arguments that shape an answer."""

    concurrency: int = DEFAULT_CONCURRENCY
    """Rows with the engine at most, above 0. The job finds out by itself how many of them are useful."""
    max_retries: int = 5
    """How often a row is tried again after a failure of the provider, if the row does not say it: 0 to 100."""
    timeout_ms: int | None = None
    """The total timeout of a row in milliseconds, if the row does not say it. None: the engine's."""
    session_id: str | None = None
    """The ``session_id`` of all spans, if the row does not say it, so that the spans of a job are found together."""
    response_type: ResponseType | None = None
    """Reads answers from the file ``cache`` and of equal rows. The rows must have it as their ``response_type`` too."""
    is_ordered: bool = False
    """Whether the job yields rows in the order of the input. A row that takes long then holds back the rows behind it."""
    schema_retries: int = 2
    """How often a row is run again whose answer does not fit ``response_type``."""
    dedupe: bool = False
    """Whether rows with the same hash share one run."""
    cache: Path | None = None
    """A file of answers that outlives the job: a row whose hash is in it is not run. None: no such file."""
    limit: int | None = None
    """Only the first rows of the input, so many. None: all."""
    sample: int | None = None
    """Only so many rows of the input, drawn at random: the same ones at each start. None: all."""
    max_cost: float | None = None
    """US dollars. The job starts no further rows if what was spent and what runs would cost more. None: no bound."""

    stops_without_key: bool = False
    """Whether the job ends with AuthenticationError if the key of its first rows is refused, and no other row has ended."""
    via_provider: bool = False
    """Whether the rows go to the provider's own batch API, at half the price, instead of an engine."""
    background: BackgroundWindow | None = None
    """The completion window of background runs of OpenAI, instead of an engine. None: no background runs."""
    cancels_batches: bool = False
    """Whether the job only cancels its batches at the provider, and records what they have done."""

    @property
    def is_deferred(self) -> bool:
        """Whether the provider runs the rows in its own time."""
        return self.via_provider or self.background is not None or self.cancels_batches

    def of_all_rows(self) -> dict[str, Any]:
        """Return the run arguments of each row that does not name them, as EngineRows takes them."""
        shared = {
            "priority": "batch",
            "max_retries": self.max_retries,
            "timeout_ms": self.timeout_ms,
            "session_id": self.session_id,
        }
        return {name: value for name, value in shared.items() if value is not None}
