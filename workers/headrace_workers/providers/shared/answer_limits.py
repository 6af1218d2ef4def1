"""Limits on the size of one answer: bytes, JSON values, text.

They bound the time and memory of one turn of the loop. Pure. All streams of a worker share one event loop: while one
answer is decoded, all others wait. A thread would not help, because decoding JSON holds the interpreter's lock. So
large JSON is *weighed* before it is decoded: its values are counted, which takes about a hundredth of the time.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import accumulate, islice

MIB = 1024 * 1024

MAX_BODY = 32 * MIB
"""Bytes of a body that is read as a whole, after decompression."""
MAX_VECTORS_BODY = 48 * MIB
"""The same for a body with vectors, which have limits of their own."""
MAX_EVENT = 32 * MIB
"""Bytes of a server-sent event. An image comes in one event: so much as it may have in a body."""
MAX_ELEMENTS = 200_000
"""Values and keys in the JSON of one body or event, and in the arguments of all tool calls together."""
MAX_DEPTH = 200
"""Levels of nesting in this JSON."""
MAX_WIDE = 8 * MIB
"""Bytes of JSON that is not plain ASCII or has escapes. Long ASCII strings in it, such as images, are not counted."""
MAX_TEXT = 16 * MIB
"""Characters of a run's text, reasoning, refusal and arguments together, if all of them are ASCII."""
MAX_WIDE_TEXT = 4 * MIB
"""The same for other text. In Python, one wide character makes each character of its string take up to four bytes."""
MAX_PIECES = 1_000_000
"""Pieces in which a run's text may come."""
MAX_CALLS = 4096
"""Tool calls of a run."""
MAX_PARTS = 4096
"""Items, blocks or parts of an answer that are kept as they came."""
MAX_CONTINUATIONS = 100
"""Further requests that one answer may need, where the provider continues it."""
MAX_TOKEN = 64 * 1024
"""Characters of the continuation token that each further request carries."""
MAX_KEPT = 64 * MIB
"""Estimated bytes of memory for what a run keeps beside its text: blocks, items, citations, signatures, further
choices."""

MAX_LOGPROBS = 16 * MIB
"""Bytes of JSON of the log probabilities that a run asked for. In memory they take about twice as much."""

MAX_LOGPROB_ENTRIES = 300_000
"""Tokens and alternatives in them."""

MAX_HALVES = 25_000
"""Lone halves of surrogate pairs, and surrogates written as UTF-8 bytes. Each costs about a microsecond to mend."""

MAX_LOOKED_AT = 64 * MIB
"""Characters that may be searched while one answer is checked. The search takes some hundredths of a second."""

MAX_FAR_EXPONENTS = 2000
"""Numbers with exponents of three digits in one piece of JSON: ``1e308`` takes 20 µs to decode, ``1.5`` takes 20 ns."""
MAX_LONG_NUMBERS = 40_000
"""Numbers of 20 digits in one piece of JSON; a longer number counts several times. Each takes microseconds to
decode."""

LIGHT = 32 * 1024
"""Bytes up to which JSON is not weighed: it takes milliseconds at most, whatever it holds."""

_BLOCK = 64 * 1024
_ELEMENT = 64
_ENTRY = 512
"""Estimated bytes of memory for one JSON value, and for one thing that is kept, beside its own bytes."""
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # +1 and -1 as signed bytes

_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F]|\xed[\xa0-\xbf])")

_ALIKE = bytes.maketrans(b"123456789.E", b"0000000000e")
_FAR_EXPONENT = b"e000"
_LONG_NUMBER = b"0" * 20
_LONG_POWER = b"0" * 20 + b"e"
_LONG_FRACTION = b"0" * 28
_IN_NAMES = 4
"""Letters e in the keys of one vector's object (``embedding``, ``index`` and so on)."""
_HONEST_BYTES = 25
"""Bytes for one number of an ordinary vector. A body with more bytes has very long numbers, or no numbers."""


class LimitError(Exception):
    """An answer exceeds a limit; the text says which limit, and what to do.

    It is no ValueError, so that no code takes it for invalid JSON.
    """


