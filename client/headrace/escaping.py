r"""Escapes control characters and hidden characters in text from models, providers, files and users: the one function for all output.

A terminal obeys some characters instead of showing them: ESC, U+009B, a carriage return, the marks that turn the direction of
writing. Others are not seen at all, and hide text. :func:`escaped` writes each of them as JSON does: ``\u001b``. So the same
function serves text for people and JSON for programs: escaped JSON has the same value as before.

Tabs and the ends of lines (LF, CR with LF) stay. So do U+200C and U+200D, which Persian, Hindi and emoji need, and the variation selectors U+FE00 to U+FE0F.
docs/decisions/2026-11-28-what-a-model-says-is-text.md has the table.
"""

from __future__ import annotations

import re

_STEERING = re.compile(
    "\r(?!\n)|["
    "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # C0 without tab and line end, DEL, C1
    "\xad\u061c\u115f\u1160\u17b4\u17b5\u180e"  # soft hyphen, Arabic letter mark, fillers, Mongolian vowel separator
    "\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # zero width, directions, line and paragraph separators
    "\u3164\ufeff\uffa0\ufff9-\ufffb"  # fillers, byte order mark, interlinear annotations
    "\ud800-\udfff"  # halves of characters, which no encoding takes
    "\U000e0000-\U000e0fff"  # tags, and the variation selectors that can carry any bytes unseen
    "]"
)
_BEYOND_16_BITS = 0x10000


def escaped(text: str) -> str:
    r"""Return ``text`` with each control or hidden character as ``\uXXXX``.

    Its time grows with the length of the text. What is escaped already stays as it is.
    """
    if text.isascii() and text.isprintable():  # most are, and it is quick to see
        return text
    return _STEERING.sub(lambda found: json_escape(found[0]), text)


def json_escape(letter: str) -> str:
    r"""Return a character as JSON escapes it: ``\uXXXX``, twice for one beyond 16 bits."""
    code = ord(letter)
    if code < _BEYOND_16_BITS:
        return f"\\u{code:04x}"
    code -= _BEYOND_16_BITS
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
