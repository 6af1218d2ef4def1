"""The names of wire formats: those that ship with Headrace, and those of installed plug-ins. Runs no code of a plug-in.

A plug-in is a distribution that is installed in this interpreter and has an entry point of the group
``headrace.wire_formats``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # its import takes 50 ms or more, and settings are read at the start of each process
    from importlib.metadata import EntryPoint

BUILT_IN_FORMATS = ("openai-chat", "openai-responses", "anthropic", "google")
"""The formats that ship with Headrace. The workers' registry declares them."""
OPENAI_BY_MODEL = "openai"
"""In place of a format: each run takes ``openai-chat`` or ``openai-responses``, by its model and what it asks for."""
FORMAT_NAME = r"[a-z0-9]+(-[a-z0-9]+)*"
"""What the name of a format may be, as in ``ollama-chat``."""
ENTRY_POINT_GROUP = "headrace.wire_formats"


def installed_formats() -> dict[str, list[EntryPoint]]:
    """Return the entry points of installed plug-ins: name of the format → entry points, one for each distribution.

    Reads the metadata of all distributions on the import path, which takes some 50 ms. What cannot be read is left out.
    """
    from importlib import metadata

    found: dict[str, dict[str, EntryPoint]] = {}
    for distribution in metadata.distributions():
        try:
            for point in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
                # A distribution that stands on the path twice is imported from its first place.
                found.setdefault(point.name, {}).setdefault(distribution_of(point), point)
        except Exception:  # noqa: BLE001, S112 - the metadata of another package, in whatever state it is
            continue
    return {name: list(points.values()) for name, points in found.items()}


def format_problem(name: str, points: list[EntryPoint]) -> str | None:
    """Return why an installed format cannot be used, as far as its metadata tells; None where nothing is wrong."""
    if name in BUILT_IN_FORMATS or name == OPENAI_BY_MODEL:
        return "this name is a format of Headrace's own"
    if not re.fullmatch(FORMAT_NAME, name):
        return "the name of a format has small letters, digits and single hyphens only"
    if not points:
        return "no installed package has this wire format"
    if len(points) > 1:
        return f"several packages have it: {', '.join(sorted(map(distribution_of, points)))}; uninstall all but one"
    return None


def distribution_of(point: EntryPoint) -> str:
    """Return the name and version of an entry point's distribution, as in ``headrace-ollama 1.0``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "an unknown package"
