"""Parts of requests that several wire formats share: headers, JSON bodies, the caller's ``custom_options``.

Pure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.provider_errors import request_failure

LOGPROBS_OF_RESPONSES = "message.output_text.logprobs"
"""The word of ``include`` that asks the Responses API for log probabilities."""

_encode_json = msgspec.json.Encoder().encode
_SEVERAL = frozenset(("n", "candidateCount", "generationConfig"))
"""Keys of ``custom_options`` that may ask for several answers."""
_LOGPROBS = frozenset(("logprobs", "generationConfig", "include"))
"""Keys of ``custom_options`` that may ask for log probabilities."""

_WORDS: dict[type, str] = {
    TextPart: "text",
    ImagePart: "an image",
    AudioPart: "audio",
    FilePart: "a file",
    ToolCallPart: "a tool call",
    ReasoningPart: "reasoning",
}


def encoded(body: dict[str, Any]) -> bytes:
    """Return the body as JSON. Raises ProviderFailedError for NaN and infinity, which JSON does not have."""
    return as_json(body, "")


def as_json(value: Any, where: str) -> bytes:
    """Return a value of the request as JSON; ``where`` is its path in the caller's arguments. See :func:`encoded`."""
    try:
        data = _encode_json(value)
        # The encoder writes null for NaN and infinity. Without a null there is nothing to look for.
        found = _no_number(value, where) if b"null" in data else None
    except RecursionError:
        raise request_failure("is nested too deeply", where or None) from None
    if found is not None:
        raise request_failure(f"holds {found[1]}, which JSON cannot carry", found[0])
    return data


def _no_number(value: Any, where: str) -> tuple[str, float] | None:
    """Return the path of the first NaN or infinite number, and the number; None where there is none."""
    if type(value) is float:
        return None if math.isfinite(value) else (where, value)
    children: Any = ()
    if isinstance(value, dict):
        children = ((f"{where}.{key}" if where else str(key), child) for key, child in value.items())
    elif isinstance(value, list):
        children = ((f"{where}[{index}]", child) for index, child in enumerate(value))
    for place, child in children:
        if not isinstance(child, str) and (found := _no_number(child, place)):
            return found
    return None


def accept_headers(*, stream: bool) -> list[tuple[str, str]]:
    """Return the headers ``content-type`` and ``accept``."""
    return [
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if stream else "application/json"),
    ]


@functools.lru_cache(maxsize=256)
def bearer_headers(api_key: str | None, stream: bool) -> tuple[tuple[str, str], ...]:
    """Return the headers of an API that takes its key as a bearer token. The same object for the same arguments."""
    key = [("authorization", f"Bearer {api_key}")] if api_key else []
    return (*accept_headers(stream=stream), *key)


def merged(body: dict[str, Any], options: dict[str, Any], nested: Sequence[str]) -> dict[str, Any]:
    """Return the body with the caller's ``options`` over it.

    Objects named in ``nested`` are merged, all others replaced.
    """
    if not options:
        return body
    result = body | options
    for name in nested:
        if name in options and isinstance(mine := body.get(name), dict) and isinstance(options[name], dict):
            result[name] = mine | options[name]
    return result


def parts_of(message: Message) -> Sequence[Part]:
    """Return the parts of a message. Plain text is one text part."""
    return [TextPart(message.content)] if isinstance(message.content, str) else message.content


def word_for(part: Part) -> str:
    """Return the name of a part's kind for an error, such as "an image"."""
    return _WORDS[type(part)]


def wants_several(request: RunRequest) -> bool:
    """Whether the caller's ``custom_options`` ask for several answers. The first answer becomes the result."""
    options = request.custom_options
    if _SEVERAL.isdisjoint(options):
        return False
    config = options.get("generationConfig")
    inner = config.get("candidateCount") if isinstance(config, dict) else None
    for figure in (options.get("n"), options.get("candidateCount"), inner):
        if type(figure) is int and figure > 1:
            return True
    return False


def wants_logprobs(request: RunRequest) -> bool:
    """Whether the caller asks for log probabilities: by the argument, or by ``custom_options`` in a format's words."""
    options = request.custom_options
    if request.logprobs or _LOGPROBS.isdisjoint(options):
        return bool(request.logprobs)
    config, include = options.get("generationConfig"), options.get("include")
    return (
        options.get("logprobs") is True
        or (isinstance(config, dict) and config.get("responseLogprobs") is True)
        or (isinstance(include, list) and LOGPROBS_OF_RESPONSES in include)
    )
