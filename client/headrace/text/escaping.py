r"""Escapes control characters and hidden characters in text from models, providers, files and users.

A terminal obeys some characters instead of showing them: ESC, U+009B, a carriage return, and marks that change the
direction of writing. Other characters are invisible, and can hide text. :func:`escaped` writes each of them as JSON
does: ``\u001b``. So one function serves text for people and JSON for programs: escaped JSON keeps its value.

Tabs and line ends (LF, CR with LF) stay. So do U+200C and U+200D, which Persian, Hindi and emoji need, the variation
selectors U+FE00 to U+FE0F, and marks on a letter: as many in a row as real languages use. More in a row are escaped:
they could carry hidden bytes, or cover the lines around them.
docs/decisions/2026-11-28-what-a-model-says-is-text.md has the table.
"""

from __future__ import annotations

import re

_JOINERS = "\u200c\u200d"
_SELECTORS = "\u180b-\u180d\u180f\ufe00-\ufe0f"
_MARKS = (
    "\u0300-\u034e\u0350-\u036f\u0483-\u0489\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u06d6-\u06dc"  # Latin, Cyrillic, Hebrew, Arabic
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u0f71-\u0f7e\u0f80-\u0f84"  # Thai, Lao, Tibetan
    "\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\u3099\u309a\ufe20-\ufe2f"  # of all scripts, of symbols, Japanese
)
_STEERING = re.compile(
    "\r(?!\n)|["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # C0 without tab and line end, DEL, C1
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e"  # soft hyphen, joiner of marks, Arabic letter mark, fillers, Mongolian vowel separator
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # zero width, directions, line and paragraph separators
    "\u3164\ufeff\uffa0\ufff0-\ufffb"  # fillers, byte order mark, interlinear annotations
    "\ud800-\udfff"  # halves of characters, which no encoding takes
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # controls of hieroglyphs, of shorthand, of music
    "\U000e0000-\U000e0fff"  # tags, and the variation selectors that can carry any bytes unseen
    f"]|[{_JOINERS}{_SELECTORS}{_MARKS}]{{2,}}"
)
_MOST_MARKS = 8
"""Marks on one letter that stay. Hebrew, Vietnamese and phonetic script have up to four."""
_BEYOND_16_BITS = 0x10000


def escaped(text: str) -> str:
    r"""Return ``text`` with each control or hidden character as ``\uXXXX``.

    The time grows with the length of the text. Text that is escaped already does not change.
    """
    if text.isascii() and text.isprintable():  # true for most texts, and quick to check
        return text
    return _STEERING.sub(lambda found: json_escape(found[0]) if len(found[0]) == 1 else _run(found[0]), text)


def _run(letters: str) -> str:
    """Return joiners, selectors and marks in a row.

    One joiner, one selector and a few marks stay; the rest is escaped.
    """
    room = {"joiner": 1, "selector": 1, "mark": _MOST_MARKS}
    said: list[str] = []
    for letter in letters:
        kind = "joiner" if letter in _JOINERS else "selector" if _is_selector(letter) else "mark"
        room[kind] -= 1
        said.append(letter if room[kind] >= 0 else json_escape(letter))
    return "".join(said)


def _is_selector(letter: str) -> bool:
    return "\ufe00" <= letter <= "\ufe0f" or "\u180b" <= letter <= "\u180f"


def json_escape(letter: str) -> str:
    r"""Return a character as JSON escapes it: ``\uXXXX``, or two of these for a character beyond 16 bits."""
    code = ord(letter)
    if code < _BEYOND_16_BITS:
        return f"\\u{code:04x}"
    code -= _BEYOND_16_BITS
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
