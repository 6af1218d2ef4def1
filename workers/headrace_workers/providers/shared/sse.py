"""Server-sent events: from the bytes of a response body to events, the same for every split into reads.

Works on bytes only, since U+2028, U+2029 and U+0085 stand unescaped inside JSON and end no line here. Never does I/O, never
looks into the data, and never holds more than one event's bytes.
"""

from __future__ import annotations

import re

from headrace_workers.providers.shared.answer_limits import LIGHT, MAX_ELEMENTS, MAX_EVENT, MIB, too_large

MAX_EVENT_BYTES = MAX_EVENT

_BOM = b"\xef\xbb\xbf"
_START = b"data: "
_BETWEEN = b"\n\ndata: "
_BLANK = b"\n\n"
_CRLF_BETWEEN = b"\r\n\r\ndata: "
_CRLF_BLANK = b"\r\n\r\n"
_LF = 10  # as numbers: a search for one byte is several times faster than for bytes
_CR = 13
_COLON = 58
# Possessive: it never goes back, so that a long string costs no memory for the places to go back to. A string without end goes
# to the end of its line, which is looked at once.
_JSON_STRING = re.compile(rb'"(?:[^"\\]++|\\.?)*+(?:"|\Z)', re.DOTALL)
MAX_EVENT_LINES = 100_000


class EventTooLargeError(ValueError):
    """A line or an event of the stream is longer than the limit. The parser is of no further use."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        size = f"{self.limit // MIB} MiB" if self.limit >= MIB else f"{self.limit} bytes"
        return f"a server-sent event is larger than {size}, or has over {MAX_EVENT_LINES} lines; ask for less at a time"


class SSEParser:
    """Takes the body read by read and returns the events completed by each as ``(name, data)``.

    The name is empty where the stream gives none. ``id``, ``retry``, comments and unknown lines are ignored, but for two
    kinds, in which some providers say errors: JSON that stands in the body as it is, without ``data:``, is an event without
    name, and JSON behind ``error:`` (llama.cpp) is an event of that name.

    Some servers leave out the blank lines. Two objects that follow each other are two events: no JSON holds them side by side.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_between_events",
        "_data",
        "_json",
        "_json_depth",
        "_later_name",
        "_limit",
        "_name",
        "_pending",
        "_size",
        "has_large",
    )

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._pending = bytearray()  # of a line whose end has not come
        self._name = ""
        self._later_name = ""  # that stands behind the data: the event's own, or that of the next one
        self._data: list[bytes] = []
        self._json: list[bytes] = []  # lines of JSON without field names
        self._json_depth = 0
        self._size = 0
        self._at_start = True
        self._after_cr = False
        self._between_events = False
        self.has_large = False  # whether an event was, or may be, one that is to be weighed

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """Return the events that these bytes complete."""
        # Nearly all reads hold whole blocks ``data: …`` and a blank line, nothing else: those are split in one go.
        if self._between_events and data.startswith(_START):
            if data.endswith(_BLANK) and _CR not in data:
                return self._split_blocks(data)
            if data.endswith(_CRLF_BLANK):
                return self._split_crlf_blocks(data)
        return self._read(data)

    def finish(self) -> list[tuple[str, bytes]]:
        """Return the event that the end of the body completes, if any: some providers leave out the last blank line."""
        line = bytes(self._pending)
        self._pending.clear()
        self._between_events = False
        return self._read_lines(line + _BLANK if line else b"\n")

    def _read(self, data: bytes) -> list[tuple[str, bytes]]:
        if self._at_start:
            data = self._without_bom(data)
        if self._after_cr or _CR in data:
            data = self._with_lf_only(data)
        self._between_events = False
        end = data.rfind(b"\n") + 1
        if not end:
            self._keep(data)
            return []
        # A kept line is joined only when its end has come, so that a long one is not copied with each read.
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
        self._between_events = not (is_within or self._after_cr or self._at_start)
        return events

    def _without_bom(self, data: bytes) -> bytes:
        data = bytes(self._pending) + data
        self._pending.clear()
        if len(data) < len(_BOM) and _BOM.startswith(data):
            return data
        self._at_start = False
        return data.removeprefix(_BOM)

    def _with_lf_only(self, data: bytes) -> bytes:
        """Turn CRLF and CR into LF; a CR at the end counts at once, and an LF that follows it in the next read is dropped."""
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
        # Exact, not a guess: where no line end is left, the separators were all that there is between the payloads.
        if _LF in b"".join(split):
            return self._read_lines(blocks)
        return [("", data) for data in split]

    def _split_crlf_blocks(self, blocks: bytes) -> list[tuple[str, bytes]]:
        if len(blocks) > LIGHT:
            self.has_large = True
        split = blocks[len(_START) : -len(_CRLF_BLANK)].split(_CRLF_BETWEEN)
        payloads = b"".join(split)
        if _LF in payloads or _CR in payloads or len(blocks) > self._limit:
            return self._read(blocks)
        return [("", data) for data in split]

    def _read_lines(self, lines: bytes) -> list[tuple[str, bytes]]:
        """Read lines, each with its end, by the letter of the specification."""
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
        """Take a line of JSON; it is complete when the brackets balance that stand outside of its strings."""
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
        """Whether a further line of data cannot belong to the event so far: an object has ended, and the line begins a value."""
        return value.lstrip().startswith((b"{", b"[")) and self._data[-1].rstrip().endswith(b"}")

    def _dispatch_before_next(self, events: list[tuple[str, bytes]]) -> None:
        """Give the event so far, as at a blank line; a name that stands behind its data is that of the next."""
        later, self._later_name = self._later_name, ""
        self._dispatch(events)
        self._name = later

    def _dispatch(self, events: list[tuple[str, bytes]]) -> None:
        if self._data:
            events.append((self._later_name or self._name, b"\n".join(self._data)))
            self._data.clear()
            self._forget_json()
        self._name = self._later_name = ""
