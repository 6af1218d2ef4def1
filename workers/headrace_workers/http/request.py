"""HttpRequest: the POST request that a wire format builds and the HTTP client sends. Pure data."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.text.shown_address import without_password


class HttpRequest(msgspec.Struct, frozen=True):
    """A POST to make. ``headers`` hold no content-length, host or accept-encoding; those are the HTTP client's."""

    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def __repr__(self) -> str:
        # The headers carry the key.
        return f"HttpRequest(url={without_password(self.url)!r}, body={len(self.body)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no key, no prompt."""
        return [("url", without_password(self.url))]