def too_large(what: str, advice: str = "") -> LimitError:
    """Return the error for an answer with more than ``what``."""
    return LimitError(f"the provider's answer holds more than {what}; {advice or 'ask for less at a time'}")


def weigh(data: bytes) -> None:
    """Raise LimitError for JSON that would take too much time or memory to decode. Invalid JSON may pass."""
    if len(data) <= LIGHT:
        return
    if len(data) > MAX_WIDE and (not data.isascii() or b"\\" in data):
        _weigh_text(data)
    if data.count(b"\\ud") + data.count(b"\\uD") + data.count(b"\xed") > MAX_HALVES:
        _check_halves(_halves_in(data))
    outside = b""
    opens = data.count(b"[") + data.count(b"{")
    if opens > MAX_DEPTH or opens + data.count(b",") + data.count(b":") > MAX_ELEMENTS:
        if len(data) > MIB:
            _weigh_exactly(data[:MIB])  # the first MiB alone is mostly enough, and faster
        outside = _weigh_exactly(data)
    if outside:
        _check_numbers(outside)
    else:
        weigh_numbers(data)


def weigh_numbers(data: bytes) -> None:
    """Raise LimitError for JSON with many numbers that are slow to decode."""
    if _has_costly_numbers(data):
        _check_numbers(_outside_strings(data))


def _check_numbers(outside: bytes) -> None:
    if _has_costly_numbers(outside):
        raise too_large(f"{MAX_FAR_EXPONENTS} numbers with large exponents, or {MAX_LONG_NUMBERS} long numbers")


def _check_halves(count: int) -> int:
    if count > MAX_HALVES:
        raise too_large(f"{MAX_HALVES} halves of characters")
    return count


def _halves_in(data: bytes) -> int:
    """Return the number of lone halves of characters in JSON. Counting stops one above the limit."""
    if not (b"\\ud" in data or b"\\uD" in data or b"\xed" in data):
        return 0
    # An escaped backslash (\\) begins no escape. Two other characters take its place, so that its neighbours do not
    # join.
    halves = (found for found in _HALF.finditer(data.replace(b"\\\\", b"__")) if found[1] is not None)
    return sum(1 for _ in islice(halves, MAX_HALVES + 1))


def elements_in(data: bytes) -> int:
    """Return an upper bound for the values and keys in JSON: punctuation inside strings is counted too."""
    return data.count(b",") + data.count(b":") + data.count(b"[") + data.count(b"{")


def _weigh_exactly(data: bytes) -> bytes:
    """Check the values, keys and levels outside of strings. Return the JSON without its strings."""
    if data.count(b'"') - data.count(b'\\"') > 2 * MAX_ELEMENTS:
        raise too_large(f"{MAX_ELEMENTS} values and keys in one piece of JSON")
    outside = _outside_strings(data)
    if elements_in(outside) > MAX_ELEMENTS:
        raise too_large(f"{MAX_ELEMENTS} values and keys in one piece of JSON")
    steps = array("b", outside.translate(_STEPS, _NO_BRACKETS))
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise too_large(f"{MAX_DEPTH} levels of nesting")
    return outside


def _outside_strings(data: bytes) -> bytes:
    return b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _has_costly_numbers(data: bytes) -> bool:
    """Whether JSON has too many numbers that are slow to decode. Digits inside strings are counted too."""
    far, long = 0, 0
    for start in range(0, len(data), MIB):
        alike = data[start : start + MIB].translate(_ALIKE, b"+-")
        far += alike.count(_FAR_EXPONENT)
        long += alike.count(_LONG_NUMBER)
        if far > MAX_FAR_EXPONENTS or long > MAX_LONG_NUMBERS:
            return True
    return False


def weigh_vectors(data: bytes) -> None:
    """Raise LimitError for vectors that would take too long to decode.

    Numbers of ordinary vectors have up to 17 digits.
    """
    for _ in vectors_weighed(data, data.count(b"{"), data.count(b",")):
        pass


