"""Line charts as SVG, without a library: lines with their names at their ends, in colours for light and for dark pages. Pure.

A chart knows no units: whoever makes it maps values to places between 0 and 1 (``on_log_scale``, ``on_share_scale``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

WIDTH = 800
HEIGHT = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 56, 56
_LABEL_HEIGHT = 15.0
_COLOURS = [
    ("#6e7781", "#9198a1"),
    ("#0550ae", "#58a6ff"),
    ("#0550ae", "#58a6ff"),
    ("#116329", "#56d364"),
    ("#bc4c00", "#ffa657"),
    ("#8250df", "#d2a8ff"),
    ("#cf222e", "#ff7b72"),
    ("#953800", "#e3b341"),
]
"""Of the lines, by their style: on a light and on a dark page."""
_DASHED = {2}
_STYLES = "\n".join(
    [
        "text { font: 13px system-ui, sans-serif; fill: #1f2328 }",
        ".title { font-size: 15px; font-weight: 600 }",
        ".back { fill: #ffffff }",
        ".grid { stroke: #d1d9e0; stroke-width: 1 }",
        ".line { fill: none; stroke-width: 2 }",
        *(
            f".s{number} {{ stroke: {light} }} .t{number} {{ fill: {light} }}"
            for number, (light, _) in enumerate(_COLOURS)
        ),
        *(f".s{number} {{ stroke-dasharray: 6 4 }}" for number in _DASHED),
        "@media (prefers-color-scheme: dark) {",
        "text { fill: #f0f6fc } .back { fill: #0d1117 } .grid { stroke: #3d444d }",
        *(
            f".s{number} {{ stroke: {dark} }} .t{number} {{ fill: {dark} }}"
            for number, (_, dark) in enumerate(_COLOURS)
        ),
        "}",
    ]
)


class Line(msgspec.Struct, frozen=True):
    """A line: its name, its style (0 to 7; style 2 is dashed), and its points, each of two places between 0 and 1."""

    name: str
    style: int
    points: list[tuple[float, float]]


class Axis(msgspec.Struct, frozen=True):
    """What an axis shows, and the places and the words of its ticks."""

    title: str
    ticks: list[tuple[float, str]]


class Chart(msgspec.Struct, frozen=True):
    """A chart. Points and ticks outside of 0 to 1 are left out."""

    title: str
    across: Axis
    up: Axis
    lines: list[Line]


def on_log_scale(value: float, low: float, high: float) -> float:
    """Return the place of a value between ``low`` (0) and ``high`` (1), by its logarithm. A value below ``low`` is at 0."""
    return math.log(max(value, low) / low) / math.log(high / low)


def on_share_scale(share: float, last: float = 0.999) -> float:
    """Return the place of a share of all values, so that 0.9, 0.99 and 0.999 are equally far apart. ``last`` and more is at 1."""
    return math.log(1 - min(share, last)) / math.log(1 - last)


def as_svg(charts: Sequence[Chart], description: str) -> str:
    """Return the charts, one below the other, as an SVG file. ``description`` is for readers who cannot see it."""
    height = HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        f"<title>{escape(description)}</title>",
        f"<style>\n{_STYLES}\n</style>",
        f'<rect class="back" width="{WIDTH}" height="{height}" rx="6"/>',
    ]
    for number, chart in enumerate(charts):
        parts += [f'<g transform="translate(0 {HEIGHT * number})">', *_chart(chart), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def apart(places: Sequence[float], distance: float, low: float, high: float) -> list[float]:
    """Return places that are at least ``distance`` apart and between ``low`` and ``high`` if they fit, in the order of the given ones."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    moved = list(places)
    free = low
    for number in order:
        moved[number] = max(moved[number], free)
        free = moved[number] + distance
    free = high
    for number in reversed(order):
        moved[number] = min(moved[number], free)
        free = moved[number] - distance
    return moved


def _chart(chart: Chart) -> list[str]:
    bottom, right = HEIGHT - _BOTTOM, WIDTH - _RIGHT
    parts = [f'<text class="title" x="{_LEFT}" y="24">{escape(chart.title)}</text>']
    parts.append(f'<text x="{_LEFT}" y="44">{escape(chart.up.title)}</text>')
    parts.append(f'<text x="{right}" y="{HEIGHT - 14}" text-anchor="end">{escape(chart.across.title)}</text>')
    for place, word in chart.up.ticks:
        y = _y(place)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(word)}</text>')
    for place, word in chart.across.ticks:
        x = _x(place)
        parts.append(f'<path class="grid" d="M{x:.1f} {bottom}v5"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 20}" text-anchor="middle">{escape(word)}</text>')
    shown = [line for line in chart.lines if line.points]
    for line in shown:
        path = "L".join(f"{_x(x):.1f} {_y(y):.1f}" for x, y in line.points)
        parts.append(f'<path class="line s{line.style}" d="M{path}"/>')
    ends = apart([_y(line.points[-1][1]) for line in shown], _LABEL_HEIGHT, _TOP, bottom)
    for line, y in zip(shown, ends, strict=True):
        parts.append(f'<text class="t{line.style}" x="{right + 8}" y="{y + 4:.1f}">{escape(line.name)}</text>')
    return parts


def _x(place: float) -> float:
    return _LEFT + min(max(place, 0.0), 1.0) * (WIDTH - _LEFT - _RIGHT)


def _y(place: float) -> float:
    return HEIGHT - _BOTTOM - min(max(place, 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)
