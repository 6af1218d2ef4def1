"""What a batch job's journal keeps of the arguments of a job, to explain a change of the rows with them. Pure."""

from __future__ import annotations

import hashlib

import msgspec

_MOST_SHOWN = 200
"""Characters of a text."""
_HASH_BYTES = 8


def shown_setting(value: object) -> str:
    """Return a value for the journal. Of all but a text or a number only a hash is kept: a tool may have a token in it."""
    if isinstance(value, str | int | float):
        return str(value)[:_MOST_SHOWN]
    try:
        plain = msgspec.json.encode(value, enc_hook=_name, order="sorted")
    except (TypeError, ValueError, RecursionError):
        plain = type(value).__name__.encode()
    return f"{type(value).__name__} {hashlib.blake2b(plain, digest_size=_HASH_BYTES).hexdigest()}"


def _name(value: object) -> str:
    """Return what stands for a function, or for another object that is no plain value. It is the same in each process."""
    return getattr(value, "__qualname__", None) or type(value).__name__
