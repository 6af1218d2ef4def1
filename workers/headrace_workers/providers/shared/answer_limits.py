"""Limits on one answer: its bytes, its JSON, its text. They bound the work and the memory of one turn of the loop. Pure.

All streams of a worker share one loop, so that what one answer costs at a time is what all others wait. A thread would not
help: decoding JSON holds the interpreter's lock. So JSON is weighed before it is decoded, which costs a hundredth of it.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from itertools import accumulate, islice

MIB = 1024 * 1024

MAX_BODY = 32 * MIB
"""Bytes of a body that is read as a whole, unpacked."""
MAX_VECTORS_BODY = 48 * MIB
"""The same of an answer that holds vectors, which are weighed by themselves."""
MAX_EVENT = 16 * MIB
"""Bytes of a server-sent event."""
MAX_ELEMENTS = 200_000
"""Values and keys in the JSON of one body or event, and in the arguments of all tool calls together."""
MAX_DEPTH = 200
"""Levels of nesting in it."""
MAX_WIDE = 8 * MIB
"""Bytes of it beside long strings of plain ASCII, such as images, where it has anything else: characters of four bytes each, escapes."""
MAX_TEXT = 16 * MIB
"""Characters of a run's text, reasoning, refusal and arguments together, where they are plain ASCII."""
MAX_WIDE_TEXT = 4 * MIB
"""The same of any other text: a character takes up to four bytes, and all of its neighbours as many."""
MAX_PIECES = 1_000_000
"""Pieces in which a run's text may come."""
MAX_CALLS = 4096
"""Tool calls of a run."""
MAX_PARTS = 4096
"""Items, blocks or parts of an answer that are kept as they came."""
MAX_CONTINUATIONS = 100
"""Requests by which a provider may have an answer continued."""
MAX_TOKEN = 64 * 1024
"""Characters of the token by which it does so, which goes with each of them."""
MAX_KEPT = 64 * MIB
"""Memory, estimated, for what else a run keeps: blocks, items, citations, signatures, further choices."""

MAX_HALVES = 25_000
"""Halves of surrogate pairs without their other half, and characters in the two halves that UTF-8 forbids: a microsecond each."""

MAX_LOOKED_AT = 64 * MIB
"""Characters that are looked through for what an answer says: some hundredths of a second."""

MAX_FAR_EXPONENTS = 2000
"""Numbers in it with exponents of three digits: to decode ``1e308`` takes 20 µs, a thousand times what ``1.5`` does."""
MAX_LONG_NUMBERS = 40_000
"""Numbers in it of 20 digits; longer ones count as several. They take microseconds each."""

LIGHT = 32 * 1024
"""JSON of fewer bytes is not weighed: whatever it holds, it takes milliseconds."""

_BLOCK = 64 * 1024
_ELEMENT = 64
_ENTRY = 512
"""Memory for an element, and for whatever is kept at once, beside its own bytes."""
_NO_BRACKETS = bytes(sorted(set(range(256)) - set(b"[]{}")))
_STEPS = bytes(1 if byte in b"[{" else 255 for byte in range(256))  # +1 and -1 as signed bytes

_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F]|\xed[\xa0-\xbf])")

_ALIKE = bytes.maketrans(b"123456789.E", b"0000000000e")
_FAR_EXPONENT = b"e000"
_LONG_NUMBER = b"0" * 20
_LONG_POWER = b"0" * 20 + b"e"
_LONG_FRACTION = b"0" * 28
_IN_NAMES = 4
"""Times that the letter e stands in what names a vector and its place."""
_HONEST_BYTES = 25
"""More than these for a number are many digits, or no numbers."""


class LimitError(Exception):
    """An answer goes beyond a limit; its text says which, and what to do. No ValueError: nothing takes it for bad JSON."""


def too_large(what: str, advice: str = "") -> LimitError:
    """Return the error for an answer with more than ``what``."""
    return LimitError(f"the provider's answer holds more than {what}; {advice or 'ask for less at a time'}")


def weigh(data: bytes) -> None:
    """Raise LimitError for JSON that would take too long to decode, or too much memory. What is no JSON may pass."""
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
            _weigh_exactly(data[:MIB])  # which mostly tells, and sooner
        outside = _weigh_exactly(data)
    if outside:
        has_costly_numbers = _has_costly_numbers(outside)
    else:
        has_costly_numbers = _has_costly_numbers(data) and _has_costly_numbers(_outside_strings(data))
    if has_costly_numbers:
        raise too_large(f"{MAX_FAR_EXPONENTS} numbers with large exponents, or {MAX_LONG_NUMBERS} long numbers")


