"""Refuses content that a mapper cannot read, so that no part of an answer is lost silently. Pure.

Content is text, reasoning, a refusal or a tool call, under the keys of all wire formats. Other values may be ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace_workers.providers.shared.provider_errors import protocol_failure

_WORDS = frozenset({
    "text", "content", "output_text", "reasoning", "reasoning_content", "reasoning_text", "thinking", "refusal", "transcript",
    "arguments", "args", "input", "partial_json", "partialArgs",
})  # fmt: skip
"""Keys whose value is content."""

_AROUND = frozenset({
    "choices", "candidates", "message", "delta", "output", "item", "response", "content_block", "parts", "content", "summary",
    "audio", "tool_calls", "function", "custom", "function_call", "functionCall",
})  # fmt: skip
"""Keys of objects that may contain content. Values under other keys are no content: annotations, token lists,
numbers."""


_CALLS = {"function", "custom", "function_call", "functionCall"}
_SAYS_WHAT_IT_IS = {"type", "role", "parts"}

Where = tuple[Any, Any] | None
"""A path as a linked list: the path of the parent, and the key or index in it. It becomes a text only for an error."""


def fail(reason: str) -> None:
    """Raise ProviderFailedError (``provider_protocol``): the answer has content that cannot be read."""
    raise protocol_failure(reason)


def content_in(value: Any) -> str | None:
    """Return the path of the first content in a value; None if it has none."""
    found = _content_in(value, None)
    return None if found is None else path_text(found)


def _content_in(value: Any, path: Where) -> Where:
    if isinstance(value, dict):
        for key, item in value.items():
            if (found := _content_under(key, item, (path, key))) is not None:
                return found
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if (found := _content_in(item, (path, place))) is not None:
                return found
    return None


def path_text(path: Where) -> str:
    """Return a path as text, such as ``choices[0].delta.content``."""
    steps: list[str] = []
    while path is not None:
        path, step = path
        steps.append(f"[{step}]" if isinstance(step, int) else f".{step}")
    return "".join(reversed(steps)).removeprefix(".")


def words_in(value: Any) -> list[tuple[Where, str]]:
    """Return the texts of a whole answer, each with its path. Of several alternative choices only the first is read."""
    found: list[tuple[Where, str]] = []
    for whole in value if isinstance(value, list) else [value]:
        for key in ("choices", "candidates"):
            if isinstance(whole, dict) and isinstance(whole.get(key), list):
                _find_words(_without_alternatives(whole[key]), (None, key), found)
        _find_words(whole, None, found, besides=("choices", "candidates"))
    return found


# Each whole answer is searched: a growing list costs less than nested generators.
def _find_words(value: Any, path: Where, found: list[tuple[Where, str]], besides: tuple[str, ...] = ()) -> None:
    if isinstance(value, list):
        for place, item in enumerate(value):
            if item:
                _find_words(item, (path, place), found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not item or key in besides:
                continue
            if key in _WORDS:
                _find_words_under(item, (path, key), found, is_input=key in {"input", "args", "arguments"})
            elif key in _AROUND:
                _find_words(item, (path, key), found)


def _find_words_under(value: Any, path: Where, found: list[tuple[Where, str]], *, is_input: bool) -> None:
    """Find the texts under a key of content. In the input of a tool all texts are content, whatever their keys."""
    if isinstance(value, str):
        found.append((path, value))
    elif isinstance(value, dict) and is_input:
        for key, item in value.items():
            if item:
                _find_words_under(item, (path, key), found, is_input=True)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            if item:
                _find_words_under(item, (path, place), found, is_input=is_input)
    elif value:
        _find_words(value, path, found)


def _without_alternatives(choices: list[Any]) -> list[Any]:
    """Return the choices that make up one answer. If the first has text, others with text are alternatives: left out."""
    if len(choices) == 1:
        return choices
    ordered = sorted(choices, key=_place_of)
    if not ordered or not _has_text(ordered[0]):
        return ordered
    return [ordered[0], *(choice for choice in ordered[1:] if not _has_text(choice))]


def first_of(whole: Any) -> Any:
    """Return a body with only the first of its choices."""
    if isinstance(whole, list):
        return [first_of(item) for item in whole]
    if not isinstance(whole, dict):
        return whole
    lists = {key: whole[key] for key in ("choices", "candidates") if isinstance(whole.get(key), list)}
    return whole | {key: sorted(choices, key=_place_of)[:1] for key, choices in lists.items()}


def _place_of(choice: Any) -> int:
    place = choice.get("index") if isinstance(choice, dict) else None
    return place if isinstance(place, int) else 0


def _has_text(choice: Any) -> bool:
    found: list[tuple[Where, str]] = []
    _find_words(choice, None, found)
    return any(path is not None and path[1] in {"text", "content"} and words for path, words in found)


def refuse_content(value: Any, what: str) -> None:
    """Raise ProviderFailedError if ``value``, which was not read, has content.

    ``what`` names the value in the error.
    """
    found = content_in(value)
    if found is not None:
        fail(f"{what} holds content that cannot be read, at {found}")


def text_in(value: Any, what: str) -> str:
    """Return a text field; "" if it is absent.

    Raises ProviderFailedError for another type, which would be lost or changed.
    """
    if isinstance(value, str):
        return value
    if not value and not isinstance(value, int | float):
        return ""
    fail(f"{what} is {_kind_of(value)}, but must be text: {str(value)[:100]}")
    return ""


def object_in(value: Any, what: str) -> dict[str, Any]:
    """Return an object field; an empty dict if it is absent. Raises ProviderFailedError for another type."""
    if isinstance(value, dict):
        return value
    if not value:
        return {}
    fail(f"{what} is {_kind_of(value)}, but must be an object: {str(value)[:100]}")
    return {}


def elements_of(value: Any, what: str) -> Iterable[Any]:
    """Return the elements of a list field; none if it is absent. Raises ProviderFailedError for another type."""
    if isinstance(value, list):
        return value
    if not value:
        return ()
    fail(f"{what} is {_kind_of(value)}, but must be a list: {str(value)[:100]}")
    return ()


def is_other(index: Any) -> bool:
    """Whether an index belongs to another answer than the first. A value that is no number counts as the first."""
    return index != 0 if type(index) is int else isinstance(index, str) and index.isdecimal() and int(index) != 0


def _content_under(key: str, value: Any, path: Where) -> Where:
    if key in _WORDS:
        # A value without words is not searched again: on each level, that would double the time.
        return path if _says_something(value, is_input=key in {"input", "args"}) else None
    if key in _CALLS and isinstance(value, dict) and value.get("name"):
        return path
    return _content_in(value, path) if key in _AROUND else None


def _says_something(value: Any, *, is_input: bool) -> bool:
    if isinstance(value, dict):
        # A part without a type may be text. A part of a known type without text has no content.
        is_unknown = not value.keys() & _SAYS_WHAT_IT_IS
        return bool(value) if is_input or is_unknown else _content_in(value, None) is not None
    if isinstance(value, list):
        return any(_says_something(item, is_input=is_input) for item in value)
    return value not in (None, "", False, True)


def _kind_of(value: Any) -> str:
    kinds = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "something else")
