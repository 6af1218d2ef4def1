"""The guard of the rule that nothing of an answer is lost silently: what a mapper does not read must hold no content.

Content is text, reasoning, a refusal or a tool call, in the words of all wire formats. Never judges what else a value means.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headrace_workers.providers.failures import protocol_failure

_WORDS = frozenset({
    "text", "content", "output_text", "reasoning", "reasoning_content", "reasoning_text", "thinking", "refusal", "transcript",
    "arguments", "args", "input", "partial_json", "partialArgs",
})  # fmt: skip
"""Keys of content itself."""

_AROUND = frozenset({
    "choices", "candidates", "message", "delta", "output", "item", "response", "content_block", "parts", "content", "summary",
    "audio", "tool_calls", "function", "custom", "function_call", "functionCall",
})  # fmt: skip
"""Keys of what content stands in. What stands under any other key is no content: annotations, token lists, figures."""


_CALLS = {"function", "custom", "function_call", "functionCall"}
_SAYS_WHAT_IT_IS = {"type", "role", "parts"}


def fail(reason: str) -> None:
    """Raise ProviderFailedError: the answer holds what cannot be read."""
    raise protocol_failure(reason)


def content_in(value: Any, path: str = "") -> str | None:
    """Return the path of the first content in a value; None where there is none."""
    if isinstance(value, dict):
        return next((found for key in value if (found := _content_under(key, value[key], f"{path}.{key}"))), None)
    if isinstance(value, list):
        places = ((place, item) for place, item in enumerate(value))
        return next((found for place, item in places if (found := content_in(item, f"{path}[{place}]"))), None)
    return None


def words_in(value: Any) -> list[tuple[str, str]]:
    """Return the words of an answer, each with its path; of choices that are answers of their own only the first has any."""
    found: list[tuple[str, str]] = []
    _find_words(value, "", found)
    return found


# Each whole answer is gone through: a list that grows costs less than generators in generators.
def _find_words(value: Any, path: str, found: list[tuple[str, str]]) -> None:
    if isinstance(value, list):
        for place, item in enumerate(value):
            _find_words(item, f"{path}[{place}]", found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if not item:
                continue
            if key in _WORDS:
                _find_words_under(item, f"{path}.{key}", found, is_input=key in {"input", "args", "arguments"})
            elif key in _AROUND:
                is_choices = key in {"choices", "candidates"} and isinstance(item, list)
                _find_words(_without_alternatives(item) if is_choices else item, f"{path}.{key}", found)


def _find_words_under(value: Any, path: str, found: list[tuple[str, str]], *, is_input: bool) -> None:
    """Find the words under a key of content; all texts of an input are content, whatever their keys."""
    if isinstance(value, str):
        found.append((path, value))
    elif isinstance(value, dict) and is_input:
        for key, item in value.items():
            _find_words_under(item, f"{path}.{key}", found, is_input=True)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            _find_words_under(item, f"{path}[{place}]", found, is_input=is_input)
    else:
        _find_words(value, path, found)


def _without_alternatives(choices: list[Any]) -> list[Any]:
    """Return the choices that make one answer: none but the first says text, where the first does."""
    if len(choices) == 1:
        return choices
    ordered = sorted(choices, key=_place_of)
    if not ordered or not _has_text(ordered[0]):
        return ordered
    return [ordered[0], *(choice for choice in ordered[1:] if not _has_text(choice))]


def first_of(whole: Any) -> Any:
    """Return a body with the first of its choices alone."""
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
    return any(path.endswith((".text", ".content")) and words for path, words in words_in(choice))


def refuse_content(value: Any, what: str) -> None:
    """Raise ProviderFailedError where ``value``, which could not be read, holds content; ``what`` names it."""
    found = content_in(value)
    if found is not None:
        fail(f"{what} holds content that cannot be read, at {found.removeprefix('.')}")


def text_in(value: Any, what: str) -> str:
    """Return a field that is text, or absent. Raises ProviderFailedError for anything else: it would be lost, or changed."""
    if isinstance(value, str):
        return value
    if not value and not isinstance(value, int | float):
        return ""
    fail(f"{what} is {_kind_of(value)} where text is due: {str(value)[:100]}")
    return ""


def object_in(value: Any, what: str) -> dict[str, Any]:
    """Return a field that is an object, or absent. Raises ProviderFailedError for anything else."""
    if isinstance(value, dict):
        return value
    if not value:
        return {}
    fail(f"{what} is {_kind_of(value)} where an object is due: {str(value)[:100]}")
    return {}


def elements_of(value: Any, what: str) -> Iterable[Any]:
    """Return the elements of a field that is a list, or absent. Raises ProviderFailedError for anything else."""
    if isinstance(value, list):
        return value
    if not value:
        return ()
    fail(f"{what} is {_kind_of(value)} where a list is due: {str(value)[:100]}")
    return ()


def is_other(index: Any) -> bool:
    """Whether an index is that of another answer than the first; what is no number says nothing."""
    return index != 0 if type(index) is int else isinstance(index, str) and index.isdecimal() and int(index) != 0


def _content_under(key: str, value: Any, path: str) -> str | None:
    if key in _WORDS and _says_something(value, is_input=key in {"input", "args"}):
        return path
    if key in _CALLS and isinstance(value, dict) and value.get("name"):
        return path
    return content_in(value, path) if key in _AROUND else None


def _says_something(value: Any, *, is_input: bool) -> bool:
    if isinstance(value, dict):
        # A part that does not say what it is may be text; one of a known kind without words is none.
        is_unknown = not value.keys() & _SAYS_WHAT_IT_IS
        return bool(value) if is_input or is_unknown else content_in(value) is not None
    if isinstance(value, list):
        return any(_says_something(item, is_input=is_input) for item in value)
    return value not in (None, "", False, True)


def _kind_of(value: Any) -> str:
    kinds = {bool: "true or false", str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "something else")
