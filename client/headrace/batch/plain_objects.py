"""Turns objects of other libraries into values that JSON has: pydantic's models, and numbers of numpy. Pure."""

from __future__ import annotations


def plain_object(value: object) -> object:
    """Return a value that msgspec cannot write as one that it can. Raises TypeError if there is none.

    Both libraries are known by their methods, so that they need not be installed.
    """
    if callable(dump := getattr(value, "model_dump", None)):
        return dump(mode="json")
    if getattr(value, "ndim", None) == 0 and callable(item := getattr(value, "item", None)):  # a number of numpy
        return item()
    raise TypeError(f"a {type(value).__name__} has no form in JSON")
