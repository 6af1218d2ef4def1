"""``Request``: a whole HTTP request to the simulated provider."""

from __future__ import annotations

import msgspec

CONTROL_PREFIX = "/_headrace/"


class Request(msgspec.Struct, frozen=True):
    """A whole HTTP request. Header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    query: str = ""

    @property
    def is_control(self) -> bool:
        """Whether the request is from ``SimulatedProvider`` itself."""
        return self.path.startswith(CONTROL_PREFIX)
