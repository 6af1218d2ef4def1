"""Headrace's worker processes: they own the provider connections and keys, and run the runs."""

from __future__ import annotations

import sys


def _import_msgspec() -> None:
    """Import msgspec without ``typing_extensions``, as where that is not installed: it takes 2 MB and 8 ms, and msgspec finds all in ``typing``."""
    name = "typing_extensions"
    if "msgspec" in sys.modules or name in sys.modules:
        return
    sys.modules[name] = None  # type: ignore[assignment]  # Python's way to say: it cannot be imported
    try:
        import msgspec as msgspec
    finally:
        del sys.modules[name]


_import_msgspec()
