"""BatchProgress: the figures of a batch job that runs, for a display."""

from __future__ import annotations

from typing import Literal

import msgspec

JobPhase = Literal["running", "finishing", "aborting", "ended"]
"""``running``: rows are started. ``finishing``: no further rows are started, and the started ones go on. ``aborting``: the
started ones are being stopped."""
StopReason = Literal["", "interrupted", "max_cost", "no_price", "engine", "key", "disk", "input"]
"""Why a job ended before its last row. ``no_price``: ``max_cost`` was given, and the price of a model is not known.
``engine``: no engine, or a spending limit of its settings. ``key``: no row has an answer, because the key was refused. ``disk``: a result could not be written. ``input``: the input could not be read on.
Empty: it did not."""


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a job at one moment. All counts are of this job's selection (``limit``, ``sample``)."""

    phase: JobPhase
    stop_reason: StopReason = ""
    total: int | None = None
    """Rows of the selection; None while that is not known: an iterator without a journal, or still being read."""
    done: int = 0
    """Rows with an answer, recorded, in this start of the job."""
    failed: int = 0
    """Rows with an error, recorded, in this start of the job."""
    done_before: int = 0
    """Rows with an answer from earlier starts of the job."""
    failed_before: int = 0
    """Rows that earlier starts of the job recorded as failed."""
    shared: int = 0
    """Of ``done``: rows that got the answer of another row (``dedupe``)."""
    cached: int = 0
    """Of ``done``: rows with an answer from the file ``cache``."""
    running: int = 0
    """Rows on a worker now."""
    waiting: int = 0
    """Rows with the engine that are not on a worker now."""
    waiting_for: str = ""
    """What most of them wait for: ``workers``, ``share``, ``limit``, ``blocked``, ``breaker``; ``engine`` if there is none now. Empty: nothing."""
    window: int = 0
    """How many rows the job gives the engine at once, as it has adapted by itself."""
    is_held_by_reader: bool = False
    """Whether the program that takes the results is what the job waits for."""
    rate: float = 0.0
    """Rows a second, over the last 10 s."""
    tokens_per_second: float = 0.0
    """Tokens of prompts and answers a second, over the last 10 s."""
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    """US dollars of all rows that this start ran, as far as prices are known."""
    cost_before: float = 0.0
    """US dollars of earlier starts of the job."""
    rows_without_price: int = 0
    """Rows that ran, and for which no price is known: ``cost`` lacks them."""
    rate_limited: int = 0
    """Answers with HTTP 429 in this start of the job."""
    elapsed: float = 0.0
    """Seconds since this start of the job."""
    seconds_left: float | None = None
    """How long the rest takes at this rate, in seconds; None if that is not known."""
    errors: dict[str, int] = {}
    """How many rows failed in this start of the job, by the word of ``records.error_code``, such as ``rate_limit``."""
