"""Makes arguments of runs with a mark in each value, and finds the marks in request bodies.

This tests that no argument vanishes. Each value has a different text, so that it can be found again. Keys are
Headrace's, a provider's, or unknown.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from hypothesis import strategies as st

Pair = tuple[str, Any]

FURTHER_KEYS = {
    "message": ["cache_control", "name", "reasoning_content", "refusal", "colour", "phase"],
    "part": ["cache_control", "citations", "detail", "annotations", "colour", "prompt_cache_breakpoint"],
    "call": ["cache_control", "extra_content", "colour", "index"],
    "tool": ["cache_control", "strict", "defer_loading", "allowed_callers", "colour", "eager_input_streaming"],
    "server tool": ["max_uses", "allowed_domains", "user_location", "cache_control", "colour"],
    "option": ["seed", "metadata", "service_tier", "colour"],
}
"""Place → keys that at least one format has there, and ``colour``, which no format has."""

SERVER_TOOLS = [
    {"type": "web_search_20250305", "name": "web_search"},
    {"type": "code_execution_20250825", "name": "code_execution"},
    {"type": "web_search"},
    {"type": "code_interpreter"},
    {"type": "google_search"},
    {"type": "urlContext"},
]


class Marks:
    """Makes texts that can be found again."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def mark(self) -> str:
        """Return a text that no other value has."""
        return f"mark{next(self._numbers)}."


@st.composite
def _further(draw: st.DrawFn, marks: Marks, where: str) -> dict[str, Any]:
    keys = draw(st.lists(st.sampled_from(FURTHER_KEYS[where]), unique=True, max_size=2))
    return {key: draw(_value(marks, key)) for key in keys}


@st.composite
def _value(draw: st.DrawFn, marks: Marks, key: str) -> Any:
    if key in {"strict", "defer_loading", "eager_input_streaming"}:
        return draw(st.booleans())
    if key in {"name", "refusal", "reasoning_content", "detail"}:
        return marks.mark()
    shape = draw(st.sampled_from(["text", "dict", "list"]))
    if shape == "text":
        return marks.mark()
    if shape == "list":
        return [marks.mark(), {"inner": marks.mark()}]
    return {"type": "ephemeral", "inner": {"deep": marks.mark()}}


@st.composite
def _part(draw: st.DrawFn, marks: Marks, role: str) -> dict[str, Any]:
    media = ["image", "image_url", "file", "file by url", "document", "audio"]
    kinds = ["text", *media] if role == "user" or draw(st.integers(0, 9)) == 0 else ["text"]
    kind = draw(st.sampled_from(kinds))
    further = draw(_further(marks, "part"))
    match kind:
        case "image":
            return {"type": "image", "url": f"https://x.test/{marks.mark()}png", **further}
        case "image_url":
            inside = {"detail": marks.mark()} if draw(st.booleans()) else {}
            further.pop("detail", None)
            return {"type": "image_url", "image_url": {"url": f"https://x.test/{marks.mark()}png", **inside}, **further}
        case "file":
            return {"type": "file", "text": marks.mark(), **further}
        case "file by url":
            return {"type": "input_file", "file_url": f"https://x.test/{marks.mark()}pdf", **further}
        case "document":
            source = {"type": "text", "media_type": "text/plain", "data": marks.mark()}
            return {"type": "document", "source": source, "title": marks.mark(), **further}
        case "audio":
            return {"type": "audio_url", "audio_url": {"url": f"https://x.test/{marks.mark()}mp3"}, **further}
        case _:
            is_empty = draw(st.integers(0, 9)) == 0
            return {"type": "text", "text": draw(st.sampled_from(["", " "])) if is_empty else marks.mark(), **further}


@st.composite
def _call(draw: st.DrawFn, marks: Marks) -> dict[str, Any]:
    arguments = msgspec.json.encode({"city": marks.mark()}).decode()
    inside = {"colour": marks.mark()} if draw(st.integers(0, 7)) == 0 else {}
    function = {"name": f"f_{marks.mark().rstrip('.')}", "arguments": arguments, **inside}
    return {
        "id": f"call_{draw(st.integers(0, 10**6))}",  # Google has no ids of its clients
        "type": "function",
        "function": function,
        **draw(_further(marks, "call")),
    }


