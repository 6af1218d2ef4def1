"""Closes everything when the program ends, and remembers that it did.

Python runs exit handlers in the reverse order of their registration. This handler is registered when Headrace is
imported. A handler that the program registers later runs earlier, and may still start runs. A handler from before the
import runs later: its calls raise EngineUnavailableError at once.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

_actions: list[Callable[[], None]] = []
_has_begun = False


def has_begun() -> bool:
    """Return whether Headrace's exit handler has begun: nothing can be started any more."""
    return _has_begun


def at_program_end(action: Callable[[], None]) -> None:
    """Call ``action`` at the end of the program. Later actions run later; their errors are ignored."""
    _actions.append(action)


def _end() -> None:
    global _has_begun  # noqa: PLW0603 - a program ends once
    _has_begun = True
    for action in _actions:
        with contextlib.suppress(Exception):
            action()


atexit.register(_end)