def vectors_weighed(data: bytes, braces: int, commas: int) -> Iterator[None]:
    """Do the same in steps. Between two steps the event loop may do other work.

    ``braces`` and ``commas`` are the numbers of ``{`` and ``,`` in ``data``.
    """
    powers = data.count(b"e") + data.count(b"E") - _IN_NAMES * braces
    if powers <= MAX_FAR_EXPONENTS and len(data) < _HONEST_BYTES * commas:
        return
    yield
    numbers, odd = _outside_strings(data), 0
    for start in range(0, len(numbers), MIB):
        odd += odd_numbers_in(numbers[start : start + MIB])
        if odd > MAX_FAR_EXPONENTS:
            raise too_large(f"{MAX_FAR_EXPONENTS} numbers with large exponents or very many digits")
        yield


def odd_numbers_in(numbers: bytes) -> int:
    """Return how many numbers have large exponents or very many digits. ``numbers`` is JSON without strings."""
    alike = numbers.translate(_ALIKE, b"+-")
    return alike.count(_FAR_EXPONENT) + alike.count(_LONG_POWER) + alike.count(_LONG_FRACTION)


def _weigh_text(data: bytes) -> None:
    """Raise LimitError where too many bytes stand outside of long ASCII strings."""
    plain, end = 0, 0
    for block in range(0, len(data), _BLOCK):
        if block < end or data.find(b'"', block, block + _BLOCK) >= 0:
            continue
        start, end = data.rfind(b'"', 0, block) + 1, data.find(b'"', block)
        end = end if end >= 0 else len(data)
        string = data[max(start - 2, 0) : end]  # with two bytes before its quote: a backslash there escapes the quote
        if string.isascii() and b"\\" not in string:
            plain += end - start
    if len(data) - plain > MAX_WIDE:
        raise too_large(f"{MAX_WIDE // MIB} MiB of text in one piece of JSON")


class KeptMemory:
    """Counts the memory that a run keeps beside its text. Raises LimitError when it is too much."""

    __slots__ = ("_halves", "_weight")

    def __init__(self) -> None:
        self._weight = 0
        self._halves = 0

    def add(self, data: bytes) -> None:
        """Count the memory of what was decoded from ``data`` and is kept."""
        self.add_bytes(len(data) + _ENTRY + _ELEMENT * elements_in(data))

    def add_bytes(self, count: int) -> None:
        """Count so many bytes."""
        self._weight += count
        if self._weight > MAX_KEPT:
            raise too_large(f"{MAX_KEPT // MIB} MiB beside its text")

    def add_halves(self, data: bytes) -> None:
        """Count the halves of characters in JSON that the fast decoder refused: to join or replace them takes time."""
        self._halves = _check_halves(self._halves + _halves_in(data))


def weigh_arguments(arguments: list[str]) -> None:
    """Raise LimitError where the arguments of tool calls would take too long to decode."""
    size = sum(map(len, arguments))
    if size > LIGHT:
        weigh(",".join(arguments).encode("utf-8", "surrogatepass"))


def check_parts(count: int) -> None:
    """Raise LimitError where there are too many parts."""
    if count > MAX_PARTS:
        raise too_large(f"{MAX_PARTS} parts")


def check_calls(count: int) -> None:
    """Raise LimitError where there are too many tool calls."""
    if count > MAX_CALLS:
        raise too_large(f"{MAX_CALLS} tool calls")


class SearchedWords:
    """A text in which other texts are searched. Raises LimitError where the searches take too long."""

    __slots__ = ("_at", "_looked_at", "_words")

    def __init__(self, words: str) -> None:
        self._words = words
        self._at = 0  # the end of the last match: the next text mostly follows there
        self._looked_at = 0

    def holds(self, words: str) -> bool:
        """Return whether the text contains ``words``."""
        found = self._find(words, self._at, len(self._words))
        if found < 0:
            found = self._find(words, 0, self._at + len(words))
        if found < 0:
            return False
        self._at = found + len(words)
        return True

    def _find(self, words: str, start: int, end: int) -> int:
        found = self._words.find(words, start, end)
        self._looked_at += (min(end, len(self._words)) if found < 0 else found) - start
        if self._looked_at > MAX_LOOKED_AT:
            raise too_large(f"{MAX_LOOKED_AT // MIB} MiB of content to check")
        return found
