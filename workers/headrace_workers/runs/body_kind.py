"""Tells by the first bytes of a response's body whether it is server-sent events or one JSON value. Pure.

The content type is not believed: gateways label streams as JSON or HTML, and whole answers as streams.
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
# Possessive: it never goes back, so that a long beginning costs no more than its length.
_BEFORE = re.compile(rb"(?:[ \t\r\n]++|\xef\xbb\xbf)*+")
"""Blanks and byte order marks."""
_FIELDS = (b"data", b"event", b"id", b"retry")
_FIELD = re.compile(rb"(?:data|event|id|retry)?[ \t]*:|(?:data|event|id|retry)[\r\n]")
_LONGEST_FIELD = 16
"""Bytes that are enough to tell a field of an event from other words."""


class BodyKind(enum.Enum):
    """The ways in which the body of a provider's response is read."""

    NONE = "none"  # no head has come
    UNDECIDED = "undecided"  # a success, and no byte has come that tells
    EVENTS = "events"
    JSON = "json"  # or anything else that is no stream: it is read as a whole
    ERROR = "error"


class FirstBytes:
    """Decides about one body. ``expects_events`` is what the request and the content type make likely."""

    __slots__ = ("_expects_events", "_is_json", "_line_end")

    def __init__(self, *, expects_events: bool) -> None:
        self._expects_events = expects_events
        self._is_json = False
        self._line_end = 0  # of a first line that is a whole JSON value

    def told(self, body: bytearray, fresh: int) -> BodyKind:
        """Decide whether ``body`` is EVENTS, JSON or still UNDECIDED. Its bytes from ``fresh`` on have not been looked at.

        Takes blanks and byte order marks off its beginning. Each byte is looked at once, however the body is split.
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
        """The body ended. One that told nothing is what it was expected to be; an empty one is no stream."""
        return BodyKind.EVENTS if self._expects_events and body and not self._is_json else BodyKind.JSON

    def _look_at_words(self, start: bytes) -> BodyKind:
        if _FIELD.match(start):
            return BodyKind.EVENTS
        if BOM.startswith(start) or any(field.startswith(start) for field in _FIELDS):
            return BodyKind.UNDECIDED
        return BodyKind.EVENTS if self._expects_events and not start.startswith(b"<") else BodyKind.JSON

    def _look_at_lines(self, body: bytearray, fresh: int) -> BodyKind:
        """Tell one JSON value from many, a line each: these are events, and so is an error that a stream begins with."""
        if not self._line_end:
            end = body.find(b"\n", fresh)
            if end < 0:
                return BodyKind.UNDECIDED
            line = body[:end]
            if end > LIGHT and b"\r" in line:
                return BodyKind.JSON  # which is read at once, while each line of a stream has its turn
            try:
                check_json(line)
                if self._expects_events and end < LIGHT and is_error(msgspec.json.decode(line)):
                    return BodyKind.EVENTS
            except UNREADABLE:
                return BodyKind.JSON
            self._line_end = fresh = end
        if body[fresh:].strip(_BLANK):
            return BodyKind.EVENTS
        if len(body) - self._line_end > LIGHT:
            del body[self._line_end + 1 :]  # blanks say nothing, however many there are
        return BodyKind.UNDECIDED
