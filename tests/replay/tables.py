"""How a replay went, as text for people. Pure."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

WIDTH = 120


class Replayed(msgspec.Struct, frozen=True):
    """One recording in one cut. ``problem`` is what was not as expected, ``None`` for nothing."""

    name: str
    wire: str
    vendor: str
    features: list[str]
    cut: str
    problem: str | None


def by_provider(replays: Sequence[Replayed], cuts: Sequence[str]) -> str:
    """Return a table of providers: passed and replayed, for each cut."""
    rows = [("provider", "wire format", *cuts)]
    for vendor, wire in sorted({(replay.vendor, replay.wire) for replay in replays}):
        own = [replay for replay in replays if (replay.vendor, replay.wire) == (vendor, wire)]
        rows.append((vendor, wire, *(_score(replay for replay in own if replay.cut == cut) for cut in cuts)))
    rows.append(("all", "", *(_score(replay for replay in replays if replay.cut == cut) for cut in cuts)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def by_feature(replays: Sequence[Replayed]) -> str:
    """Return, for each provider, the features that its recordings show: passed and replayed, all cuts together."""
    paragraphs = []
    for vendor, wire in sorted({(replay.vendor, replay.wire) for replay in replays}):
        own = [replay for replay in replays if (replay.vendor, replay.wire) == (vendor, wire)]
        counts = Counter(feature for replay in own for feature in replay.features)
        cells = [
            f"{feature}\N{NO-BREAK SPACE}{_score(replay for replay in own if feature in replay.features)}"
            for feature, _ in sorted(counts.items(), key=lambda count: (-count[1], count[0]))
        ]
        lines = textwrap.fill(" · ".join(cells), WIDTH, initial_indent="  ", subsequent_indent="  ")
        paragraphs.append(f"{vendor} ({wire})\n{lines}")
    return "\n".join(paragraphs).replace("\N{NO-BREAK SPACE}", " ")


def _score(replays: Iterable[Replayed]) -> str:
    outcomes = [replay.problem is None for replay in replays]
    return f"{sum(outcomes)}/{len(outcomes)}"
