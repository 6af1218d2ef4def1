"""The plots of ``bench.scale``: what a chunk costs, and how late it is, by streams, client processes and workers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.line_chart import Axis, Chart, Line, as_svg, on_log_scale
from bench.scale.figures import HeldStreams, ScaleResults

_MICROSECONDS = (1.0, 10_000.0)
_MILLISECONDS = (0.1, 1000.0)
_ROLES = {"workers": 1, "client": 3, "broker": 4, "collector": 5}
"""Roles and the styles of their lines."""


def scale_plots(results: ScaleResults) -> dict[str, str]:
    """Return the plots as SVG by the names of their files. A plot without data is left out."""
    slow = [one for one in results.growth if one.pace == 1.0]
    groups: dict[str, tuple[str, Callable[[HeldStreams], int], list[HeldStreams]]] = {
        "streams": ("streams", lambda one: one.streams, [one for one in slow if one.clients == one.workers == 1]),
        "clients": (
            "client processes",
            lambda one: one.clients,
            [one for one in slow if one.workers == 1 and one.streams == _most_common(slow)],
        ),
        "workers": (
            "workers",
            lambda one: one.workers,
            [one for one in results.growth if one.pace != 1.0 and one.clients == 10],
        ),
    }
    return {
        f"scale-{name}.svg": _plot(title, by, sorted(points, key=by))
        for name, (title, by, points) in groups.items()
        if len(points) > 1
    }


def _most_common(points: Sequence[HeldStreams]) -> int:
    """Return the number of streams that was measured with the most numbers of clients."""
    counts: dict[int, set[int]] = {}
    for one in points:
        if one.workers == 1:
            counts.setdefault(one.streams, set()).add(one.clients)
    return max(counts, key=lambda streams: len(counts[streams]), default=0)


def _plot(title: str, by: Callable[[HeldStreams], int], points: Sequence[HeldStreams]) -> str:
    low, high = float(by(points[0])), float(by(points[-1]))

    def across(one: HeldStreams) -> float:
        return on_log_scale(by(one), low, high)

    seen = {by(one): across(one) for one in points}
    axis = Axis(title, [(place, f"{value:,}") for value, place in seen.items()])
    cost = Chart(
        f"CPU of a chunk, by the number of {title}",
        axis,
        Axis("µs", [(on_log_scale(value, *_MICROSECONDS), f"{value:,}") for value in (1, 10, 100, 1000, 10_000)]),
        [
            Line(
                role,
                style,
                [(across(one), on_log_scale(1e6 * one.per_chunk(role), *_MICROSECONDS)) for one in points],
            )
            for role, style in _ROLES.items()
        ],
    )
    latency = Chart(
        f"Latency of a chunk, by the number of {title}",
        axis,
        Axis("ms", [(on_log_scale(value, *_MILLISECONDS), f"{value:g}") for value in (0.1, 1, 10, 100, 1000)]),
        [
            Line("p50", 1, [(across(one), on_log_scale(1e3 * one.latency_p50, *_MILLISECONDS)) for one in points]),
            Line("p99", 4, [(across(one), on_log_scale(1e3 * one.latency_p99, *_MILLISECONDS)) for one in points]),
        ],
    )
    return as_svg([cost, latency], f"CPU and latency of a chunk by the number of {title}")
