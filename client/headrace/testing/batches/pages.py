"""Queries of the simulated batch APIs: their parameters, and lists in pages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from headrace.testing.shared.reply import Reply

_Item = TypeVar("_Item")


def parameters(query: str) -> dict[str, str]:
    """Return the parameters of a query. The last one counts of several with a name."""
    return dict(parse_qsl(query, keep_blank_values=True))


def limit_of(text: str | None, default: int, largest: int) -> int | None:
    """Return how many items a page has; None if the client asks for a number that is not allowed."""
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text) <= largest else None


def after(items: Sequence[_Item], cursor: str | None, id_of: Callable[[_Item], str]) -> Sequence[_Item]:
    """Return the items after the one with the id ``cursor``; all without a cursor."""
    if not cursor:
        return items
    places = [place for place, item in enumerate(items) if id_of(item) == cursor]
    return items[places[0] + 1 :] if places else []


def before(items: Sequence[_Item], cursor: str, id_of: Callable[[_Item], str], limit: int) -> Sequence[_Item]:
    """Return the last ``limit`` items before the one with the id ``cursor``."""
    places = [place for place, item in enumerate(items) if id_of(item) == cursor]
    return items[max(places[0] - limit, 0) : places[0]] if places else []


def timestamp(wall_time: int) -> str:
    """Return a time in RFC 3339, such as ``2026-11-29T12:00:00Z``. ``wall_time``: seconds since 1970."""
    return datetime.fromtimestamp(wall_time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def bytes_reply(content: bytes, content_type: str, headers: dict[str, str] | None = None) -> Reply:
    """Return a reply with these bytes, sent at once."""
    return Reply(
        frames=iter([(content, "", 0)]), content_type=content_type, content_length=len(content), headers=headers or {}
    )


def host_of(headers: dict[str, str]) -> str:
    """Return the beginning of absolute addresses of this server, such as ``http://127.0.0.1:8000``."""
    return f"http://{headers.get('host', '127.0.0.1')}"


def json_object(value: Any) -> dict[str, Any]:
    """Return the value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
