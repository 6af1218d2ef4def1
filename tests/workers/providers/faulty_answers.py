"""Makes answers with one fault, and reads the content that they still have, by other code than the product's.

A fault changes one value of one event or of a whole body, or cuts off the end. The tests decide which result is right.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

Event = tuple[str, Any]
"""Name and data of an event. Data of type bytes is no JSON."""


class RecordedAnswer(msgspec.Struct, frozen=True):
    """One answer: a stream of events, or a whole body as the only event."""

    api: str
    events: list[Event]
    is_stream: bool


class FaultyAnswer(msgspec.Struct, frozen=True):
    """An answer with one fault, and a description of the fault."""

    answer: RecordedAnswer
    what: str


_DROP = object()


def body_of(answer: RecordedAnswer) -> bytes:
    """Return the bytes of an answer."""
    if not answer.is_stream:
        return _bytes(answer.events[0][1])
    return b"".join(
        (f"event: {name}\n".encode() if name else b"") + b"data: " + _bytes(data) + b"\n\n"
        for name, data in answer.events
    )


def mutants(answer: RecordedAnswer, chance: random.Random, count: int | None) -> Iterator[FaultyAnswer]:
    """Yield ``count`` faulty forms of an answer; all of them if ``count`` is None."""
    places = [(at, path) for at, (_, data) in enumerate(answer.events) for path in paths_of(data)]
    all_of_them = ((at, path, fault) for at, path in places for fault in FAULTS)
    if count is not None and places:
        chosen = [(*chance.choice(places), chance.choice(list(FAULTS))) for _ in range(count)]
        yield from (_mutant(answer, *each) for each in chosen)
    elif count is None:
        yield from (_mutant(answer, *each) for each in all_of_them)
    if answer.is_stream:
        ends = range(len(answer.events)) if count is None else [chance.randrange(len(answer.events))]
        for end in ends:
            yield FaultyAnswer(msgspec.structs.replace(answer, events=answer.events[:end]), f"cut before event {end}")


def _mutant(answer: RecordedAnswer, at: int, path: tuple[Any, ...], fault: str) -> FaultyAnswer:
    name, data = answer.events[at]
    changed = _changed(data, path, FAULTS[fault])
    events = [*answer.events[:at], (name, changed), *answer.events[at + 1 :]]
    return FaultyAnswer(
        msgspec.structs.replace(answer, events=events), f"event {at}, {'.'.join(map(str, path))}: {fault}"
    )


FAULTS: dict[str, Callable[[Any], Any]] = {
    "dropped": lambda _: _DROP,
    "null": lambda _: None,
    "the text null": lambda _: "null",
    "empty": lambda _: "",
    "a number": lambda _: 7,
    "a number of 201 bits": lambda _: 2**200,
    "true": lambda _: True,
    "in a list": lambda value: [value],
    "in an object": lambda value: {"value": value},
    "an empty list": lambda _: [],
    "half a character": lambda value: value + "\ud83d" if isinstance(value, str) else value,
    "of another name": lambda value: ("renamed", value),
    "another place": lambda value: value + 1 if type(value) is int else value,
}


def _changed(data: Any, path: tuple[Any, ...], fault: Callable[[Any], Any]) -> Any:
    data = copy.deepcopy(data)
    node = data
    for step in path[:-1]:
        node = node[step]
    value = fault(node[path[-1]])
    if value is _DROP:
        del node[path[-1]]
    elif isinstance(value, tuple):
        if isinstance(node, dict):
            node[f"{path[-1]}_x"] = node.pop(path[-1])
    else:
        node[path[-1]] = value
    return data


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


def _bytes(data: Any) -> bytes:
    return data if isinstance(data, bytes) else json.dumps(data).encode()


# The content of an answer.


class Said(msgspec.Struct):
    """The content of an answer: the number of characters in its pieces, its whole texts, and whether it has an end."""

    characters: int = 0
    wholes: list[str] = []
    has_end: bool = False


def said_by(answer: RecordedAnswer) -> Said:
    """Return the content that an answer still has."""
    said = Said(wholes=[], has_end=not answer.is_stream)
    reader = {"openai-chat": _chat, "openai-responses": _responses, "anthropic": _anthropic, "google": _google}[
        answer.api
    ]
    reader(answer, said)
    return said


def _piece(said: Said, value: Any, *, is_argument: bool = False) -> None:
    if is_argument and isinstance(value, str) and value.strip() == "null":
        return  # it stands for no arguments
    for text in [value] if isinstance(value, str) else _strings(value):
        said.characters += len(text)
    if type(value) in {int, float}:
        said.characters += 1


def _whole(said: Said, value: Any) -> None:
    said.wholes += [text for text in _strings(value) if text.strip() not in {"", "null"}]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(item)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _part_texts(content: Any) -> Any:
    """Return the texts of a content field: a text, or the texts of its parts."""
    if not isinstance(content, list):
        return content
    words = [part.get("text", part.get("thinking")) if isinstance(part, dict) else part for part in content]
    return [_part_texts(word) for word in words]


def _is_other_choice(index: Any) -> bool:
    return index != 0 if type(index) is int else isinstance(index, str) and index.isdecimal() and int(index) != 0


def _chat(answer: RecordedAnswer, said: Said) -> None:
    add = _piece if answer.is_stream else _whole
    for _, data in answer.events:
        said.has_end = said.has_end or (isinstance(data, bytes) and data.strip() == b"[DONE]")
        for choice in _dicts(data.get("choices") if isinstance(data, dict) else None):
            word = choice.get("finish_reason")
            said.has_end = said.has_end or (isinstance(word, str) and word not in {"", "null"})
            message = choice.get("delta" if answer.is_stream else "message")
            # Another choice with a finish reason is an alternative, unless the first choice lacks text or an end.
            is_answer_of_its_own = _is_other_choice(choice.get("index")) and word is not None
            if not isinstance(message, dict) or is_answer_of_its_own:
                continue
            add(said, _part_texts(message.get("content")))
            reasoning = message.get("reasoning_content"), message.get("reasoning")
            add(said, reasoning[0] if reasoning[0] not in (None, "") else reasoning[1])
            add(said, message.get("refusal"))
            for call in _dicts(message.get("tool_calls")):
                function = call.get("function")
                if isinstance(function, dict):
                    _argument(said, function.get("arguments"), is_stream=answer.is_stream)


def _argument(said: Said, value: Any, *, is_stream: bool) -> None:
    if is_stream:
        _piece(said, value, is_argument=True)
    else:
        _whole(said, value)


def _anthropic(answer: RecordedAnswer, said: Said) -> None:
    kinds: dict[Any, Any] = {}
    for name, data in answer.events:
        if not isinstance(data, dict):
            continue
        kind = name or data.get("type")
        if not answer.is_stream:
            for block in _dicts(data.get("content")):
                _whole(said, [block.get(key) for key in ("text", "thinking")])
        elif kind == "content_block_start" and isinstance(data.get("content_block"), dict):
            kinds[str(data.get("index"))] = data["content_block"].get("type")
        elif kind == "content_block_delta" and isinstance(data.get("delta"), dict):
            delta = data["delta"]
            _piece(said, delta.get("text"))
            _piece(said, delta.get("thinking"))
            if kinds.get(str(data.get("index")), "tool_use") == "tool_use":
                _piece(said, delta.get("partial_json"), is_argument=True)
        elif kind == "message_delta" and isinstance(data.get("delta"), dict):
            word = data["delta"].get("stop_reason")
            said.has_end = said.has_end or (isinstance(word, str) and word not in {"", "null"})
        said.has_end = said.has_end or "message_stop" in (kind, name)


def _google(answer: RecordedAnswer, said: Said) -> None:
    for _, data in answer.events:
        for whole in [data] if isinstance(data, dict) else _dicts(data):
            feedback = whole.get("promptFeedback")
            said.has_end = said.has_end or bool(isinstance(feedback, dict) and feedback.get("blockReason"))
            for candidate in _dicts(whole.get("candidates")):
                word = candidate.get("finishReason")
                said.has_end = said.has_end or (isinstance(word, str) and word not in {"", "null"})
                content = candidate.get("content")
                for part in _dicts(content.get("parts") if isinstance(content, dict) else None):
                    _piece(said, part.get("text"))
                    call = part.get("functionCall")
                    _whole(said, call.get("args") if isinstance(call, dict) else None)


_PIECES = ("output_text", "reasoning_summary_text", "reasoning_text", "refusal", "function_call_arguments")


def _responses(answer: RecordedAnswer, said: Said) -> None:
    for name, data in answer.events:
        if not isinstance(data, dict):
            said.has_end = said.has_end or data == b"[DONE]"
            continue
        kind = data.get("type") if isinstance(data.get("type"), str) else name
        if kind in [f"response.{piece}.delta" for piece in _PIECES]:
            _piece(said, data.get("delta") if isinstance(data.get("delta"), str) else None)
        response = data if not answer.is_stream else data.get("response") if kind == "response.completed" else None
        said.has_end = said.has_end or {kind, name} & {"response.completed", "response.incomplete"} != set()
        for item in _dicts(response.get("output") if isinstance(response, dict) else None):
            if item.get("type") == "message":
                _whole(said, [part.get("text") for part in _dicts(item.get("content"))])
            elif item.get("type") == "function_call":
                _whole(said, item.get("arguments") if not answer.is_stream else None)
