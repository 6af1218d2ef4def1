"""The figures of a batch job as texts: for the live display, and as one line for a pipe. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from headrace.batch.driver.progress import BatchProgress
from headrace.cli.batch.figures import counted, duration, money, rate, share

if TYPE_CHECKING:
    from headrace.batch.provider_batches.batch_status import ProviderBatchStatus

_WAITS = {
    "workers": "all workers are busy",
    "share": "other programs use the engine too",
    "limit": "a limit of the provider, or of your settings",
    "blocked": "the provider asked for a pause",
    "breaker": "the provider fails; single rows are tried until it works again",
    "engine": "no engine answers now; one row is tried now and then",
}
"""Word of ``WaitWord`` → what holds rows back."""


_MOST_BATCHES = 4
"""Batches at a provider that are shown one by one at most."""


class JobView(msgspec.Struct, frozen=True):
    """What a display shows. ``batches``: those of a job that the provider runs, None for a job on an engine."""

    progress: BatchProgress
    batches: Sequence[ProviderBatchStatus] | None = None


class Figure(msgspec.Struct, frozen=True):
    """One figure of the display. ``is_problem``: it is about failures."""

    name: str
    value: str
    is_problem: bool = False


def ended_rows(progress: BatchProgress) -> int:
    """Return how many rows have a record, those of earlier starts of the job included."""
    return progress.done + progress.failed + progress.done_before + progress.failed_before


def failed_rows(progress: BatchProgress) -> int:
    """Return how many rows have an error as their record."""
    return progress.failed + progress.failed_before


def position(progress: BatchProgress) -> str:
    """Return how far the job is, such as ``63,512 of 100,000 rows, 63 %``."""
    ended = ended_rows(progress)
    if progress.total is None:
        return counted(ended, "row")
    return f"{ended:,} of {counted(progress.total, 'row')}, {share(ended, progress.total)}"


def time_left(progress: BatchProgress) -> str:
    """Return how long the rest takes, such as ``about 2 min 5 s left``; empty if that is not known."""
    if progress.seconds_left is None or progress.phase != "running":
        return ""
    return f"about {duration(progress.seconds_left)} left"


def figures(view: JobView) -> list[list[Figure]]:
    """Return the columns of the display, from left to right."""
    progress = view.progress
    failed = failed_rows(progress)
    limited = progress.rate_limited
    return [
        [
            Figure("done", f"{progress.done + progress.done_before:,}"),
            Figure("failed", f"{failed:,}", is_problem=failed > 0),
            Figure("running", f"{progress.running:,}"),
            Figure("waiting", f"{progress.waiting:,}"),
        ],
        [
            Figure("rows/s", rate(progress.rate)),
            Figure("tokens/s", rate(progress.tokens_per_second)),
            Figure("429s", f"{limited:,}", is_problem=limited > 0),
            Figure("at once", "-" if view.batches is not None else f"up to {progress.window:,}"),
        ],
        [
            Figure("cost", cost_so_far(progress)),
            Figure("in all", expected_cost(progress)),
            Figure("time", duration(progress.elapsed)),
            Figure("tokens", f"{progress.input_tokens + progress.output_tokens:,}"),
        ],
    ]


def cost_so_far(progress: BatchProgress) -> str:
    """Return the cost of all starts of the job; ``not known`` if no model has a price."""
    cost = progress.cost + progress.cost_before
    if progress.rows_without_price and not cost:
        return "not known"
    return f"{money(cost)}{' or more' if progress.rows_without_price else ''}"


def expected_cost(progress: BatchProgress) -> str:
    """Return what the whole job costs if its other rows cost as much as the first ones; a dash if that is not known."""
    ended = progress.done + progress.failed
    if progress.total is None or not ended or not progress.cost or progress.rows_without_price:
        return "-"
    left = progress.total - ended_rows(progress)
    found = money(progress.cost + progress.cost_before + left * progress.cost / ended)
    return found if found.startswith("less") else f"about {found}"


def reused_rows(progress: BatchProgress) -> str:
    """Return which rows needed no run in this start of the job, as a sentence; empty if there are none."""
    before = progress.done_before + progress.failed_before
    parts = [
        f"{counted(before, 'row')} from an earlier start" if before else "",
        f"{counted(progress.shared, 'row')} with the answer of an equal row" if progress.shared else "",
        f"{counted(progress.cached, 'row')} from the cache" if progress.cached else "",
    ]
    words = ", ".join(filter(None, parts))
    return f"Not run again: {words}." if words else ""


def hold_up(progress: BatchProgress) -> str:
    """Return what holds the job back, as a sentence; empty if nothing does."""
    if progress.is_held_by_reader:
        return "Held back by whoever reads the results: rows go on as they are read."
    if progress.waiting_for == "engine":
        return f"Held back: {_WAITS['engine']}."
    if progress.waiting and progress.waiting_for:
        reason = _WAITS.get(progress.waiting_for, progress.waiting_for)
        return f"Held back: {reason} ({counted(progress.waiting, 'row waits', 'rows wait')})."
    return ""


def batches_lines(batches: Sequence[ProviderBatchStatus]) -> list[str]:
    """Return a line for each batch or background response at the provider, with its id; many in one line for each state."""
    if len(batches) <= _MOST_BATCHES:
        return [f"{batch.provider} {batch.batch_id or _nouns(batch)[0]}: {_state_of([batch])}" for batch in batches]
    groups: dict[tuple[str, bool, str], list[ProviderBatchStatus]] = {}
    for batch in batches:
        groups.setdefault((batch.provider, batch.is_background, batch.state), []).append(batch)
    return [
        f"{group[0].provider}: {counted(len(group), *_nouns(group[0]))} {_state_of(group)}"
        for _, group in sorted(groups.items())
    ]


def _nouns(batch: ProviderBatchStatus) -> tuple[str, str]:
    return ("background response", "background responses") if batch.is_background else ("batch", "batches")


def _state_of(batches: Sequence[ProviderBatchStatus]) -> str:
    """Return the state of batches that are in the same one. A background response is one row, which is ended or not."""
    state = batches[0].state
    return state if batches[0].is_background else f"{state}, {_rows_of(batches)}"


def _rows_of(batches: Sequence[ProviderBatchStatus]) -> str:
    ended = sum(batch.done + batch.failed for batch in batches)
    return f"{ended:,} of {counted(sum(batch.rows for batch in batches), 'row')} ended"


def state_line(view: JobView) -> str:
    """Return what Ctrl-C does next, or what it has done; empty at the end."""
    progress = view.progress
    if view.batches is not None and progress.phase == "running":
        return "Ctrl-C leaves the rows with the provider, which goes on. The same command fetches the results."
    match progress.phase:
        case "running":
            return "Ctrl-C finishes the rows that run, and stops. The same command goes on from there."
        case "finishing":
            # Rows that wait are given back, unless the input broke off.
            under_way = progress.running + (progress.waiting if progress.stop_reason == "input" else 0)
            if not under_way:
                return "Stopping."
            rows = counted(under_way, "row that runs", "rows that run")
            again = " again" if progress.stop_reason == "interrupted" else ""
            return f"Stopping: waits for {rows}. Ctrl-C{again} stops at once; these rows run again next time."
        case "aborting":
            return "Stopping."
        case _:
            return ""


def errors_line(errors: Mapping[str, int]) -> str:
    """Return the kinds of errors with their counts, the most frequent first; empty without errors."""
    ranked = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {kind}" for kind, count in ranked)


def plain_line(view: JobView) -> str:
    """Return the figures on one line, for a pipe or a log."""
    progress = view.progress
    parts = [position(progress)]
    if failed := failed_rows(progress):
        parts.append(f"{failed:,} failed")
    parts += [f"{rate(progress.rate)} rows/s", f"{rate(progress.tokens_per_second)} tokens/s"]
    parts += [f"cost {cost_so_far(progress)}", f"{progress.running:,} running"]
    reason = _WAITS.get(progress.waiting_for, progress.waiting_for)
    if progress.waiting or reason:
        parts.append(f"{progress.waiting:,} waiting{f' ({reason})' if reason else ''}")
    if progress.rate_limited:
        parts.append(f"{progress.rate_limited:,} times 429")
    if left := time_left(progress):
        parts.append(left)
    parts += batches_lines(view.batches or ())
    return "; ".join(parts)
