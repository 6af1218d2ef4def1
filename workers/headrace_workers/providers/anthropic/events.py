"""What is read of an Anthropic stream: typed events, decoded fast where they are regular and leniently where not.

Never judges what an event means; that is the mapper's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace_workers.providers.shared.lenient_json import loads_with_halves

# Compatible servers send null, or another type, wherever they like: hence Any in the leaves.


class MessageDelta(msgspec.Struct, gc=False):
    """What changes: of a block (the first three), or of the message. Rarer fields are read from the event again."""

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
"""Decodes an event; raises one of ``lenient.UNREADABLE``."""


def decode_leniently(data: bytes) -> MessageEvent | None:
    """Decode what :data:`decode` did not take; None when it says nothing. Raises ValueError for what is no event.

    Halves of surrogate pairs are kept.
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
