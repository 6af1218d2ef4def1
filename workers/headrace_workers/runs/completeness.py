"""Checks that a successful answer is complete: all content that the provider sent must be in the result. Pure.

An incomplete answer is a failure. The caller would take a part of it for all that the model said.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace_workers.providers.shared.answer_limits import SearchedWords
from headrace_workers.providers.shared.lenient_json import loads
from headrace_workers.providers.shared.unread_content import first_of, path_text, words_in
from headrace_workers.providers.shared.wire_format import CUT_REASONS, Completion


def incomplete_reason(completion: Completion) -> str | None:
    """Return what is missing in an answer, or None if it is complete."""
    if completion.finish_reason == "tool_calls" and not completion.tool_calls:
        return "the provider says that the model called a tool, but sent no tool call"
    if completion.finish_reason not in CUT_REASONS:
        for call in completion.tool_calls:
            if not call.name:
                return f"tool call {call.id!r} has no name; its arguments are {call.arguments[:200]!r}"
    return None


def missing_content(body: bytes, completion: Completion, *, of_first: bool) -> str | None:
    """Return a reason if ``body`` has content that is not in the ``completion`` read from it; else None.

    ``of_first``: the caller asked for several answers, and only the first counts.
    """
    if completion.vectors is not None:
        return None
    try:
        whole = loads(body)
    except ValueError:
        return None  # not JSON: events, or an array without its end
    # Most answers are text only. The other texts of the completion are collected only if they are needed.
    content = completion.message.content if completion.message else ""
    text = well_formed_text(content) if isinstance(content, str) else ""
    texts: dict[str, None] | None = None  # a dict keeps the order
    said: SearchedWords | None = None
    in_text = SearchedWords(text)
    for path, words in words_in(first_of(whole) if of_first else whole):
        if words.strip() in {"", "null"} or (text and in_text.holds(words)):
            continue
        if texts is None:
            texts = {}
            _add_texts(completion, texts)
        if words in texts:
            continue
        if said is None:
            said = SearchedWords("\0".join(texts))
        if not said.holds(words):
            return f"the answer holds content that was not understood, at {path_text(path)}"
    return None


def _add_texts(value: Any, texts: dict[str, None]) -> None:
    """Add all texts in a value, in their order.

    The value may be large: it is not copied, and no generators are nested.
    """
    kind = type(value)
    if kind is str:
        texts[well_formed_text(value)] = None
    elif kind is dict:
        for item in value.values():
            _add_texts(item, texts)
    elif kind is list:
        for item in value:
            _add_texts(item, texts)
    elif isinstance(value, msgspec.Struct):
        if isinstance(tag := value.__struct_config__.tag, str):
            texts[tag] = None
        for name in value.__struct_fields__:
            if name != "data":  # base64 of an image, audio or a file
                _add_texts(getattr(value, name), texts)
