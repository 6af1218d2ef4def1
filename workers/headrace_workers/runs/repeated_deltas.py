"""Reads the text deltas of a stream by comparing bytes: all bytes but the text, and in some formats a number, are the same. Pure.

The bytes before and after the text are learned from one delta, which the mapper has read. Later deltas need no parser
and no decoder for these bytes: they are compared. JSON with another string in the same place has the same meaning except
for the text. So the texts are the same as those that parser and mapper would give.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import itemgetter

import msgspec

from headrace.types import RunEvent
from headrace_workers.http.lone_chunks import LINE_END, SIZE_LINES
from headrace_workers.providers.shared.answer_limits import LIGHT
from headrace_workers.providers.shared.text_span import TextSpan

BLANK = b"\n\n"
_DATA = b"data: "
_EVENT = b"event: "
_SEARCHED = 1024
"""Bytes up to which the bytes between two texts are searched for. In more bytes, cutting at the blank lines is faster."""

_ZERO = ord("0")

_decode_text = msgspec.json.Decoder(str).decode
_decode_texts = msgspec.json.Decoder(list[str]).decode


class RepeatedDeltas:
    """The bytes ``before`` and ``after`` the text of a delta, with its blank line. The mapper keeps the texts in ``kept``."""

    __slots__ = (
        "_after",
        "_before",
        "_end",
        "_ends_chunk",
        "_in_chunk",
        "_less_than",
        "_size",
        "_skipped",
        "_start",
        "_stop",
        "_text_of",
        "kept",
    )
    _searched = _SEARCHED

    def __init__(self, before: bytes, after: bytes, kept: list[str], between: bytes = b"") -> None:
        self.kept = kept
        self._text_of: Callable[[bytes], str] = _decode_text
        self._before = before
        self._after = after
        self._start, self._stop = len(before), -len(after)
        self._end = after[: -len(BLANK)]
        self._size = len(before) + len(between) + len(self._end)
        # The same delta as one whole HTTP chunk: a size line of the same length stands before it, and a line end behind it.
        self._skipped = len(b"%x" % (self._size + len(BLANK))) + len(LINE_END)
        self._in_chunk = slice(self._skipped + self._start, self._stop - len(LINE_END))
        self._ends_chunk = after + LINE_END
        self._less_than = min(2 * self._size, len(SIZE_LINES))

    def take_chunk(self, data: bytes, events: list[RunEvent]) -> bool:
        """Keep the text of a read that is exactly one HTTP chunk with one such delta, and append it to ``events``.

        Return False if the read is anything else. The read begins where an HTTP chunk begins.
        """
        size = len(data)
        if not (
            size < self._less_than
            and data.startswith(SIZE_LINES[size])
            and data.startswith(self._before, self._skipped)
            and data.endswith(self._ends_chunk)
        ):
            return False
        try:
            text = self._text_of(data[self._in_chunk])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if not text:
            return False
        self.kept.append(text)
        events.append(text)
        return True

    def take(self, blocks: bytes) -> list[str] | None:
        """Keep and return the texts of server-sent events. Return None if not all of them are such deltas with a text."""
        if not (blocks.startswith(self._before) and blocks.endswith(self._after)):
            return None
        try:
            if len(blocks) < 2 * self._size:
                texts = [self._text_of(blocks[self._start : self._stop])]
            elif len(blocks) > self._searched:
                texts = self._texts_of_many(blocks)
            else:
                texts = _texts(blocks[self._start : self._stop].split(self._after + self._before))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if "" in texts:
            return None
        self.kept += texts
        return texts

    def take_first(self, data: bytes) -> tuple[list[str], bytes]:
        """Keep and return the texts of the deltas with which ``data`` begins, and the rest of it.

        The rest may be other events, and the beginning of one. Return no texts if there is another event before the last delta.
        """
        end = data.rfind(self._after) + len(self._after)
        texts = self.take(data[:end]) if end >= len(self._after) else None
        return (texts, data[end:]) if texts else ([], data)

    def _texts_of_many(self, blocks: bytes) -> list[str]:
        """Return the texts of many events. Raises DecodeError or UnicodeDecodeError if not all of them are such deltas."""
        # Python finds line ends in half of the time in which it finds blank lines.
        line_start, lines_before = self._before.rfind(b"\n") + 1, self._before.count(b"\n")
        lines = blocks.split(b"\n")[lines_before : -1 : lines_before + len(BLANK)]
        cut = itemgetter(slice(self._start - line_start, self._stop + len(BLANK)))
        strings = list(map(cut, lines))
        # Made here, and not kept: most of the streams that stay open for long are slow, and have one event in each read.
        between = self._after + self._before
        # One comparison of all bytes is faster than two comparisons for each event.
        if b"%b%b%b" % (self._before, between.join(strings), self._after) != blocks:
            raise msgspec.DecodeError("other events")
        return _texts(strings)


class NumberedDeltas(RepeatedDeltas):
    """Deltas that also differ in a number. It stands before the text, or behind it; ``between`` are the bytes between the two."""

    __slots__ = ("_between", "_is_number_first")
    _searched = 0  # the bytes between two texts are not the same

    def __init__(self, before: bytes, between: bytes, after: bytes, kept: list[str], *, is_number_first: bool) -> None:
        super().__init__(before, after, kept, between)
        self._between = between
        self._is_number_first = is_number_first
        self._text_of = self._text_beside_number

    def _text_beside_number(self, middle: bytes) -> str:
        """Return the text of what is not the same in each delta. Raises DecodeError for anything but a number and a string."""
        # A number has none of the bytes between, so the first or the last place is theirs.
        if self._is_number_first:
            number, _, string = middle.partition(self._between)
        else:
            string, _, number = middle.rpartition(self._between)
        if not number.isdigit() or (number[0] == _ZERO and len(number) > 1):
            raise msgspec.DecodeError("no number")
        return _decode_text(string)

    def _texts_of_many(self, blocks: bytes) -> list[str]:
        events = blocks.split(BLANK)[:-1]
        if not all(map(self._fits, events)):
            raise msgspec.DecodeError("other events")
        end = -len(self._end)
        return [self._text_of(event[self._start : end]) for event in events]

    def _fits(self, event: bytes) -> bool:
        return len(event) >= self._size and event.startswith(self._before) and event.endswith(self._end)


NO_DELTAS = RepeatedDeltas(b"", b"", [])
"""In place of unknown bytes: takes no chunk."""


def _texts(strings: list[bytes]) -> list[str]:
    """Return the texts of JSON strings. Raises DecodeError or UnicodeDecodeError for anything but strings."""
    # No JSON string has a line end within. So each item between two line ends is one whole string.
    texts = _decode_texts(b"[%b]" % b",\n".join(strings))
    if len(texts) != len(strings):
        raise msgspec.DecodeError("more strings than events")
    return texts


def learned(block: bytes, text_span: Callable[[str, bytes], TextSpan | None]) -> RepeatedDeltas | None:
    """Return the bytes around the text of a server-sent event, which is given without its blank line.

    ``text_span``: the mapper's (see :class:`RepeatingMapper`), which has read the event. Return None if the event is
    anything but a plain text delta in its usual form.
    """
    name, start = "", len(_DATA)
    if block.startswith(_EVENT):
        line = block.partition(b"\n")[0]
        name, start = line[len(_EVENT) :].decode("utf-8", "replace"), len(line) + 1 + len(_DATA)
    data = block[start:]
    if block[start - len(_DATA) : start] != _DATA or b"\n" in data or b"\r" in block or len(block) > LIGHT:
        return None
    span = text_span(name, data)
    if span is None:
        return None
    text, number = (span.start, span.end), span.number
    if number is None:
        return RepeatedDeltas(block[: start + span.start], data[span.end :] + BLANK, span.kept)
    first, last = sorted((text, number))
    before, between, after = block[: start + first[0]], data[first[1] : last[0]], data[last[1] :] + BLANK
    return NumberedDeltas(before, between, after, span.kept, is_number_first=first is number)
