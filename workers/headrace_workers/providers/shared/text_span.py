"""Finds where the text stands in the JSON of a text delta, so that later deltas with the same bytes around it need no decoding. Pure.

Some streams number their events. So one number that no mapper reads may differ too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_PROBE_TEXT = "\N{SNOWMAN}probe"
_PROBE = f'"{_PROBE_TEXT}"'.encode()
_MOST_PLACES = 8
"""Strings of one event that are tried. An event with more strings under the same key is no plain delta."""


class TextSpan(NamedTuple):
    """The JSON string of a delta's text is ``data[start:end]``. The mapper keeps the texts of such deltas in ``kept``.

    ``number``: where the digits of the event's number start and end, or None.
    """

    start: int
    end: int
    kept: list[str]
    number: tuple[int, int] | None = None


def strings_of(key: str) -> re.Pattern[bytes]:
    """Return the pattern that finds the JSON strings under ``key``: the group is the string with its quotes."""
    return re.compile(rb'"%b"\s*+:\s*+("(?:[^"\\]++|\\.)*+")' % key.encode())


def number_of(key: str) -> re.Pattern[bytes]:
    """Return the pattern that finds the whole numbers under ``key``: the group is the digits."""
    return re.compile(rb'"%b"\s*+:\s*+(\d++)(?=\s*+[,}])' % key.encode())


def span_of_text(
    data: bytes,
    strings: re.Pattern[bytes],
    text_of: Callable[[bytes], str | None],
    kept: list[str],
    numbers: re.Pattern[bytes] | None = None,
) -> TextSpan | None:
    """Return where the text of an event stands, or None if the event is no plain delta.

    ``numbers`` finds the number of an event, which ``text_of`` and the mapper do not read.

    ``text_of`` decodes an event, and returns its text if the event has a text and nothing else; else None. The place is
    certain: another string is put there, and ``text_of`` must return that string.
    """
    if text_of(data) is None:
        return None
    for count, found in enumerate(strings.finditer(data)):
        start, end = found.span(1)
        if count == _MOST_PLACES:
            return None
        if text_of(data[:start] + _PROBE + data[end:]) == _PROBE_TEXT:
            return TextSpan(start, end, kept, _only(numbers, data) if numbers is not None else None)
    return None


def _only(numbers: re.Pattern[bytes], data: bytes) -> tuple[int, int] | None:
    found = list(numbers.finditer(data))
    return found[0].span(1) if len(found) == 1 else None
