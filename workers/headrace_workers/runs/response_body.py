"""One HTTP response of a provider: its head, how its body is read, and the bytes of a body that is read as a whole.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.wire.messages import FailureKind
from headrace_workers.providers.shared.wire_format import ProviderFailure
from headrace_workers.runs.body_kind import BOM, BodyKind, FirstBytes

_SUCCESSES = range(200, 300)
_JSON_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/x-jsonlines"})
"""Content types of a stream of JSON values, one in each line."""
_WITHOUT_BODY = frozenset({204, 205})
"""Successes that have no body, as HTTP defines them."""


_NO_HEADERS: Mapping[str, str] = {}


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of the request, as the head of its response says it."""
    return headers.get("x-request-id") or headers.get("request-id")


class Response:
    """One response, or several that continue one answer. ``began_at`` is when the head of the first one came.

    ``expects_events``: the request and the content type suggest a stream. The body's first bytes decide. ``headers`` are those of
    an error; of a success only the ``request_id`` is kept: many streams may be open for long.
    """

    __slots__ = (
        "_first_bytes", "began_at", "body", "content_type", "expects_events", "headers", "kind", "request_id", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = _NO_HEADERS
        self.request_id: str | None = None
        self.content_type = ""
        self.expects_events = False
        self.kind = BodyKind.NONE
        self.body = bytearray()
        self.began_at: float | None = None
        self._first_bytes: FirstBytes | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status says that an answer follows."""
        return self.status in _SUCCESSES and self.status not in _WITHOUT_BODY

    def began(self, status: int, headers: Mapping[str, str], now: float, *, is_streamed: bool) -> None:
        """The head has come. ``headers`` has lower-case names. ``is_streamed``: a stream was requested."""
        if self.began_at is None:
            self.began_at = now
        self.status = status
        self.request_id = request_id_of(headers)
        self.body.clear()
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self.expects_events = self._says_events(is_streamed)
        is_success = self.is_success
        self.headers = _NO_HEADERS if is_success else headers
        self.kind = BodyKind.UNDECIDED if is_success else BodyKind.ERROR
        says_lines = self.content_type in _JSON_LINES
        first_bytes = FirstBytes(expects_events=self.expects_events, says_lines=says_lines)
        self._first_bytes = first_bytes if is_success else None

    def add(self, data: bytes) -> None:
        """Keep a piece of a body that is not known to be a stream. Decide its kind as soon as the bytes allow it."""
        fresh = len(self.body)
        self.body += data
        if self.kind is BodyKind.UNDECIDED and self._first_bytes is not None:
            self.kind = self._first_bytes.kind_of(self.body, fresh)

    def ended(self) -> None:
        """The body has ended: decide its kind if it is undecided."""
        if self.kind is BodyKind.UNDECIDED and self._first_bytes is not None:
            self.kind = self._first_bytes.ended(self.body)

    def take_body(self) -> bytes:
        """Return the bytes that were kept, without a byte order mark, and forget them."""
        body = bytes(self.body)
        self.body.clear()
        return body.removeprefix(BOM)

    def failure(self, kind: FailureKind, reason: str, *, may_retry: bool = False) -> ProviderFailure:
        """Return a failure with the response's status, if it has one. ``may_retry``: another attempt may succeed."""
        return ProviderFailure(kind, reason, self.status or None, may_retry=may_retry)

    def is_maybe_billed(self, *, was_sent: bool) -> bool:
        """Return whether the provider may bill tokens for an answer that was not read to its end."""
        return self.is_success or (not self.status and was_sent)

    def _says_events(self, is_streamed: bool) -> bool:
        """Return whether a stream is likely. Some providers stream as requested, but send another content type."""
        if self.content_type == "text/event-stream":
            return True
        return is_streamed and self.content_type not in ("application/json", "text/html")
