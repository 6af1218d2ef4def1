"""Where in a caller's arguments stands what Headrace reads as something else: for errors that name the caller's own place. Pure.

A worker knows a request as Headrace reads it. It names ``messages[1].content[0]`` where the caller gave ``messages[1].tool_calls[0]``.
"""

from __future__ import annotations

from collections.abc import Mapping

MovedPlaces = dict[str, str]
"""By the place of something in the request: its place in what the caller gave, where that is another."""


def place_as_given(place: str, moved: Mapping[str, str]) -> str:
    """Return the place in what the caller gave; what lies within something that was moved is found too."""
    end = len(place)
    while end > 0 and place[:end] not in moved:
        end = max(place.rfind(".", 0, end), place.rfind("[", 0, end))
    return moved[place[:end]] + place[end:] if end > 0 else place
