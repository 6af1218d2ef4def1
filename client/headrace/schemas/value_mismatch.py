"""ValueMismatchError: a JSON value does not fit a type. It has the path of the value, and the reason."""

from __future__ import annotations


class ValueMismatchError(ValueError):
    """A JSON value does not fit a type.

    It never reaches users: the caller makes an error of its own from it.

    Its attributes: ``path`` (str), such as ``$.lines[2].price``; ``reason`` (str).
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def step(key: object) -> str:
    """Return one step of a path: ``[2]``, ``.price``, or ``['unit price']``."""
    if isinstance(key, int):
        return f"[{key}]"
    text = str(key)
    return f".{text}" if text.isidentifier() else f"[{text!r}]"
