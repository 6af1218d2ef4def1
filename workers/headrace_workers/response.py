"""The provider's answer as HTTP tells it: its head, what its body is to be read as, and a body that is read as a whole. Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping

_SUCCESS = 200
"""The one status that is a success here."""


class BodyKind(enum.Enum):
    """What the response's body is read as."""

    NONE = "none"
    EVENTS = "events"
    JSON = "json"
    ERROR = "error"


class Response:
    """One response, or its continuation by another. ``began_at`` is when the head of the first came."""

    __slots__ = ("began_at", "body", "content_type", "headers", "kind", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.content_type = ""
        self.kind = BodyKind.NONE
        self.body = bytearray()
        self.began_at: float | None = None

    @property
    def request_id(self) -> str | None:
        """The provider's id of the request."""
        return self.headers.get("x-request-id") or self.headers.get("request-id")

    def began(self, status: int, headers: Mapping[str, str], now: float, *, is_streamed: bool) -> None:
        """The head is there. ``headers`` has lower-case names; ``is_streamed`` says that a stream was asked for."""
        if self.began_at is None:
            self.began_at = now
        self.status = status
        self.headers = headers
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if status != _SUCCESS:
            self.kind = BodyKind.ERROR
        elif self._is_event_stream(is_streamed):
            self.kind = BodyKind.EVENTS
        else:
            self.kind = BodyKind.JSON

    def is_maybe_billed(self, *, was_sent: bool) -> bool:
        """Return whether tokens may have been spent on an answer that nobody read to its end."""
        return self.status == _SUCCESS or (not self.status and was_sent)

    def _is_event_stream(self, is_streamed: bool) -> bool:
        """A provider that streams says so; one that was asked to may leave it out."""
        if self.content_type == "text/event-stream":
            return True
        return is_streamed and self.content_type not in ("application/json", "text/html")
