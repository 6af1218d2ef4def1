"""Parses server-sent events and lines of JSON: bytes of a response body in, events out. Pure.

The result does not depend on how the body is split into reads. The parser works on bytes, because the characters
U+2028, U+2029 and U+0085 stand unescaped inside JSON and end no line here. It holds the bytes of one event at most.
"""

from __future__ import annotations

import re

from headrace_workers.providers.shared.answer_limits import LIGHT, MAX_ELEMENTS, MAX_EVENT, MIB, too_large

MAX_EVENT_BYTES = MAX_EVENT

_BOM = b"\xef\xbb\xbf"
_START = b"data: "
_NAME = b"event: "
_BETWEEN = b"\n\ndata: "
_BLANK = b"\n\n"
_CRLF_BETWEEN = b"\r\n\r\ndata: "
_CRLF_BLANK = b"\r\n\r\n"
_LF = 10  # a number: to search for one byte as a number is several times faster
_CR = 13
_COLON = 58
# Possessive: it never backtracks, so a long string takes no memory for backtracking. A string without end goes to the
# end of its line.
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
MAX_EVENT_LINES = 100_000


class EventTooLargeError(ValueError):
    """A line or an event of the stream is longer than the limit. The parser cannot be used any more."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        size = f"{self.limit // MIB} MiB" if self.limit >= MIB else f"{self.limit} bytes"
        return f"a server-sent event is larger than {size}, or has over {MAX_EVENT_LINES} lines; ask for less at a time"


class SSEParser:
    """Takes the body, read by read. Returns the events that each read completes, as ``(name, data)``.

    The name is empty where the stream has none. ``id``, ``retry``, comments and unknown lines are ignored, with two
    exceptions: JSON without ``data:`` before it is an event without a name (lines of JSON, and errors of some
    providers), and JSON after ``error:`` (llama.cpp) is an event named ``error``.

    Some servers leave out the blank lines between events. So two JSON objects in a row are two events.
    ``is_between_events``: an event may begin with the next byte, and nothing of it has come.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_json",
        "_json_depth",
        "_later_name",
        "_limit",
        "_name",
        "_pending",
        "_size",
        "has_large",
        "is_between_events",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._pending = bytearray()  # the line whose end has not arrived
        self._name = ""
        self._later_name = ""  # an ``event:`` line after the data: of this event, or of the next one
        self._data: list[bytes] = []
        self._json: list[bytes] = []  # lines of JSON without field names
        self._json_depth = 0
        self._size = 0
        self._at_start = True
        self._after_cr = False
        self.is_between_events = False
        self.has_large = False  # whether an event is, or may be, so large that it must be weighed

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the events that these bytes complete."""
        # Nearly all reads hold only whole blocks of ``data: …`` and a blank line. They are split in one step.
        if self.is_between_events and data.startswith(_START):
            if data.endswith(_BLANK) and _CR not in data:
                return self._split_blocks(data)
            if data.endswith(_CRLF_BLANK):
                return self._split_crlf_blocks(data)
        elif self.is_between_events and data.startswith(_NAME) and data.endswith(_BLANK) and len(data) <= LIGHT:
            return self._split_named_blocks(data)
        return self._read(data)

    def finish(self) -> list[tuple[str, bytes]]:
        """Return the last event, if the body ended without the blank line after it."""
        line = bytes(self._pending)
        self._pending.clear()
        self.is_between_events = False
        return self._read_lines(line + _BLANK if line else b"\n")

    def _read(self, data: bytes) -> list[tuple[str, bytes]]:
        if self._at_start:
            data = self._without_bom(data)
        if self._after_cr or _CR in data:
            data = self._with_lf_only(data)
        self.is_between_events = False
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return []
        # A line is joined when its end has arrived, so that a long line is not copied with each read.
        lines = data if end == len(data) else data[:end]
        if self._pending:
            self._pending += lines
            lines = bytes(self._pending)
            self._pending.clear()
        if end < len(data):
            self._keep(data[end:])
        clean = not (self._data or self._name or self._json)
        if clean and lines.startswith(_START) and lines.endswith(_BLANK):
            events = self._split_blocks(lines)
        else:
            events = self._read_lines(lines)
        if len(data) > LIGHT or self._size > LIGHT:
            self.has_large = True
        is_within = self._pending or self._data or self._name or self._json
        self.is_between_events = not (is_within or self._after_cr or self._at_start)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        data = bytes(self._pending) + data
        self._pending.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            return data
        self._at_start = False
        return data.removeprefix(_BOM)

    def _with_lf_only(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF.

        A CR at the end becomes LF at once; an LF at the start of the next read is dropped.
        """
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if b"\r" not in data:
            return data
        self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _keep(self, data: bytes) -> None:
        self._pending += data
        if len(self._pending) > LIGHT:
            self.has_large = True
        if len(self._pending) > self._limit:
            raise EventTooLargeError(self._limit)

    def _split_blocks(self, blocks: bytes) -> list[tuple[str, bytes]]:
        payloads = blocks[len(_START) : -len(_BLANK)]
        if len(blocks) > LIGHT:
            self.has_large = True
        if len(blocks) > self._limit:
            return self._read_lines(blocks)
        if _LF not in payloads:
            return [("", payloads)]
        split = payloads.split(_BETWEEN)
        # This is exact: if no line end is left, only separators stood between the payloads.
        if _LF in b"".join(split):
            return self._read_lines(blocks)
        return [("", data) for data in split]

    def _split_named_blocks(self, blocks: bytes) -> list[tuple[str, bytes]]:
        """Split blocks of the lines ``event: …`` and ``data: …``. Everything else is read line by line."""
        events = []
        for block in blocks[: -len(_BLANK)].split(_BLANK):
            name, found, data = block.partition(b"\ndata: ")
            if (
                not found
                or not name.startswith(_NAME)
                or _LF in name
                or _LF in data
                or _CR in block
                or len(block) > self._limit
            ):
                return self._read(blocks)
            events.append((name[len(_NAME) :].decode("utf-8", "replace"), data))
        return events

    def _split_crlf_blocks(self, blocks: bytes) -> list[tuple[str, bytes]]:
        if len(blocks) > LIGHT:
            self.has_large = True
        split = blocks[len(_START) : -len(_CRLF_BLANK)].split(_CRLF_BETWEEN)
        payloads = b"".join(split)
        if _LF in payloads or _CR in payloads or len(blocks) > self._limit:
            return self._read(blocks)
        return [("", data) for data in split]

    def _read_lines(self, lines: bytes) -> list[tuple[str, bytes]]:
        """Read whole lines, exactly as the specification of server-sent events says."""
        events: list[tuple[str, bytes]] = []
        for line in lines[:-1].split(b"\n"):
            if not line:
                self._dispatch(events)
                continue
            if self._size + len(line) > self._limit:
                raise EventTooLargeError(self._limit)
            field, _, value = line.partition(b":")
            if field == b"data":
                if self._data and self._is_next_event(value):
                    self._dispatch_before_next(events)
                self._data.append(value[1:] if value.startswith(b" ") else value)
                self._size += len(line)
                self._check_lines(self._data)
            elif field == b"event":
                name = (value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace")
                if self._data:
                    self._later_name = name
                else:
                    self._name = name
            elif field == b"error" and value.lstrip().startswith(b"{"):
                self._dispatch(events)
                events.append(("error", value.strip()))
            elif (line.startswith((b"{", b"[")) or self._json) and not line[:1].isalpha() and line[0] != _COLON:
                self._read_json(line, events)
        return events

    def _read_json(self, line: bytes, events: list[tuple[str, bytes]]) -> None:
        """Take a line of JSON. The JSON is complete when its brackets outside of strings balance."""
        self._json.append(line)
        self._size += len(line)
        self._check_lines(self._json)
        rest, strings = _JSON_STRING.subn(b"", line, MAX_ELEMENTS)
        if strings == MAX_ELEMENTS:
            raise too_large(f"{MAX_ELEMENTS} values and keys in one piece of JSON")
        self._json_depth += rest.count(b"{") + rest.count(b"[") - rest.count(b"}") - rest.count(b"]")
        if self._json_depth <= 0:
            whole = b"\n".join(self._json)
            self._forget_json()
            self._dispatch(events)
            events.append(("", whole))

    def _check_lines(self, lines: list[bytes]) -> None:
        if len(lines) > MAX_EVENT_LINES:
            raise EventTooLargeError(self._limit)

    def _forget_json(self) -> None:
        self._json.clear()
        self._json_depth = 0
        self._size = sum(map(len, self._data))

    def _is_next_event(self, value: bytes) -> bool:
        """Whether a ``data:`` line begins a new event: a JSON object has ended before it, and it begins a value."""
        return value.lstrip().startswith((b"{", b"[")) and self._data[-1].rstrip().endswith(b"}")

    def _dispatch_before_next(self, events: list[tuple[str, bytes]]) -> None:
        """Complete the event, as a blank line does. An ``event:`` line after its data is the name of the next event."""
        later, self._later_name = self._later_name, ""
        self._dispatch(events)
        self._name = later

    def _dispatch(self, events: list[tuple[str, bytes]]) -> None:
        if self._data:
            events.append((self._later_name or self._name, b"\n".join(self._data)))
            self._data.clear()
            self._forget_json()
        self._name = self._later_name = ""
