"""The types of the journal of a batch job: a row's record, the figures of a job, what a scan found. Types only."""

from __future__ import annotations

import msgspec


class RowRecord(msgspec.Struct, frozen=True, gc=False):
    """The final record of a row, to be written.

    ``number``: of the row. ``line``: one line of JSON with a newline at its end; it has the row's id as ``custom_id``, or
    else as ``id``. ``error_kind``: empty for a success; else the kind of the error, such as ``RateLimitError``. ``cost``:
    US dollars.
    """

    number: int
    line: bytes
    error_kind: str = ""
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record as it is in the files. ``id``: of the row."""

    number: int
    id: str
    line: bytes
    is_failure: bool


class JobTotals(msgspec.Struct, frozen=True):
    """The figures of a job over all its starts. ``cost``: US dollars of the rows that have a record now."""

    rows: int = 0
    done: int = 0
    failed: int = 0
    cost: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def waiting(self) -> int:
        """How many rows have no record."""
        return self.rows - self.done - self.failed


class ChosenRows(msgspec.Struct, frozen=True, kw_only=True):
    """What the last start of a job runs, if that is a part of its rows.

    ``limit``, ``sample``: how the rows were chosen, as given; ``rows``: how many they are. ``others_ended``: the rows that
    were not chosen, and had a record from an earlier start.
    """

    limit: int | None = None
    sample: int | None = None
    rows: int
    others_ended: int = 0


class ScanResult(msgspec.Struct, frozen=True):
    """What a scan of the input found.

    ``bad``: rows that cannot be run; they are recorded as failed. ``changed``, ``new``, ``missing``: against the rows
    that the journal knew; all 0 at the first scan. ``adopted``: records that a killed process had written, and that the
    journal did not know yet.
    """

    totals: JobTotals
    is_first: bool = True
    bad: int = 0
    changed: int = 0
    new: int = 0
    missing: int = 0
    adopted: int = 0


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A job as another process sees it.

    ``is_running``: a process has the job open; ``holder`` says which one, such as ``process 4711 on host a``. ``rate``:
    rows a second in the last minute of work. ``errors``: kind of error → rows. ``settings``: as given to
    ``Journal.open``. ``started_at``, ``changed_at``: seconds since 1970 of the last start and of the last record; 0.0 if
    there was none. ``chosen``: the rows that the last start runs; None: all.
    """

    directory: str
    results: str
    errors_file: str
    output: str = ""
    is_running: bool = False
    holder: str = ""
    totals: JobTotals
    rate: float = 0.0
    errors: dict[str, int] = {}
    settings: dict[str, str] = {}
    started_at: float = 0.0
    changed_at: float = 0.0
    chosen: ChosenRows | None = None

    @property
    def rows_to_run(self) -> int:
        """How many rows the last start runs, those with a record included."""
        return self.totals.rows if self.chosen is None else self.chosen.rows

    @property
    def ended(self) -> int:
        """How many of these rows have a record."""
        ended = self.totals.done + self.totals.failed
        return ended if self.chosen is None else min(max(ended - self.chosen.others_ended, 0), self.chosen.rows)

    @property
    def waiting(self) -> int:
        """How many of these rows have no record."""
        return self.rows_to_run - self.ended
