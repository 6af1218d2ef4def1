"""What the requests of several wire formats have in common: headers, images, and the caller's own options on top."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace_workers.providers.failures import request_failure

_WORDS: dict[type, str] = {
    TextPart: "text",
    ImagePart: "an image",
    ToolCallPart: "a tool call",
    ReasoningPart: "reasoning",
}


def accept_headers(*, stream: bool) -> list[tuple[str, str]]:
    """Return the headers that say what is sent, and what is to come back."""
    return [
        ("content-type", "application/json"),
        ("accept", "text/event-stream" if stream else "application/json"),
    ]


def bearer_headers(api_key: str | None, *, stream: bool) -> tuple[tuple[str, str], ...]:
    """Return the headers of an API that takes its key as a bearer token."""
    key = [("authorization", f"Bearer {api_key}")] if api_key else []
    return (*accept_headers(stream=stream), *key)


def merged(body: dict[str, Any], options: dict[str, Any], nested: Sequence[str]) -> dict[str, Any]:
    """Return the body with the caller's options over it; objects of these names are merged, not replaced."""
    result = body | options
    for name in nested:
        mine, theirs = body.get(name), options.get(name)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            result[name] = mine | theirs
    return result


def parts_of(message: Message) -> Sequence[Part]:
    """Return the parts of a message, of which plain text is one."""
    return [TextPart(message.content)] if isinstance(message.content, str) else message.content


def image_url(part: ImagePart) -> str:
    """Return the URL of an image; one that came as data is put into its URL."""
    if part.url:
        return part.url
    if not part.data or not part.media_type:
        raise request_failure("an image needs url, or data and media_type")
    return f"data:{part.media_type};base64,{part.data}"


def word_for(part: Part) -> str:
    """Return what a part is called in a refusal."""
    return _WORDS[type(part)]
