"""How often tests repeat what they try: a few times, or many where ``scripts/test --long`` asks for it."""

from __future__ import annotations

import os
from typing import TypeVar

import pytest

T = TypeVar("T")


def is_long() -> bool:
    """Return whether tests repeat everything many times, and faults last as long as Headrace promises to bear them."""
    return bool(os.environ.get("HEADRACE_FAULTS_LONG"))


def repeated(few: T, many: T) -> T:
    """Return ``few``, or ``many`` in the long form."""
    return many if is_long() else few


def only_long(*cases: T) -> tuple[T, ...]:
    """Return further cases of a test for the long form, else none."""
    return cases if is_long() else ()


def times(few: int, many: int) -> pytest.MarkDecorator:
    """Give a test the argument ``times``, and mark it as slow and as one that tries its fault so often."""
    count = repeated(few, many)
    return pytest.mark.parametrize("times", [pytest.param(count, marks=[pytest.mark.slow, pytest.mark.tries(count)])])


long_test = pytest.mark.skipif(not is_long(), reason="a long test: scripts/test --long runs it")
"""Marks a test as one for the long form alone."""
