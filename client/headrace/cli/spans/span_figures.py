"""Formats the times, durations and costs that ``headrace spans`` shows. Pure."""

from __future__ import annotations

import datetime

from headrace.spans import value_bounds as span_bounds


def local_time(seconds: float) -> datetime.datetime:
    """Return the local time for seconds since 1970. Times outside the calendar become its nearest time."""
    return datetime.datetime.fromtimestamp(span_bounds.seconds(seconds)).astimezone()


def short_time(seconds: float, now: float) -> str:
    """Return the local time of day, or day and time if the day is not today."""
    then = local_time(seconds)
    is_today = then.date() == datetime.datetime.fromtimestamp(now).astimezone().date()
    return then.strftime("%H:%M:%S" if is_today else "%m-%d %H:%M")


def milliseconds(seconds: float | None) -> str:
    """Return ``seconds`` in whole milliseconds, or a dash for None."""
    return "-" if seconds is None else f"{span_bounds.real(seconds * 1000):.0f}"


def dollars(cost: float | None) -> str:
    """Return a cost in US dollars with its significant digits, or a dash for None."""
    if cost is None:
        return "-"
    if 0 < cost < 0.000001:  # noqa: PLR2004 - the last digit that is shown
        return "<0.000001"
    return f"{cost:,.2f}" if cost >= 1 else f"{cost:.6f}"
