"""Checks the fields of a block, and the sources of images and documents, as Anthropic does. Pure."""

from __future__ import annotations

from typing import Any

from headrace.testing.shared.simulated_media import is_base64

_SOURCES = {"base64": {"media_type", "data"}, "url": {"url"}, "file": {"file_id"}}
_KINDS: dict[str, dict[str, set[str]]] = {
    "image": _SOURCES,
    "document": _SOURCES | {"text": {"media_type", "data"}, "content": {"content"}},
}
_TYPES = {
    ("image", "base64"): ("image/jpeg", "image/png", "image/gif", "image/webp"),
    ("document", "base64"): ("application/pdf",),
    ("document", "text"): ("text/plain",),
}
_MAX_IMAGE = 5 * 1024 * 1024


class AnthropicRefusal(Exception):  # noqa: N818 - it is an answer of the API, not a fault of this program
    """The API refuses the request; the fields are those of the error response."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message, status)
        self.message = message
        self.status = status


def check_block_fields(where: str, value: Any, must: set[str], may: set[str]) -> None:
    """Refuse a value that is no object, lacks a field, or has another one."""
    if not isinstance(value, dict):
        raise AnthropicRefusal(f"{where}: Input should be a valid dictionary")
    for name in sorted(must):
        if name not in value:
            raise AnthropicRefusal(f"{where}.{name}: Field required")
    for name in value:
        if name not in must | may:
            raise AnthropicRefusal(f"{where}.{name}: Extra inputs are not permitted")


def check_source(where: str, source: Any, kind: str) -> None:
    """Refuse the source of an image or a document that the API does not take."""
    form = source.get("type") if isinstance(source, dict) else None
    if form not in _KINDS[kind]:
        expected = ", ".join(map(repr, _KINDS[kind]))
        raise AnthropicRefusal(
            f"{where}: Input tag '{form}' found using 'type' does not match any of the expected tags: {expected}"
        )
    check_block_fields(f"{where}.{form}", source, _KINDS[kind][form] | {"type"}, set())
    taken = _TYPES.get((kind, form))
    if taken is not None and source["media_type"] not in taken:
        words = " or ".join(filter(None, [", ".join(map(repr, taken[:-1])), repr(taken[-1])]))
        raise AnthropicRefusal(f"{where}.{form}.media_type: Input should be {words}")
    if form == "base64":
        if not is_base64(source["data"]):
            raise AnthropicRefusal(f"{where}.base64.data: Invalid base64 data")
        if kind == "image" and len(source["data"]) > _MAX_IMAGE:
            size = len(source["data"])
            raise AnthropicRefusal(f"{where}.base64: image exceeds 5 MB maximum: {size} bytes > {_MAX_IMAGE} bytes")
    if form == "text" and not str(source["data"]).strip():
        raise AnthropicRefusal(f"{where}.text.data: text document content must contain non-whitespace text")