def _check_halves(count: int) -> int:
    if count > MAX_HALVES:
        raise too_large(f"{MAX_HALVES} halves of characters")
    return count


def _halves_in(data: bytes) -> int:
    """Return how many halves of characters JSON holds that the decoder does not join, but for those beyond the limit."""
    if not (b"\\ud" in data or b"\\uD" in data or b"\xed" in data):
        return 0
    # An escaped backslash begins no escape, and keeps apart what is around it.
    halves = (found for found in _HALF.finditer(data.replace(b"\\\\", b"__")) if found[1] is not None)
    return sum(1 for _ in islice(halves, MAX_HALVES + 1))


def elements_in(data: bytes) -> int:
    """Return how many values and keys JSON holds at most; what strings hold of its punctuation is counted too."""
    return data.count(b",") + data.count(b":") + data.count(b"[") + data.count(b"{")


def _weigh_exactly(data: bytes) -> bytes:
    """Count what stands outside of strings, and return it."""
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
    """Whether there are more numbers than may be of those that are read digit by digit, which strings may only seem to hold."""
    far, long = 0, 0
    for start in range(0, len(data), MIB):
        alike = data[start : start + MIB].translate(_ALIKE, b"+-")
        far += alike.count(_FAR_EXPONENT)
        long += alike.count(_LONG_NUMBER)
        if far > MAX_FAR_EXPONENTS or long > MAX_LONG_NUMBERS:
            return True
    return False


def weigh_vectors(data: bytes) -> None:
    """Raise LimitError for vectors of numbers that would take too long to decode; honest ones have up to 17 digits."""
    for _ in vectors_weighed(data, data.count(b"{"), data.count(b",")):
        pass


def vectors_weighed(data: bytes, braces: int, commas: int) -> Iterator[None]:
    """Do the same step by step, with what was counted: after each step there may be another turn of the loop."""
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
    """Return how many of the numbers in a piece of JSON without strings have large exponents, or very many digits."""
    alike = numbers.translate(_ALIKE, b"+-")
    return alike.count(_FAR_EXPONENT) + alike.count(_LONG_POWER) + alike.count(_LONG_FRACTION)


def _weigh_text(data: bytes) -> None:
    """Count what is not within long strings of plain ASCII."""
    plain, end = 0, 0
    for block in range(0, len(data), _BLOCK):
        if block < end or data.find(b'"', block, block + _BLOCK) >= 0:
            continue
        start, end = data.rfind(b'"', 0, block) + 1, data.find(b'"', block)
        end = end if end >= 0 else len(data)
        string = data[max(start - 2, 0) : end]  # from before its quote, which may itself be a part of a string
        if string.isascii() and b"\\" not in string:
            plain += end - start
    if len(data) - plain > MAX_WIDE:
        raise too_large(f"{MAX_WIDE // MIB} MiB of text in one piece of JSON")


class KeptMemory:
    """Counts what a run keeps beside its text. Raises LimitError when it is too much."""

    __slots__ = ("_halves", "_weight")

    def __init__(self) -> None:
        self._weight = 0
        self._halves = 0

    def add(self, data: bytes) -> None:
        """Something is kept that was decoded from ``data``."""
        self.add_bytes(len(data) + _ENTRY + _ELEMENT * elements_in(data))

    def add_bytes(self, count: int) -> None:
        """So much memory is kept."""
        self._weight += count
        if self._weight > MAX_KEPT:
            raise too_large(f"{MAX_KEPT // MIB} MiB beside its text")

    def add_halves(self, data: bytes) -> None:
        """JSON was read that the decoder refused: it may hold halves of characters, which are joined and replaced at some cost."""
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
    """Words that were said, in which others are looked for. Raises LimitError where that takes too long."""

    __slots__ = ("_at", "_looked_at", "_words")

    def __init__(self, words: str) -> None:
        self._words = words
        self._at = 0  # where what was looked for last ends: the next mostly follows it
        self._looked_at = 0

    def holds(self, words: str) -> bool:
        """Return whether ``words`` were said."""
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
            raise too_large("content in so many places that it cannot be checked for being whole")
        return found
