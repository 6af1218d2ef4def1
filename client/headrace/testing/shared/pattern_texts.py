"""Makes texts that match a regular expression, for the simulated model. Pure.

Reads literals, classes, groups, alternatives and repetitions. It skips look-around, so the caller checks each text.
"""

from __future__ import annotations

from collections.abc import Iterator

_CLASSES = {"d": "0123456789", "w": "abcxyz019", "s": " ", "D": "abc", "W": "-", "S": "abc"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"}
_ANY = "abcdefghij0123456789 -_.:/@"
_ANCHORS = ("b", "B", "A", "Z", "z")
_EXTRA_REPEATS = (0, 1, 2, 3, 4, 8, 16, 32, 64)


def texts_of_pattern(pattern: str, least_length: int, number: int) -> Iterator[str]:
    """Yield texts that probably match, from the shortest repetitions to longer ones. ``number`` varies the choices."""
    for extra in sorted(_EXTRA_REPEATS, key=lambda extra: (extra < least_length, extra)):
        for choice in (number, 0):
            try:
                yield _PatternReader(pattern, extra, choice).text()
            except IndexError:  # the pattern ends where a further character is needed
                return
    for extra in _EXTRA_REPEATS:
        yield _PatternReader(pattern, extra, number).text()


class _PatternReader:
    """Walks through the pattern once. ``extra`` is the number of optional repetitions."""

    def __init__(self, pattern: str, extra: int, choice: int) -> None:
        self._pattern = pattern
        self._at = 0
        self._extra = extra
        self._choice = choice

    def text(self) -> str:
        return self._alternatives()

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _alternatives(self) -> str:
        found = [self._sequence()]
        while self._peek() == "|":
            self._take()
            found.append(self._sequence())
        return found[self._choice % len(found)]

    def _sequence(self) -> str:
        text = ""
        while self._peek() and self._peek() not in "|)":
            start = self._at
            piece = self._piece()
            low, high = self._repeats()
            count = min(low + self._extra, high)
            if count > 1 and piece and self._pattern[start] != "(":
                text += "".join(self._again(start) for _ in range(count))
            else:
                text += piece * count
        return text

    def _again(self, start: int) -> str:
        """Make the piece at ``start`` once more, with another choice of character."""
        end, self._at = self._at, start
        self._choice += 1
        piece = self._piece()
        self._at = end
        return piece

    def _piece(self) -> str:
        char = self._take()
        match char:
            case "(":
                return self._group()
            case "[":
                allowed = self._class()
                return allowed[self._choice % len(allowed)] if allowed else ""
            case ".":
                return _ANY[self._choice % len(_ANY)]
            case "^" | "$":
                return ""
            case "\\":
                return self._escape()
        return char

    def _escape(self) -> str:
        char = self._take()
        if char in _ANCHORS:
            return ""
        if char in _CLASSES:
            return _CLASSES[char][self._choice % len(_CLASSES[char])]
        return _ESCAPES.get(char, char)

    def _group(self) -> str:
        is_skipped = False
        if self._peek() == "?":
            self._take()
            kind = self._take()
            if kind == "P":
                kind = self._take()
            if kind == "<" and self._peek() not in "=!":
                while self._take() != ">":
                    pass
            elif kind in "=!<":
                is_skipped = True
                if kind == "<":
                    self._take()
        text = self._alternatives()
        self._take()  # the closing bracket
        return "" if is_skipped else text

    def _class(self) -> str:
        is_negated = self._peek() == "^"
        if is_negated:
            self._take()
        found = ""
        while self._peek() != "]" or not found:
            char = self._take()
            if char == "\\":
                following = self._take()
                found += _CLASSES.get(following, _ESCAPES.get(following, following))
            elif char == "-" and found and self._peek() not in {"]", ""}:
                found += "".join(map(chr, range(ord(found[-1]) + 1, min(ord(self._take()), 0x2FFF) + 1)))
            else:
                found += char
        self._take()
        return "".join(char for char in _ANY if char not in found) if is_negated else found

    def _repeats(self) -> tuple[int, int]:
        """Return the smallest and the largest number of repetitions of the piece before this place."""
        char = self._peek()
        low, high = {"*": (0, 1 << 16), "+": (1, 1 << 16), "?": (0, 1)}.get(char, (1, 1))
        if char and char in "*+?":
            self._take()
        elif char == "{" and (end := self._pattern.find("}", self._at)) > 0:
            given = self._pattern[self._at + 1 : end].split(",")
            if all(part.strip().isdigit() or not part.strip() for part in given):
                low = int(given[0] or 0)
                high = low if len(given) == 1 else int(given[1] or 1 << 16)
                self._at = end + 1
        if self._peek() in {"?", "+"} and char and char in "*+?{":
            self._take()  # lazy or possessive: the texts are the same
        return low, high
