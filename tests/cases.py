"""Many short cases in one test. To collect and report a test costs milliseconds, which is more than a short case takes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def case(*facts: object) -> Iterator[None]:
    """Name a case in the failure of what is tried inside."""
    try:
        yield
    except BaseException as problem:
        problem.add_note(f"in the case {', '.join(map(repr, facts))}"[:1000])
        raise


def each(names: str | tuple[str, ...], cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Try all cases in one test, where ``pytest.mark.parametrize`` would make a test of each.

    The failure names its case. Fixtures are shared by the cases. A test without cases is skipped.
    """
    parameters = (names,) if isinstance(names, str) else names
    values = [(value,) if isinstance(names, str) else tuple(value) for value in cases]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def try_each(**fixtures: Any) -> None:
            if not values:
                pytest.skip("no cases")
            for value in values:
                with case(*value):
                    test(**fixtures, **dict(zip(parameters, value, strict=True)))

        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in parameters]
        vars(try_each)["__signature__"] = signature.replace(parameters=kept)
        return try_each

    return decorate