@st.composite
def _message(draw: st.DrawFn, marks: Marks) -> list[dict[str, Any]]:
    """Return a message, or a call and its answer."""
    role = draw(st.sampled_from(["system", "user", "user", "assistant", "call"]))
    further = draw(_further(marks, "message"))
    if role == "call":
        call = draw(_call(marks))
        answer = {"role": "tool", "tool_call_id": call["id"], "content": marks.mark()}
        if draw(st.booleans()):
            answer["name"] = call["function"]["name"]
        return [{"role": "assistant", "content": marks.mark(), "tool_calls": [call], **further}, answer]
    if draw(st.integers(0, 9)) == 0:
        answer = {
            "role": "tool",
            "tool_call_id": "call_1",
            "name": f"f_{marks.mark().rstrip('.')}",
            "content": [draw(_part(marks, "tool"))],
        }
        call = {
            "type": "tool_call",
            "id": "call_1",
            "name": answer["name"],
            "arguments": {"city": marks.mark()},
            **draw(_further(marks, "call")),
        }
        return [{"role": draw(st.sampled_from(["assistant", "assistant", "user"])), "content": [call]}, answer]
    if draw(st.booleans()):
        return [{"role": role, "content": marks.mark(), **further}]
    parts = draw(st.lists(_part(marks, role), min_size=1, max_size=2))
    return [{"role": role, "content": parts, **further}]


@st.composite
def _tool(draw: st.DrawFn, marks: Marks) -> dict[str, Any]:
    if draw(st.integers(0, 3)) == 0:
        return {**draw(st.sampled_from(SERVER_TOOLS)), **draw(_further(marks, "server tool"))}
    schema = {
        "type": "object",
        "properties": {f"p_{marks.mark().rstrip('.')}": {"type": "string", "description": marks.mark()}},
    }
    key = draw(st.sampled_from(["parameters", "input_schema", "inputSchema"]))
    function = {"name": f"f_{marks.mark().rstrip('.')}", "description": marks.mark(), key: schema}
    further = draw(_further(marks, "tool"))
    return {"type": "function", "function": function, **further} if draw(st.booleans()) else {**function, **further}


@st.composite
def arguments(draw: st.DrawFn) -> dict[str, Any]:
    """Return arguments of a run, without a model."""
    marks = Marks()
    first = [{"role": "user", "content": marks.mark()}]
    more = [message for group in draw(st.lists(_message(marks), max_size=2)) for message in group]
    given: dict[str, Any] = {"messages": [*first, *more]}
    if tools := draw(st.lists(_tool(marks), max_size=2)):
        given["tools"] = tools
    if options := draw(_further(marks, "option")):
        given["custom_options"] = options
    own = {"service_tier": marks.mark(), "metadata": {"user_id": marks.mark()}}
    for name in draw(st.lists(st.sampled_from(sorted(own)), unique=True, max_size=2)):
        if name not in options:  # an option goes over the argument of its name
            given[name] = own[name]
    return given


def pairs_in(value: Any) -> Iterator[Pair]:
    """Yield each key with its plain value, and each plain item of a list with an empty key.

    JSON texts are decoded too.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            yield from pairs_in(item) if isinstance(item, dict | list) else _leaf(key, item)
    elif isinstance(value, list):
        for item in value:
            yield from pairs_in(item) if isinstance(item, dict | list) else _leaf("", item)


def _leaf(key: str, value: Any) -> Iterator[Pair]:
    if isinstance(value, str) and value.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            yield from pairs_in(msgspec.json.decode(value))
    yield key, value


_MARK = re.compile(r"mark\d+")
_DATA = re.compile(r";base64,([A-Za-z0-9+/]+=*)")


def marks_in(value: Any) -> set[str]:
    """Return the marks in a value, keys and the texts of data URLs included."""
    text = msgspec.json.encode(value).decode()
    files = (base64.b64decode(data).decode(errors="replace") for data in _DATA.findall(text))
    return set(_MARK.findall("\n".join([text, *files])))


_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d+)\]|\['([^']+)'\]")


def is_path(given: dict[str, Any], path: str) -> bool:
    """Return whether a path leads to a value in ``given``."""
    name = re.match(r"\w+", path)
    if name is None or name[0] not in given:
        return False
    value, at = given[name[0]], name.end()
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return False
        key: Any = int(step[2]) if step[2] else step[1] or step[3]
        try:
            value = value[key]
        except (LookupError, TypeError):
            return False
        at = step.end()
    return True
