"""Joins the arguments of a function call that arrive in pieces, each with its JSON path. Pure.

Google's Enterprise platform sends them so. The JSON text exists only at the end of the call, because the pieces may
arrive in another order than that of the text.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

from headrace.answers.tool_arguments import read_arguments
from headrace_workers.providers.shared.answer_limits import too_large
from headrace_workers.providers.shared.lenient_json import json_text
from headrace_workers.providers.shared.provider_errors import protocol_failure
from headrace_workers.providers.shared.unread_content import elements_of, object_in, text_in

_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\[(['"])((?:[^'"\\]|\\.|(?!\3)['"])*)\3\]""")
_ESCAPE = re.compile(r"\\(.)")
_MAX_DEPTH = 32
_MAX_PATH = 4096
_MAX_NODES = 10_000  # objects, lists and missing elements that the pieces of one call may create
_MAX_GAP = 100  # missing elements of a list before an element that arrives

_Step = str | int


class GrowingArguments:
    """Collects the pieces of one call."""

    __slots__ = ("_fields", "_nodes", "_path", "_string")

    def __init__(self, start: str = "") -> None:
        self._path = ""  # the path of the string that is arriving in pieces
        self._string: list[str] = []
        self._nodes = 0
        fields = read_arguments(start) if start else {}
        if fields is None:
            raise protocol_failure("the arguments of a function call are not an object")
        self._fields = fields

    def take(self, pieces: Any) -> None:
        """Take the list ``partialArgs`` of one piece of a call."""
        for said in elements_of(pieces, "partialArgs"):
            if piece := object_in(said, "a piece of arguments"):
                self._take(text_in(piece.get("jsonPath"), "the place of a piece of arguments"), piece)

    def text(self, *, is_cut: bool) -> str:
        """Return the arguments as JSON text.

        If they were cut, the closing brackets are missing, so it is no valid JSON.
        """
        self._end_string()
        text = json_text(self._fields)
        return text.rstrip('"]}') if is_cut else text

    def _take(self, path: str, piece: dict[str, Any]) -> None:
        if path != self._path:
            self._end_string()
        if piece.get("stringValue") is not None:
            text = text_in(piece["stringValue"], "a piece of arguments")
            self._path = path
            self._string.append(text)
            if not piece.get("willContinue"):
                self._end_string()
            return
        for key in ("numberValue", "boolValue"):
            if piece.get(key) is not None:
                self._put(path, piece[key])
                return
        if "nullValue" in piece:
            self._put(path, None)
        elif piece.keys() - {"jsonPath", "willContinue", "stringValue"}:
            raise protocol_failure(f"a piece of arguments at {path[:100]!r} has no value that is known")

    def _end_string(self) -> None:
        if self._path:
            path, self._path = self._path, ""
            text, self._string = "".join(self._string), []
            self._put(path, text)

    def _put(self, path: str, value: Any) -> None:
        steps = _steps(path)
        node: Any = self._fields
        for step, following in pairwise(steps):
            child = _at(node, step)
            if not isinstance(child, dict if isinstance(following, str) else list):
                child = {} if isinstance(following, str) else []
                self._set(node, step, child)
            node = child
        self._set(node, steps[-1], value)

    def _set(self, node: Any, step: _Step, value: Any) -> None:
        self._nodes += 1
        if isinstance(node, list) and isinstance(step, int):
            missing = step + 1 - len(node)
            if missing > _MAX_GAP:
                raise protocol_failure(f"a function call has element {step} of a list with {len(node)} elements")
            self._nodes += max(missing, 0)
            node.extend([None] * missing)
        if self._nodes > _MAX_NODES:
            raise too_large(f"{_MAX_NODES} values in the pieces of a function call")
        node[step] = value


def _steps(path: str) -> list[_Step]:
    steps: list[_Step] = []
    at = 1
    while path.startswith("$") and at < len(path) <= _MAX_PATH and len(steps) <= _MAX_DEPTH:
        match = _STEP.match(path, at)
        if match is None:
            break
        name, index, _, quoted = match.groups()
        steps.append(name or (int(index) if index else _ESCAPE.sub(r"\1", quoted)))
        at = match.end()
    if at < len(path) or not steps or not isinstance(steps[0], str) or len(steps) > _MAX_DEPTH:
        raise protocol_failure(f"a function call has an argument at {path[:100]!r}")
    return steps


def _at(node: Any, step: _Step) -> Any:
    if isinstance(node, list):
        return node[step] if isinstance(step, int) and step < len(node) else None
    return node.get(step)
