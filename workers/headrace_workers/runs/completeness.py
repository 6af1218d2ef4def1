"""The rule that a success is whole, at the one place where an answer becomes a result. Pure.

An answer that says of itself what it does not hold is no success: its reader would take it for all that the model said.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace_workers.providers.shared.answer_limits import Said
from headrace_workers.providers.shared.lenient_json import loads
from headrace_workers.providers.shared.unread_content import first_of, told, words_in
from headrace_workers.providers.shared.wire_format import CUT, Completion


def lack_of(completion: Completion) -> str | None:
    """Return what an answer lacks; None where it is whole."""
    if completion.finish_reason == "tool_calls" and not completion.tool_calls:
        return "the provider says that the model called a tool, and sent no call"
    if completion.finish_reason not in CUT:
        for call in completion.tool_calls:
            if not call.name:
                return f"tool call {call.id!r} has no name; its arguments are {call.arguments[:200]!r}"
    return None


def unsaid_in(body: bytes, completion: Completion, *, of_first: bool) -> str | None:
    """Return what the completion lacks of the content of the body that it was read from; None where it lacks nothing.

    ``of_first`` says that the caller asked for several answers, of which only the first counts.
    """
    if completion.vectors is not None:
        return None
    try:
        whole = loads(body)
    except ValueError:
        return None  # no JSON: events, or an array without its end
    # Most answers are text alone; what else a completion says is put together only where that is not enough.
    content = completion.message.content if completion.message else ""
    text = well_formed_text(content) if isinstance(content, str) else ""
    texts: dict[str, None] | None = None  # in their order, in which they are looked for
    said: Said | None = None
    in_text = Said(text)
    for path, words in words_in(first_of(whole) if of_first else whole):
        if words.strip() in {"", "null"} or (text and in_text.holds(words)):
            continue
        if texts is None:
            texts = {}
            _add_texts(completion, texts)
        if words in texts:
            continue
        if said is None:
            said = Said("\0".join(texts))
        if not said.holds(words):
            return f"the answer holds content that was not understood, at {told(path)}"
    return None


def _add_texts(value: Any, texts: dict[str, None]) -> None:
    """Add all texts in a value, in their order. No copy of it is made, and no generators in generators: it may be large."""
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
            _add_texts(getattr(value, name), texts)
