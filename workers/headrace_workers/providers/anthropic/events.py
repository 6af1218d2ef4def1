"""Decodes the events of an Anthropic stream: fast if the JSON is regular, else leniently. Pure.

The meaning of an event is the mapper's business (``stream.py``).
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_workers.providers.shared.lenient_json import UNREADABLE, loads_with_halves

# Compatible servers send null or unexpected types in any field. So the fields are Any.


class MessageDelta(msgspec.Struct, gc=False):
    """A change of a block (``text``, ``thinking``, ``partial_json``) or of the message.

    Rare fields are not here: they are read from the whole event.
    """

    type: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    stop_details: Any = None
    container: Any = None


class MessageEvent(msgspec.Struct, gc=False):
    """The data of one server-sent event."""

    type: Any = None
    index: int | None = None
    delta: MessageDelta | None = None
    content_block: Any = None
    message: Any = None
    usage: Any = None
    error: Any = None


decode = msgspec.json.Decoder(MessageEvent).decode
"""Decodes one event. Raises one of UNREADABLE."""


def plain_text(data: bytes) -> str | None:
    """Return the text of a delta of a block's text; None for any other event."""
    try:
        event = decode(data)
    except UNREADABLE:
        return None
    delta = event.delta
    if event.type != "content_block_delta" or delta is None or delta.type != "text_delta":
        return None
    return delta.text if delta.text and type(delta.text) is str else None


def decode_leniently(data: bytes) -> MessageEvent | None:
    """Decode an event that :data:`decode` refused. Return None for ``null``. Raises ValueError for anything else.

    Lone halves of surrogate pairs are kept.
    """
    whole = loads_with_halves(data)
    if whole is None:
        return None
    if not isinstance(whole, dict):
        raise ValueError(type(whole).__name__)  # noqa: TRY004 - the data is wrong, not the call
    said = whole.get("delta")
    delta = MessageDelta(**_known(MessageDelta, said)) if isinstance(said, dict) else None
    index = whole.get("index")
    return MessageEvent(
        **(_known(MessageEvent, whole) | {"delta": delta, "index": index if type(index) is int else None})
    )


def _known(struct: type[msgspec.Struct], said: dict[str, Any]) -> dict[str, Any]:
    return {name: said[name] for name in struct.__struct_fields__ if name in said}
