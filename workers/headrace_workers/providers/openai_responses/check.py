"""Checks that no part of a Responses answer was lost: each item can be read, and its words were sent to the client.

Pure. Items of server tools are kept as they came. They have no words of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from headrace.answers.tool_arguments import well_formed_text
from headrace_workers.providers.openai_responses.events import Item
from headrace_workers.providers.shared.answer_limits import SearchedWords
from headrace_workers.providers.shared.lenient_json import as_text
from headrace_workers.providers.shared.provider_errors import protocol_failure
from headrace_workers.providers.shared.unread_content import elements_of, object_in, refuse_content, text_in

_FIELDS = {
    "output_text": ("text", "text"),
    "text": ("text", "text"),
    "": ("text", "text"),
    "refusal": ("refusal", "refusal"),
    "summary_text": ("reasoning", "text"),
    "reasoning_text": ("reasoning", "text"),
}
"""Type of a part → the kind of its words, and the key that they stand under."""

KindAndWords = tuple[str, str]
"""The kind (``text``, ``reasoning`` or ``refusal``), and the words."""


def check_items(items: Sequence[Item], said: Mapping[str, str]) -> None:
    """Raise ProviderFailedError if an item cannot be read, or has words that are not in ``said``.

    ``said``: kind → all words of this kind that were sent to the client.
    """
    whole = {kind: SearchedWords(well_formed_text(words)) for kind, words in said.items()}
    for item in items:
        for kind, words in _words_of(item):
            if words.strip() and not whole[kind].holds(well_formed_text(words)):
                raise protocol_failure(f"the end of the response has {kind} that did not come before: {words[:100]!r}")


def _words_of(item: Item) -> Iterator[KindAndWords]:
    match item.get("type"):
        case "message":
            yield from _words_in(item, "content", "text")
        case "reasoning":
            yield from _words_in(item, "summary", "reasoning")
            yield from _words_in(item, "content", "reasoning")
        case "function_call" | "custom_tool_call" as kind:
            text_in(item.get("name"), "the name of a tool call")
            if kind == "custom_tool_call":
                text_in(item.get("input"), "the input of a custom tool")
        case kind:
            _refuse_unknown(item, as_text(kind))


def _words_in(item: Item, key: str, kind: str) -> Iterator[KindAndWords]:
    content = item.get(key)
    if isinstance(content, str):
        yield kind, content
        return
    for element in elements_of(content, f"{key} of an item"):
        part = object_in(element, f"a part of {key}")
        field = _FIELDS.get(as_text(part.get("type")))
        if field is None:
            refuse_content(part, f"a part of type {as_text(part.get('type'))!r}")
        else:
            yield kind if field[0] == "text" else field[0], text_in(part.get(field[1]), f"{key} of an item")


def _refuse_unknown(item: Item, kind: str) -> None:
    content = item.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    if any(part.get("type") in {"output_text", "refusal"} for part in parts):
        refuse_content({"content": parts}, f"an item of type {kind!r}")
    is_servers = kind.endswith("_call")
    if not is_servers and item.get("call_id") and item.get("name") and ("arguments" in item or "input" in item):
        raise protocol_failure(f"an item of the unknown type {kind!r} calls the tool {as_text(item['name'])}")
