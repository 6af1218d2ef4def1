"""Garbage collection (``gc``) in the engine's processes: by time, not after every few hundred objects.

Their runs and spans leave no reference cycles, and dozens are under way at once: a search for cycles among these objects would
take a tenth of a busy process's time, and find nothing.
"""

from __future__ import annotations

import gc

INTERVAL = 1.0
"""Seconds between two calls of :func:`collect_young`."""
_NEW_OBJECTS = 50_000
"""New objects that are searched at once, if they come within less than INTERVAL."""


def settle() -> None:
    """Take the objects that exist now for objects that live as long as the process. From now on, search for garbage rarely."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, 10, 10)
    gc.enable()


def collect_young() -> None:
    """Search the objects that are new since the last search: what an error's traceback holds must not wait for many others."""
    gc.collect(0)
