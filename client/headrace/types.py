"""The public data types: messages, tools, usage, events and results.

All are frozen msgspec Structs, so they compare, hash where their fields do, pickle, and cross a process boundary as
they are. This module knows nothing of processes, sockets or providers.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
FinishReason = Literal["stop", "tool_calls", "max_tokens", "content_filter", "error"]
UsageSource = Literal["provider", "partial", "estimated", "none"]


class TextPart(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """Text in a message.

    ``provider_data`` (here and on the other parts) is what a provider needs back byte for byte to accept the part again.
    ``extra`` (here, on the other parts, on messages and tools) holds further keys that the caller gave, in the provider's
    own words, such as ``cache_control``. They are sent where the provider's format has them, and refused by name elsewhere.
    """

    text: str
    provider_data: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


class ImagePart(msgspec.Struct, frozen=True, tag="image", omit_defaults=True):
    """An image, by ``url`` or as base64 ``data`` with its ``media_type`` (``image/png``); ``extra`` may hold ``detail``."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    extra: dict[str, Any] | None = None


class ToolCallPart(msgspec.Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """A call of a tool, in a message of the assistant.

    In ``extra``, the key ``function`` holds further keys that stood inside ``function`` of OpenAI's form.
    """

    id: str
    name: str
    arguments: dict[str, Any]
    provider_data: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


class ReasoningPart(msgspec.Struct, frozen=True, tag="reasoning", omit_defaults=True):
    """Reasoning of the model, in a message of the assistant; kept so that it can be sent back."""

    text: str = ""
    provider_data: dict[str, Any] | None = None
    extra: dict[str, Any] | None = None


Part = TextPart | ImagePart | ToolCallPart | ReasoningPart


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """One message of a conversation.

    ``tool_call_id`` and ``tool_name`` belong to role ``tool``: they say which call the content answers. ``extra`` holds
    further keys of the message: see :class:`TextPart`.
    """

    role: Role
    content: str | list[Part] = ""
    tool_call_id: str | None = None
    tool_name: str | None = None
    extra: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The message's text parts, joined."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content if isinstance(part, TextPart))

    @property
    def tool_calls(self) -> list[ToolCallPart]:
        """The message's tool calls."""
        if isinstance(self.content, str):
            return []
        return [part for part in self.content if isinstance(part, ToolCallPart)]


class Tool(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool that the model may call; ``parameters`` is a JSON schema.

    With another ``type`` than ``function`` it is a tool of the provider's own, such as ``web_search_20250305``: its
    settings are in ``extra``, and ``name`` may be empty. ``extra`` also holds further keys of a function, such as
    ``cache_control``; its key ``function`` holds those that stood inside ``function`` of OpenAI's form.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    strict: bool | None = None
    type: str = "function"
    extra: dict[str, Any] | None = None


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made, complete."""

    id: str
    name: str
    arguments: dict[str, Any]


class IncompleteToolCall(msgspec.Struct, frozen=True):
    """A call that was cut off, by ``max_output_tokens`` or an abort; ``arguments`` is the raw text so far."""

    id: str
    name: str
    arguments: str


class Usage(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Tokens of a run. Input includes cached input; output includes reasoning.

    ``source`` says how far to trust the figures: ``provider`` (its final figures), ``partial`` (its running figures, the
    run did not end), ``estimated`` (by Headrace, from the length of the text), ``none`` (nothing is known; all zero).
    ``server_tool_requests`` counts what the provider's own tools did, in the provider's words (``web_search_requests``).
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    source: UsageSource = "none"
    server_tool_requests: dict[str, int] = {}


# Events. On the wire and in the buffers text is a bare str: it is by far the most frequent, and costs least so.


class TextDelta(msgspec.Struct, frozen=True, gc=False):
    """Text that arrived."""

    text: str


class ReasoningDelta(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Reasoning that arrived."""

    text: str


class RefusalDelta(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Words in which the model refuses, where the provider sends them apart from text."""

    text: str


class ToolCallDelta(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """A piece of tool call number ``index``. ``id`` and ``name`` come with its first piece, ``arguments`` is a fragment."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class UsageUpdate(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Usage as known so far; each update replaces the one before."""

    usage: Usage


RunEvent = str | ReasoningDelta | RefusalDelta | ToolCallDelta | UsageUpdate
"""An event as it crosses process boundaries."""

StreamEvent = TextDelta | ReasoningDelta | RefusalDelta | ToolCallDelta | UsageUpdate
"""An event as ``stream.events()`` yields it."""


class RunLocalResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to.

    ``latency_ms`` runs from the call to its end, in milliseconds. ``cost`` is in US dollars, ``None`` when no price is
    known. ``finish_reason`` is Headrace's word, ``provider_finish_reason`` the provider's own. ``message`` is the assistant's
    message, ready to be sent back. ``attempts`` counts how often the run was handed to a worker.
    """

    text: str
    span_id: str
    trace_id: str
    latency_ms: float
    usage: Usage
    cost: float | None
    provider: str
    model: str
    tool_calls: list[ToolCall]
    incomplete_tool_calls: list[IncompleteToolCall]
    finish_reason: FinishReason | None
    provider_finish_reason: str | None
    message: Message
    reasoning: str
    refusal: str | None
    attempts: int


class RunEmbeddingResult(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of some texts, in the order of the texts; the other fields as in :class:`RunLocalResult`."""

    embeddings: list[list[float]]
    span_id: str
    trace_id: str
    latency_ms: float
    usage: Usage
    cost: float | None
    provider: str
    model: str
    attempts: int


class FlushCounts(msgspec.Struct, frozen=True):
    """What became of an engine's spans since its start.

    ``delivered`` are stored, and with every sink; ``pending`` are not yet; ``failed`` never will be.
    """

    delivered: int
    pending: int
    failed: int


class StreamResult(RunLocalResult, frozen=True, kw_only=True):
    """What a streamed run came to. ``finish_reason`` is ``None`` when it was aborted."""

    aborted: bool
