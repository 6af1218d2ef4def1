"""Decides from the first bytes of a response's body whether it is server-sent events or one JSON value. Pure.

The content type does not decide. Some gateways label streams as JSON or HTML, and whole answers as streams.
"""

from __future__ import annotations

import enum
import re

import msgspec

from headrace_workers.providers.shared.answer_limits import LIGHT
from headrace_workers.providers.shared.lenient_json import UNREADABLE, check_json
from headrace_workers.providers.shared.provider_errors import is_error

BOM = b"\xef\xbb\xbf"

_BLANK = b" \t\r\n"
# Possessive quantifiers never go back: the time grows with the length only.
_BEFORE = re.compile(rb"(?:[ \t\r\n]++|\xef\xbb\xbf)*+")
"""Blanks and byte order marks."""
_FIELDS = (b"data", b"event", b"id", b"retry")
_FIELD = re.compile(rb"(?:data|event|id|retry)?[ \t]*:|(?:data|event|id|retry)[\r\n]")
_LONGEST_FIELD = 16
"""Bytes that are enough to recognise the field of an event."""


class BodyKind(enum.Enum):
    """How the body of a provider's response is read."""

    NONE = "none"  # the response's head has not come
    UNDECIDED = "undecided"  # a success, and its first bytes do not decide yet
    EVENTS = "events"
    JSON = "json"  # or anything else that is not a stream; it is read as a whole
    ERROR = "error"


class FirstBytes:
    """Decides about one body. ``expects_events``: the request and the content type suggest a stream."""

    __slots__ = ("_expects_events", "_is_json", "_line_end", "_says_lines")

    def __init__(self, *, expects_events: bool, says_lines: bool = False) -> None:
        self._expects_events = expects_events
        self._says_lines = says_lines and expects_events
        self._is_json = False
        self._line_end = 0  # the length of the first line, once it is known to be a whole JSON value

    def kind_of(self, body: bytearray, fresh: int) -> BodyKind:
        """Return whether ``body`` is EVENTS, JSON or still UNDECIDED. Its bytes from ``fresh`` on are new.

        Removes blanks and byte order marks at its beginning. Reads each byte once, however the body is split.
        """
        if self._is_json:
            return self._look_at_lines(body, fresh)
        if before := _BEFORE.match(body):
            del body[: before.end()]
        if body.startswith((b"{", b"[")):
            self._is_json = True
            return self._look_at_lines(body, 0)
        return self._look_at_words(bytes(body[:_LONGEST_FIELD]))

    def ended(self, body: bytearray) -> BodyKind:
        """Decide at the end of the body.

        If its bytes did not decide, the expectation does. An empty body is not a stream.
        """
        return BodyKind.EVENTS if self._expects_events and body and not self._is_json else BodyKind.JSON

    def _look_at_words(self, start: bytes) -> BodyKind:
        if _FIELD.match(start):
            return BodyKind.EVENTS
        if BOM.startswith(start) or any(field.startswith(start) for field in _FIELDS):
            return BodyKind.UNDECIDED
        return BodyKind.EVENTS if self._expects_events and not start.startswith(b"<") else BodyKind.JSON

    def _look_at_lines(self, body: bytearray, fresh: int) -> BodyKind:
        """Decide for a body that begins with JSON.

        Several lines, each a JSON value, are events. So is an error in the first line.
        """
        if not self._line_end:
            end = body.find(b"\n", fresh)
            if end < 0:
                return BodyKind.UNDECIDED
            line = body[:end]
            if end > LIGHT and b"\r" in line:
                return BodyKind.JSON  # one long line with "\r" is read as a whole
            try:
                check_json(line)
                if self._says_lines or (self._expects_events and end < LIGHT and is_error(msgspec.json.decode(line))):
                    return BodyKind.EVENTS
            except UNREADABLE:
                return BodyKind.JSON
            self._line_end = fresh = end
        if body[fresh:].strip(_BLANK):
            return BodyKind.EVENTS
        if len(body) - self._line_end > LIGHT:
            del body[self._line_end + 1 :]  # do not keep many blanks
        return BodyKind.UNDECIDED
