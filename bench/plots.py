"""The plots of the documentation: cost per chunk by the number of streams, and the distribution of latencies. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from bench.contestant_list import CONTESTANTS
from bench.line_chart import Axis, Chart, Line, as_svg, on_log_scale, on_share_scale
from bench.summary import Result, Summaries, summaries
from bench.works import CURVE_SHARES, WORKS

_STYLE = {
    "floor": 0,
    "headrace": 1,
    "headrace, threads": 2,
    "aiohttp": 3,
    "httpx": 4,
    "openai SDK": 5,
    "LiteLLM SDK": 6,
    "LiteLLM proxy": 7,
}
"""The contestants of the plots, and the style of their lines."""
_STREAMS = (1.0, 500.0)
_MICROSECONDS = (10.0, 2000.0)
_MILLISECONDS = (0.1, 20_000.0)


def plots(results: Sequence[Result]) -> dict[str, str]:
    """Return the plots as SVG by the names of their files. A plot without data is left out."""
    found = summaries(results)
    made = {}
    if any(line.points for line in _lines_by_streams(found)):
        made["bench-streams.svg"] = as_svg(
            [_by_streams(found)], "CPU of a chunk in microseconds by the number of streams, for each contestant"
        )
    if any(summary.curve() for summary in found.values()):
        made["bench-latency.svg"] = as_svg(
            [
                _latency(found, "W2", "500 streams at once (W2)"),
                _latency(found, "W2L", "20 streams at once (W2L)"),
            ],
            "Latency of a chunk in milliseconds by percentile, for each contestant",
        )
    return made


def _by_streams(found: Summaries) -> Chart:
    works = [work for work in WORKS if work.is_by_streams]
    return Chart(
        "CPU of a chunk, by the number of streams at once",
        Axis("streams", [(on_log_scale(work.at_once, *_STREAMS), str(work.at_once)) for work in works]),
        Axis(
            "µs",
            [(on_log_scale(value, *_MICROSECONDS), f"{value:,}") for value in (10, 20, 50, 100, 200, 500, 1000, 2000)],
        ),
        _lines_by_streams(found),
    )


def _lines_by_streams(found: Summaries) -> list[Line]:
    lines = []
    for name in _names():
        points = [
            (on_log_scale(work.at_once, *_STREAMS), on_log_scale(summary.micro(), *_MICROSECONDS))
            for work in WORKS
            if work.is_by_streams and (summary := found.get((name, work.name))) is not None and summary.rounds
        ]
        lines.append(Line(name, _STYLE[name], points))
    return lines


def _latency(found: Summaries, work: str, title: str) -> Chart:
    ticks = [
        (on_share_scale(share), word) for share, word in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9"))
    ]
    lines = []
    for name in _names():
        summary = found.get((name, work))
        curve = summary.curve() if summary is not None else []
        points = [
            (on_share_scale(share), on_log_scale(value, *_MILLISECONDS))
            for share, value in zip(CURVE_SHARES, curve, strict=False)
            if share < 1
        ]
        lines.append(Line(name, _STYLE[name], points))
    return Chart(
        f"Latency of a chunk: {title}",
        Axis("share of the chunks that came within this time", [(0.0, "fastest"), *ticks]),
        Axis(
            "ms from the provider's write to the reader",
            [(on_log_scale(value, *_MILLISECONDS), f"{value:,}") for value in (0.1, 1, 10, 100, 1000, 10_000)],
        ),
        lines,
    )


def _names() -> list[str]:
    return [contestant.name for contestant in CONTESTANTS if contestant.name in _STYLE]
