"""Short hashes that stand for keys, addresses, users and tags in messages to the broker, and the family of a model. Pure.

The broker counts limits by key, address, user and tag, and must not know them. A hash tells two of them apart, and
nobody can find a key by its hash: a key has far more random digits than anybody can try.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

_BYTES = 8
_SUFFIX = re.compile(r"(-latest|[-@](20\d\d-?[01]\d-?[0-3]\d|\d{4}))$")
"""The end of a model's name that says which version it is: ``-2024-08-06``, ``-20241022``, ``@20240620``, ``-0613``."""


@lru_cache(maxsize=4096)
def short_hash(text: str) -> str:
    """Return 16 hex digits for a text; the empty text stays empty."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).hexdigest() if text else ""


def account_of(api_key: str | None, base_url: str | None) -> str:
    """Return the account of a run: the hashes of its key and of its address, with an @ between them.

    ``None``: the run uses the engine's own key, or the engine's address. Its half is empty then. ``-`` stands for "no
    key at all". A run that gives neither has an empty account.
    """
    if api_key is None and base_url is None:
        return ""
    key = "" if api_key is None else short_hash(api_key) or "-"
    address = "" if base_url is None else short_hash(base_url.rstrip("/")) or "-"
    return f"{key}@{address}"


@lru_cache(maxsize=4096)
def model_family(model: str) -> str:
    """Return the name of a model without its version: providers limit all versions of one model together."""
    return _SUFFIX.sub("", model)
