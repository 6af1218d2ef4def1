"""JobCounts: counts what a batch job has done, and makes its BatchProgress. Pure."""

from __future__ import annotations

from collections import Counter

from headrace.batch.driver.progress import BatchProgress, JobPhase, StopReason
from headrace.batch.driver.rates import Rates
from headrace.batch.row_runs import RowRunsState

_HOLDS = frozenset({"limit", "blocked", "breaker"})
"""What rows wait for where the provider sets the pace: words of ``WaitWord``."""
_HELD_SPAN = 60.0
"""Seconds that count for the time left while the provider sets the pace: its limits are those of a minute."""
_LEAST_HELD = 5.0
"""Seconds of this pace before which the time left is not known."""


class JobCounts:
    """The figures of one start of a job. One thread changes them; others may read them.

    ``total``: rows of the selection, None if not known. ``done_before``, ``failed_before``, ``cost_before``: of earlier
    starts.
    """

    def __init__(
        self,
        now: float,
        total: int | None,
        *,
        done_before: int = 0,
        failed_before: int = 0,
        cost_before: float = 0.0,
    ) -> None:
        self.phase: JobPhase = "running"
        self.stop_reason: StopReason = ""
        self.window = 0
        self.state = RowRunsState()
        self.reading_since: float | None = None
        """Since when the program that takes the results has one; None: it waits for the job."""
        self._total = total
        self._done_before = done_before
        self._failed_before = failed_before
        self._cost_before = cost_before
        self._began_at = now
        self._rates = Rates(now, (0.0, 0.0, 0.0))
        self._held_rates: Rates | None = None
        """Rows since the provider sets the pace. The rows before went as a burst that does not come again."""
        self._done = 0
        self._failed = 0
        self._origins: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._input_tokens = 0
        self._output_tokens = 0
        self._cost = 0.0
        self._without_price = 0
        self._reader_seconds = 0.0

    def note(self, now: float) -> None:
        """Note the sums, for the rates."""
        self._rates.note(now, self._sums(now))
        if not self.state.waiting or self.state.waiting_for not in _HOLDS:
            self._held_rates = None
        elif self._held_rates is None:
            self._held_rates = Rates(now, (self._done + self._failed,), _HELD_SPAN)
        else:
            self._held_rates.note(now, (self._done + self._failed,))

    def read(self, now: float) -> None:
        """The program that takes the results wants the next one."""
        if self.reading_since is not None:
            self._reader_seconds += now - self.reading_since
            self.reading_since = None

    def spent(self, cost: float | None, input_tokens: int, output_tokens: int) -> None:
        """A row was run, and cost so much. ``cost`` None: the price is not known."""
        self._input_tokens += input_tokens
        self._output_tokens += output_tokens
        if cost is None:
            self._without_price += 1
        else:
            self._cost += cost

    def ended(self, origin: str, error_code: str) -> None:
        """A row is recorded. ``error_code``: empty for a success."""
        if error_code:
            self._failed += 1
            self._errors[error_code] += 1
        else:
            self._done += 1
            self._origins[origin] += 1

    def progress(self, now: float) -> BatchProgress:
        """Return the figures of this moment."""
        rate, tokens, reader = self._rates.rates(now, self._sums(now))
        finished = self._done + self._failed
        pace = self._pace(now, rate)
        left = None
        if self._total is not None and pace > 0.0:
            left = max(0, self._total - self._done_before - self._failed_before - finished) / pace
        return BatchProgress(
            phase=self.phase,
            stop_reason=self.stop_reason,
            total=self._total,
            done=self._done,
            failed=self._failed,
            done_before=self._done_before,
            failed_before=self._failed_before,
            shared=self._origins["shared"],
            cached=self._origins["cache"],
            running=self.state.running,
            waiting=self.state.waiting,
            waiting_for=self.state.waiting_for,
            window=self.window,
            is_held_by_reader=reader > 0.5,  # noqa: PLR2004 - most of the time
            rate=rate,
            tokens_per_second=tokens,
            input_tokens=self._input_tokens,
            output_tokens=self._output_tokens,
            cost=self._cost,
            cost_before=self._cost_before,
            rows_without_price=self._without_price,
            rate_limited=self.state.rate_limited,
            elapsed=now - self._began_at,
            seconds_left=left,
            errors=dict(self._errors),
        )

    def _pace(self, now: float, rate: float) -> float:
        """Return the rows a second by which the rest of the job is judged, 0.0 if that is not known."""
        held = self._held_rates
        if held is None:
            return rate
        if held.seconds(now) < _LEAST_HELD:
            return 0.0
        return held.rates(now, (self._done + self._failed,))[0]

    def _sums(self, now: float) -> tuple[float, ...]:
        since = self.reading_since
        reader = self._reader_seconds + (now - since if since is not None else 0.0)
        return (self._done + self._failed, self._input_tokens + self._output_tokens, reader)
