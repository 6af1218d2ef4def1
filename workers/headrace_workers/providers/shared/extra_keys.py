"""Checks keys that Headrace does not read itself, such as ``cache_control``: sent if the format has them, else refused.

Each wire format declares one :class:`ExtraKeys` table; docs/providers.md shows them side by side.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal

import msgspec

from headrace.text.similar_names import meant
from headrace.types import Message
from headrace_workers.providers.shared.provider_errors import request_failure

Place = Literal[
    "message",
    "assistant message",
    "tool message",
    "text",
    "image",
    "image_url",
    "audio",
    "input_audio",
    "file",
    "inner file",
    "tool call",
    "called function",
    "reasoning",
    "tool",
    "function",
]
"""Where a key may stand. ``message`` is a user's or the system's message. ``image_url``, ``input_audio``,
``inner file``, ``function`` and ``called function`` are the inner objects of OpenAI's forms."""

_INNER: dict[Place, tuple[str, Place]] = {
    "image": ("image_url", "image_url"),
    "audio": ("input_audio", "input_audio"),
    "file": ("file", "inner file"),
    "tool": ("function", "function"),
    "tool call": ("function", "called function"),
}
_OWN_FIELDS: dict[str, tuple[str, ...]] = {
    "tool": ("name", "description", "parameters", "input_schema", "strict", "type"),
    "function": ("name", "description", "parameters", "strict"),
    "text": ("type", "text"),
    "image": ("type", "url", "data", "media_type", "image_url"),
    "audio": ("type", "url", "data", "media_type", "input_audio"),
    "file": ("type", "name", "media_type", "data", "text", "url", "file_id"),
    "tool call": ("type", "id", "name", "arguments"),
}
"""Keys that Headrace reads itself: an error suggests one of them for a misspelt key."""


class ExtraKeys(msgspec.Struct, frozen=True):
    """The extra keys that one wire format takes, by place. ``hints``: key → what to use instead."""

    api: str
    taken: dict[Place, Collection[str]]
    hints: Mapping[str, str] = {}

    def of(self, place: Place, where: str, extra: dict[str, Any] | None) -> dict[str, Any]:
        """Return the keys to send. A key whose value is None counts as absent.

        ``where`` is the path of the object in the caller's arguments, for the error. Raises ProviderFailedError
        (``invalid_request``) for the first key that the format does not have at this place.
        """
        if not extra:
            return {}
        outer, inner = self.of_both(place, where, extra)
        return inner | outer

    def of_both(self, place: Place, where: str, extra: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return two dicts of keys to send: the outer keys, and the keys inside OpenAI's inner object.

        See :meth:`of`.
        """
        outer = dict(extra or {})
        key, inner_place = _INNER.get(place, ("", place))
        inner = outer.pop(key, None)
        if inner is not None and not isinstance(inner, dict):
            raise request_failure("takes a dict", f"{where}.{key}")
        taken, taken_inside = self.taken.get(place, ()), self.taken.get(inner_place, ())
        inside = self._checked(inner_place, f"{where}.{key}", inner or {}, taken_inside)
        return self._checked(place, where, outer, taken), inside

    def of_message(self, where: str, message: Message, also: Collection[str] = ()) -> dict[str, Any]:
        """Return the extra keys of the message itself, without its parts.

        ``also`` are keys that are taken in addition.
        """
        extra = message.extra
        if message.tool_name is not None and message.role != "tool":
            extra = {"name": message.tool_name} | (extra or {})
        if not extra:
            return {}
        places: dict[str, Place] = {"assistant": "assistant message", "tool": "tool message"}
        place = places.get(message.role, "message")
        return self._checked(place, where, extra or {}, {*self.taken.get(place, ()), *also})

    def _checked(self, place: Place, where: str, extra: dict[str, Any], taken: Collection[str]) -> dict[str, Any]:
        given = {key: value for key, value in extra.items() if value is not None}
        for key in given:
            if key not in taken:
                raise request_failure(self._refusal(place, key, taken), f"{where}.{key}")
        return given

    def _refusal(self, place: Place, key: str, taken: Collection[str]) -> str:
        if key in self.hints:
            return f"{self.api} does not take it: {self.hints[key]}"
        words = f"{self.api} does not take it here"
        if (close := meant(key, [*sorted(taken), *_OWN_FIELDS.get(place, ())])) is not None:
            return f"{words}; did you mean {close}?"
        return f"{words}; further keys that it takes: {', '.join(sorted(taken))}" if taken else words
