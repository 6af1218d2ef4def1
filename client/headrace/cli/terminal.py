"""What is known of the terminal: whether there is one, its few colours, and what text may be sent to it."""

from __future__ import annotations

import os
from typing import TextIO

# A model's text must not steer the terminal: C0 (but tab and newline), DEL and C1 are dropped.
_CONTROL_CHARACTERS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)])
del _CONTROL_CHARACTERS[ord("\t")], _CONTROL_CHARACTERS[ord("\n")]


def bold(text: str, stream: TextIO) -> str:
    """Return ``text`` as a heading on ``stream``."""
    return _styled("1", text, stream)


def dim(text: str, stream: TextIO) -> str:
    """Return ``text`` as an aside on ``stream``."""
    return _styled("2", text, stream)


def red(text: str, stream: TextIO) -> str:
    """Return ``text`` as a warning on ``stream``."""
    return _styled("31", text, stream)


def green(text: str, stream: TextIO) -> str:
    """Return ``text`` as good news on ``stream``."""
    return _styled("32", text, stream)


def without_controls(text: str) -> str:
    """Return ``text`` without control characters, except tabs and newlines."""
    return text.translate(_CONTROL_CHARACTERS)


def one_line(text: str) -> str:
    """Return ``text`` on one line, without control characters."""
    return " ".join(without_controls(text).split())


def _styled(code: str, text: str, stream: TextIO) -> str:
    # https://no-color.org: any value but the empty one.
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if is_plain or not text else f"\x1b[{code}m{text}\x1b[0m"
