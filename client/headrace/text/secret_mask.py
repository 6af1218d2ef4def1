"""Removes secrets (keys, passwords, tokens) from texts that leave a process: whole, in part, or encoded. Pure.

A secret is found in upper and lower case, and

* whole, or so much of it that the rest could be guessed: half of it, or 12 characters in a row;
* percent-encoded, with the escapes of JSON or HTML, also one within another;
* in base64, as in ``Authorization: Basic``, and in hexadecimal digits;
* at the end of a cut text: there its first 6 characters are enough.

Servers without keys are often given a dummy key ("mock", "none", "x"). Such a key is a word, and other words contain
it: it is removed only where it stands alone.
"""

from __future__ import annotations

import base64
import functools
import itertools
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import unquote

MASK = "[key]"
"""The text in place of a secret."""

SHORT = 8
"""Characters. No provider gives shorter keys."""
_LONG = 20
"""Letters. Longer strings of letters are not words of a language."""
_LEAST_OF_START = 6
"""Characters of a key's beginning. Fewer characters reveal nothing."""
_LONGEST_PART = 12
"""Characters of a key in a row that are always removed."""
_LONG_SECRET = 256
"""Characters.

A longer secret, such as a signed token, is not searched for in base64 and hexadecimal: it is base64 itself.
"""
_ENDS = 512
"""Characters at the beginning and at the end of a long secret. Parts of these are searched for."""
LONGEST_TEXT = 32_768
"""Characters.

In a longer text only the middles of secrets are searched for, which is fast: see :meth:`SecretMask.is_quoted`.
"""
_LONGEST_OF_ALL = 4 * 1024 * 1024
"""Characters. In a longer text only the run's own key is searched for."""
_ENCODINGS_IN_ONE_ANOTHER = 3
_GRAM = 6
_MOST_PLACES = 8
"""Positions that are kept of a piece that a secret holds several times."""
_MOST_PIECES = 64
"""Pieces of a text that are cut in one step."""
_CUT = "…".encode()
"""The mark at the end of a text that was cut."""
_JSON_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|([\"\\/]))")


def is_word(secret: str) -> bool:
    """Return whether a secret is a word, or so short that it may be a part of a word."""
    return len(secret) < SHORT or (secret.isalpha() and len(secret) < _LONG)


class SecretMask:
    """Masks ``secrets``, and the secrets of the mask ``beneath``."""

    __slots__ = (
        "__weakref__",
        "_beneath",
        "_cores",
        "_exact_cores",
        "_finds_word",
        "_forms",
        "_gram_set",
        "_grams",
        "_has_escapes",
        "_long",
        "_plain",
        "_size",
        "_words",
    )

    def __init__(self, secrets: Iterable[str], beneath: SecretMask | None = None) -> None:
        unique = {secret for secret in secrets if secret}
        self._beneath = beneath
        self._words = [secret for secret in unique if is_word(secret)]
        self._forms = [form for secret in unique if not is_word(secret) for form in _forms(secret)]
        # A text is cut into pieces of this size. A part of a secret that is long enough contains one of the pieces.
        self._size = min([_GRAM, *((form.least + 1) // 2 for form in self._forms)])
        self._grams: dict[bytes, list[tuple[_Form, int]]] = {}
        for form in self._forms:
            for start in form.places(self._size):
                places = self._grams.setdefault(form.text[start : start + self._size], [])
                if len(places) < _MOST_PLACES:
                    places.append((form, start))
        self._finds_word = re.compile("|".join(map(re.escape, self._words))).search if self._words else None
        self._plain = [secret for secret in unique if not is_word(secret)]
        self._exact_cores = [_core(secret) for secret in self._plain]
        self._cores = list(dict.fromkeys(_core(form.text.decode("utf-8", "surrogatepass")) for form in self._forms))
        self._gram_set = frozenset(self._grams)
        self._has_escapes = any(set("%\\&") & set(secret) for secret in unique)
        self._long = [core.lower().encode("utf-8", "surrogatepass") for core in self._exact_cores if len(core) > _ENDS]

    def __repr__(self) -> str:
        return "SecretMask()"

    def is_clean(self, text: str, pieces: Sequence[bytes] = ()) -> bool:
        """Return whether a text surely holds no secret. Quick for short texts. False means only that it may hold one.

        ``pieces`` are the pieces of the text, if the caller has cut it already: see :func:`pieces_of`.
        """
        if len(text) > LONGEST_TEXT:
            return not self.is_quoted(text)
        if self._is_suspicious(text):
            return False
        if self._forms:
            if not pieces or len(pieces[0]) != self._size:
                pieces = pieces_of(text, self._size)
            if not self._gram_set.isdisjoint(pieces) or (self._long and self._has_long(text)):
                return False
        return self._beneath is None or self._beneath.is_clean(text, pieces)

    def masked(self, text: str, *, words: bool = True) -> str:
        """Return the text without the secrets.

        ``words``: whether secrets that are words, such as dummy keys, are removed, too.
        """
        text = self.masked_own(text, words=words)
        return text if self._beneath is None else self._beneath.masked(text, words=words)

    def masked_own(self, text: str, *, words: bool = True) -> str:
        """Return the text without the secrets of this mask. Secrets of the mask beneath stay."""
        return text if self._seems_clean(text) else self._hidden(text, words=words)

    def _seems_clean(self, text: str) -> bool:
        if len(text) > LONGEST_TEXT:
            return not self._cores
        if self._is_suspicious(text):
            return False
        if len(text) < _LEAST_OF_START or not self._forms:
            return True
        is_disjoint = self._gram_set.isdisjoint(pieces_of(text, self._size))
        return is_disjoint and not (self._long and self._has_long(text))

    def _is_suspicious(self, text: str) -> bool:
        """Return whether a text has a character that may begin an escape, or a secret that is a word."""
        # A search for one character takes a tenth of the time of a regular expression for several.
        if ("%" in text or "\\" in text or "&" in text) and (self._forms or self._words):
            return True
        return self._finds_word is not None and self._finds_word(text) is not None

    def _has_long(self, text: str) -> bool:
        data = text.encode("utf-8", "surrogatepass").lower()
        return any(secret in data for secret in self._long)

    def is_quoted(self, text: str) -> bool:
        """Return whether a text contains the middle half of a secret, in any spelling.

        Takes a few microseconds for a page of text. In more than 4 MiB, only the run's own key is searched for,
        unencoded: 10 MB take milliseconds.
        """
        if len(text) > _LONGEST_OF_ALL:
            return self._is_quoted_here(text)
        if not ("%" in text or "\\u" in text or "&#" in text) or len(text) > LONGEST_TEXT:
            return self.has_core(text.lower())
        return any(self.has_core(level.lower()) for level in _levels(text))

    def masked_for_store(self, text: str) -> str:
        """Return a model's text without secrets, for the store of spans. The caller still gets the text as it is.

        A text with less than the middle half of a key stays as it is: a closer search would cost too much.
        """
        return self.masked(text, words=False) if text and self.is_quoted(text) else text

    def has_core(self, small: str) -> bool:
        """Return whether a text in lower case contains the middle half of a secret."""
        for core in self._cores:
            if core in small:
                return True
        return self._beneath is not None and self._beneath.has_core(small)

    def _is_quoted_here(self, text: str) -> bool:
        if len(text) > _LONGEST_OF_ALL:
            return any(core in text for core in self._exact_cores)
        small = text.lower()
        return any(core in small for core in self._cores)

    def _hidden(self, text: str, *, words: bool) -> str:
        if len(text) > LONGEST_TEXT:
            for secret in self._plain:
                text = text.replace(secret, MASK)
            return MASK if self._is_quoted_here(text) else text
        if self._has_escapes:
            text = self._cut(text, words=words)
        # The most decoded level first: on the others, a partly encoded secret is in pieces.
        for level in reversed(_levels(text)):
            hidden = self._cut(level, words=words)
            if hidden != level:
                return hidden
        return text

    def _cut(self, text: str, *, words: bool) -> str:
        """Return the text without the secrets that are not encoded."""
        if self._forms:
            data = text.encode("utf-8", "surrogatepass")
            text = _without(data, self._found(data, data.lower())).decode("utf-8", "surrogatepass")
        for word in self._words if words else ():
            if word in text:
                text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", MASK, text)
        return text

    def places(self, data: bytes) -> list[tuple[int, int]]:
        """Return the positions (start, end) of the secrets of this mask in some bytes, without secrets that are words."""
        return self._found(data, data.lower()) if self._forms else []

    def _found(self, said: bytes, data: bytes) -> list[tuple[int, int]]:
        """Return the positions (start, end) of secrets in ``data``, which is ``said`` in lower case."""
        found: list[tuple[int, int]] = []
        size, end = self._size, len(data)
        for form in self._forms:
            start = data.find(form.text)
            while start >= 0:
                found.append((start, start + len(form.text)))
                start = data.find(form.text, start + len(form.text))
            found += form.at_end_of(data)
            if len(form.text) > 2 * _ENDS:
                found += form.around_middle(data)
        done = 0
        for place in range(0, end, size):
            if place + size > done:
                for form, start in self._grams.get(data[place : place + size], ()):
                    part = form.part_at(data, place, start, size)
                    if part is not None and not (form.is_plain and _is_plain_word(said[part[0] : part[1]], form.text)):
                        found.append(part)
                        done = max(done, part[1])
        return found


class _Form:
    """One spelling of a secret, in lower case. ``least``: bytes of it in a row that are masked."""

    __slots__ = ("is_plain", "least", "text")

    def __init__(self, text: str, least: int, *, is_plain: bool) -> None:
        self.text = text.lower().encode()
        self.least = least
        self.is_plain = is_plain

    def places(self, size: int) -> Iterable[int]:
        """Return the positions of the pieces of ``size`` bytes that are searched for."""
        count = len(self.text) - size + 1
        if len(self.text) <= 2 * _ENDS:
            return range(count)
        return itertools.chain(range(_ENDS), range(count - _ENDS, count))

    def around_middle(self, data: bytes) -> list[tuple[int, int]]:
        """Return the part around the first position of the middle of a long secret."""
        start = len(self.text) // 4
        middle = self.text[start:][: len(self.text) // 2]
        place = data.find(middle)
        part = None if place < 0 else self.part_at(data, place, start, len(middle))
        return [] if part is None else [part]

    def part_at(self, data: bytes, place: int, start: int, size: int) -> tuple[int, int] | None:
        """Return the whole common part around a common piece of ``size`` bytes, or None if it is too short."""
        text, after, before = self.text, place + size, place
        stop = start + size
        while start and before and text[start - 1] == data[before - 1]:
            start, before = start - 1, before - 1
        while stop < len(text) and after < len(data) and text[stop] == data[after]:
            stop, after = stop + 1, after + 1
        return (before, after) if after - before >= self.least else None

    def at_end_of(self, data: bytes) -> list[tuple[int, int]]:
        """Return the beginning of the secret at the end of a cut text."""
        said = data.removesuffix(_CUT)
        if not self.is_plain:
            return []
        for length in range(min(len(self.text) - 1, len(said), self.least), _LEAST_OF_START - 1, -1):
            if said.endswith(self.text[:length]):
                return [(len(said) - length, len(said))]
        return []


def _core(spelling: str) -> str:
    """Return the middle half of a spelling. If that is a word, as in the dummy ``sk-simulated``, return all of it."""
    core = spelling[len(spelling) // 4 :][: max(len(spelling) // 2, SHORT)]
    return (
        spelling
        if _is_plain_word(core.encode("utf-8", "surrogatepass"), spelling.encode("utf-8", "surrogatepass"))
        else core
    )


def _forms(secret: str) -> list[_Form]:
    """Return the spellings of a secret that are searched for."""
    raw = secret.encode("utf-8", "surrogatepass")
    least = min(_LONGEST_PART, max(_LEAST_OF_START, len(raw) // 2 if len(raw) >= 2 * SHORT else len(raw) * 2 // 3))
    if len(raw) > _LONG_SECRET:
        return [_Form(secret, least, is_plain=True)]
    texts = {secret: (least, True), raw.hex(): (2 * least, False)}
    for offset, skipped in ((0, 0), (1, 2), (2, 3)):
        # In base64, the first and last characters also depend on the bytes around the secret: leave them out.
        whole = (len(raw) + offset) * 4 // 3
        for encoded in (base64.b64encode(bytes(offset) + raw), base64.urlsafe_b64encode(bytes(offset) + raw)):
            texts.setdefault(encoded[skipped:whole].decode(), (max(least * 4 // 3, SHORT), False))
    return [_Form(text, min(least, len(text)), is_plain=is_plain) for text, (least, is_plain) in texts.items()]


def _is_plain_word(part: bytes, secret: bytes) -> bool:
    """Return whether a part of a secret is just a word, as in the dummy ``sk-simulated``."""
    word = part.strip(b"-_. ")
    is_written_as_word = word.islower() or word.isupper() or word.istitle()
    return len(part) < len(secret) and word.isalpha() and is_written_as_word and len(word) < _LONG


def pieces_of(text: str, size: int) -> list[bytes]:
    """Cut a text into pieces of ``size`` bytes. If it contains a part of a secret, one piece belongs to the secret."""
    data = text.encode("utf-8", "surrogatepass").lower()
    return [*_cutter(size, len(data) // size)(data), data.removesuffix(_CUT)[-size:]]


@functools.lru_cache(maxsize=256)
def _cutter(size: int, count: int) -> Callable[[bytes], Sequence[bytes]]:
    """Return the function that cuts the first ``count`` whole pieces off some bytes. A shorter rest belongs to no secret."""
    if count > _MOST_PIECES:
        return lambda data: [data[start : start + size] for start in range(0, count * size, size)]
    return struct.Struct(f"{size}s" * count).unpack_from


def _without(data: bytes, found: list[tuple[int, int]]) -> bytes:
    pieces: list[bytes] = []
    done = 0
    for start, end in sorted(found):
        if end <= done:
            continue
        if start >= done:
            pieces += (data[done:start], MASK.encode())
        done = end
    return b"".join([*pieces, data[done:]])


def _levels(text: str) -> list[str]:
    """Return a text, and the same text with one, two and three levels of escapes decoded."""
    levels = [text]
    while len(levels) <= _ENCODINGS_IN_ONE_ANOTHER and (decoded := _decoded(levels[-1])) != levels[-1]:
        levels.append(decoded)
    return levels


def _decoded(text: str) -> str:
    """Return a text with one level of escapes decoded."""
    if "%" in text:
        text = unquote(text)
    if "\\" in text:
        text = _JSON_ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")  # join halves of characters
    if "&" not in text:
        return text
    import html  # here: its table of names takes 2 ms, at the start of each process

    return html.unescape(text)


NO_SECRETS = SecretMask([])
