"""The POST request that a wire format builds and the HTTP client sends. Pure data."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.text.shown_address import without_password


class HttpRequest(msgspec.Struct, frozen=True, gc=False):
    """A POST request. ``headers`` hold no content-length, host or accept-encoding: the HTTP client adds these."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        # The headers hold the key: never show them.
        return f"HttpRequest(url={without_password(self.url)!r}, body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: never the key, nor the prompt."""
        return [("url", without_password(self.url))]
