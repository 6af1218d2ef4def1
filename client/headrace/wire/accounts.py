"""Short hashes that stand for keys, addresses, users and tags in messages to the broker, and the family of a model. Pure.

The broker counts limits by key, address, user and tag, and must not know them. A hash tells two of them apart, and
nobody can find a key by its hash: a key has far more random digits than anybody can try.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b

from headrace.text.model_names import model_family as model_family  # noqa: PLC0414 - users of this module need both

_BYTES = 8


@lru_cache(maxsize=4096)
def short_hash(text: str) -> str:
    """Return 16 hex digits for a text; the empty text stays empty."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_BYTES).hexdigest() if text else ""


@lru_cache(maxsize=1024)
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
