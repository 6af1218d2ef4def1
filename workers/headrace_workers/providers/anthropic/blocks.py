"""Content blocks of an Anthropic message: collects them, and turns them into tool calls and a message. Pure.

Blocks of text, thinking and calls of the caller's tools are read. All other blocks (server tools and their results,
redacted thinking, compaction, and kinds that are not known yet) are kept as they came, because the API wants them back
unchanged.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import read_arguments
from headrace.types import FilePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.shared.answer_limits import weigh_arguments
from headrace_workers.providers.shared.growing_call import arguments_or_none
from headrace_workers.providers.shared.lenient_json import UNREADABLE, as_text
from headrace_workers.providers.shared.unread_content import refuse_content

API_NAME = "anthropic"
"""The value of ``api`` in ``provider_data`` that this format has made."""

_SAID_BY_PARTS = {"text": {"text"}, "thinking": {"thinking"}, "tool_use": {"id", "name", "input"}}
"""Fields of a block that its part has already, so that its opaque data does not repeat them."""
_KIND_OF_DELTA = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "tool_use"}
_SERVERS = ("server_tool_use", "mcp_tool_use", "_result")
"""Endings of the types of blocks that server tools make."""
_OWN_WORDS = ("text", "thinking", "input", "partial_json")
_DIRECT: dict[str, Any] = {"caller": {"type": "direct"}}


class ContentBlock:
    """One content block. ``call`` is the index of its tool call. ``pieces`` have its text, thinking or JSON input."""

    __slots__ = ("call", "is_open", "kind", "pieces", "said")

    def __init__(self, said: dict[str, Any], call: int | None = None) -> None:
        kind = said.get("type")
        self.kind = kind if isinstance(kind, str) else ""
        self.said = said
        self.call = call
        self.pieces: list[str] = []
        self.is_open = True

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def is_read(self) -> bool:
        """Whether the block is read. Other blocks are kept as they came."""
        return self.kind in _SAID_BY_PARTS

    def takes(self, delta_kind: str) -> bool:
        """Whether a delta of this kind is a piece of the block. A block that is kept unread may have an input."""
        wanted = _KIND_OF_DELTA.get(delta_kind)
        return self.kind == wanted or (wanted == "tool_use" and not self.is_read and bool(self.kind))

    def change(self, delta: dict[str, Any]) -> None:
        """Take a delta that is no piece of text: a signature, a citation, or an unknown kind."""
        if delta.get("type") == "citations_delta":
            if self.kind == "text" and "citation" in delta:
                if not isinstance(self.said.get("citations"), list):
                    self.said["citations"] = []
                self.said["citations"].append(delta["citation"])
        elif delta.get("type") == "signature_delta":
            self.said["signature"] = as_text(delta.get("signature"))
        elif self.kind not in _SAID_BY_PARTS:
            self.said.update((name, value) for name, value in delta.items() if name != "type")

    def opaque(self) -> dict[str, Any] | None:
        """Return the ``provider_data`` of the block's part: what the part's own fields do not have."""
        own = _SAID_BY_PARTS.get(self.kind)
        if not self.kind:
            return None
        if own is None:
            return {"api": API_NAME, "block": self._whole()}
        rest = {name: value for name, value in self.said.items() if name not in own and name != "type" and value}
        if self.kind == "thinking":
            return {"api": API_NAME, "block": {"type": "thinking", "signature": ""} | rest}
        return {"api": API_NAME, "block": rest} if rest and rest != _DIRECT else None

    def _whole(self) -> dict[str, Any]:
        """Return a block that is kept unread, together with the input that came in pieces."""
        if not self.pieces:
            return self.said
        try:
            return self.said | {"input": msgspec.json.decode(self.text)}
        except UNREADABLE:
            return self.said


def refuse_unknown(said: dict[str, Any]) -> None:
    """Raise ProviderFailedError for a block of an unknown kind, if it has text or an input.

    Blocks of server tools are kept as they came, and so are unknown blocks without text.
    """
    kind = as_text(said.get("type"))
    is_servers = kind.endswith(_SERVERS)
    if kind and is_servers:
        return
    refuse_content({key: said[key] for key in _OWN_WORDS if key in said}, f"a content block of type {kind!r}")


def part_of(block: ContentBlock, call: ToolCallText | None) -> Part | None:
    """Return the message part for a block; None if the block is empty, or its call was cut."""
    opaque = block.opaque()
    if block.kind == "text":
        return TextPart(block.text, opaque) if block.pieces else None
    if call is None:
        if opaque is None:
            return None
        return ReasoningPart(block.text if block.kind == "thinking" else "", opaque)
    arguments = read_arguments(call.arguments)
    if arguments is None:
        return None
    return ToolCallPart(call.id, call.name, arguments, opaque)


def made_files(block: ContentBlock) -> list[FilePart]:
    """Return the files that code of the model wrote, as far as the block is the result of such code.

    They are references: the Files API has the content. The block itself goes back to the API, so the parts do not.
    """
    if not block.kind.endswith("code_execution_tool_result"):
        return []
    result = block.said.get("content")
    outputs = result.get("content") if isinstance(result, dict) else None
    found = [output for output in outputs if isinstance(output, dict)] if isinstance(outputs, list) else []
    ids = [as_text(output.get("file_id")) for output in found]
    return [FilePart(file_id=file_id, provider_data={"api": API_NAME}) for file_id in ids if file_id]


def calls_of(blocks: list[ContentBlock], *, is_cut: bool) -> list[ToolCallText]:
    """Return all tool calls. Missing arguments become ``{}``; of a call that was cut they stay incomplete."""
    calls = []
    for block in blocks:
        if block.call is not None:
            arguments = arguments_or_none(block.text, is_cut=is_cut and block is blocks[-1])
            calls.append(ToolCallText(call_id(block), as_text(block.said.get("name")), arguments))
    return calls


def call_id(block: ContentBlock) -> str:
    """Return the id of a tool call. If a compatible server leaves it out, it is made from the index."""
    return as_text(block.said.get("id")) or f"call_{block.call}"


def message_of(
    blocks: list[ContentBlock],
    calls: list[ToolCallText],
    container: dict[str, Any] | None = None,
    *,
    is_weighed: bool = False,
) -> Message:
    """Return the message. Text without opaque data becomes a plain str.

    ``container`` is the container in which the server ran code; the next request names it. ``is_weighed``: the blocks
    came in one body that was weighed already, so inputs that are objects need no check.
    """
    inputs = [block for block in blocks if block.pieces and block.kind not in {"text", "thinking"}]
    weigh_arguments([block.text for block in inputs if not (is_weighed and isinstance(block.said.get("input"), dict))])
    parts: list[Part | None] = []
    for block in blocks:
        parts.append(part_of(block, None if block.call is None else calls[block.call]))
        parts += made_files(block)
    if container is not None:
        parts.append(ReasoningPart("", {"api": API_NAME, "container": container}))
    said = [part for part in parts if part is not None]
    if all(isinstance(part, TextPart) and part.provider_data is None for part in said):
        return Message("assistant", "".join(part.text for part in said if isinstance(part, TextPart)))
    return Message("assistant", said)
