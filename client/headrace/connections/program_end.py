"""Closes everything when the program ends, and remembers that it has.

Exit handlers run in the reverse order of their registration. This one is registered when Headrace is imported, and not with the
first run: the handlers of a program that imports Headrace come later, so they run earlier and may still ask for runs. A handler
from before the import runs afterwards; its calls raise EngineUnavailableError at once.
"""

from __future__ import annotations

import atexit
import contextlib
from collections.abc import Callable

_actions: list[Callable[[], None]] = []
_has_begun = False


def has_begun() -> bool:
    """Return whether Headrace has closed everything, or is about to."""
    return _has_begun


def at_program_end(action: Callable[[], None]) -> None:
    """Have ``action`` called at the end of the program."""
    _actions.append(action)


def _end() -> None:
    global _has_begun  # noqa: PLW0603 - a program ends once
    _has_begun = True
    for action in _actions:
        with contextlib.suppress(Exception):
            action()


atexit.register(_end)
