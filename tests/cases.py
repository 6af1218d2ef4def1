"""Many short cases in one test. To collect and report a test costs milliseconds, which is more than a short case takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def case(*facts: object) -> Iterator[None]:
    """Name a case in the failure of what is tried inside."""
    try:
        yield
    except BaseException as problem:
        problem.add_note(f"in the case {', '.join(map(repr, facts))}")
        raise
