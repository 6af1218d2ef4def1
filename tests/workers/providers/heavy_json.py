"""Large lists of JSON, and how long a worker may take for them."""

from __future__ import annotations

CHEAP = 0.5
"""Seconds of CPU that one turn of a worker's loop may take."""


def list_of(item: bytes, count: int) -> bytes:
    return b"[" + (item + b",") * (count - 1) + item + b"]"
