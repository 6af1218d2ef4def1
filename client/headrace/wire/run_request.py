"""The request of a run, as a client sends it to a worker. The client encodes it, and only the worker decodes it."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import msgspec

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, Tool

EXTRA = "extra"
"""The need of a request that has ``extra`` keys of the provider, or a tool of the provider's own type."""
FITS_SCHEMAS = "fits_schemas"
"""The need of a request with schemas that the worker must fit to what the provider takes."""
OPTIONS = "options"
"""The need of a request that has one of LATER_OPTIONS."""
MEDIA = "media"
"""The need of a request that has audio, files, or images by ``file_id`` or with ``provider_data``."""
KNOWN_NEEDS = frozenset({EXTRA, FITS_SCHEMAS, MEDIA, OPTIONS})
"""The needs that this version knows. Minor version 1 knew none."""
CUSTOM = "custom"
"""The type of a tool that takes text instead of JSON arguments."""


class RunRequest(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A request, checked and normalised. Durations are in seconds; ``None`` means the worker's default."""

    provider: str
    model: str
    messages: list[Message]
    stream: bool
    tools: list[Tool] = []
    tool_choice: str | dict[str, str] | None = None
    response_format: dict[str, Any] | None = None
    temperature: float | None = None
    max_output_tokens: int | None = None
    top_p: float | None = None
    stop_sequences: list[str] = []
    reasoning_effort: str | None = None
    custom_options: dict[str, Any] = {}
    total_timeout: float | None = None
    first_chunk_timeout: float | None = None
    idle_timeout: float | None = None
    tags: list[str] = []
    user_id: str | None = None
    session_id: str | None = None
    trace_id: str = ""
    parent_span_id: str | None = None
    send_trace: bool = True
    inputs: list[str] = []
    """Texts to embed. A request with inputs asks for their vectors only."""
    dimensions: int | None = None
    traceparent: str | None = None
    """W3C trace context of the caller's active OpenTelemetry span."""
    fits_schemas: bool = False
    """Whether the worker fits the schema of ``response_format``, and those of strict tools, to what the provider takes."""
    seed: int | None = None
    parallel_tool_calls: bool | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_k: int | None = None
    logprobs: bool | None = None
    """True where ``top_logprobs`` is set."""
    top_logprobs: int | None = None
    metadata: dict[str, str] = {}
    service_tier: str | None = None
    verbosity: str | None = None


class OptionalFields:
    """Some fields of run requests that most runs leave out. One step tells whether a request has any of them."""

    def __init__(self, *names: str) -> None:
        self._names = names
        self._values_of: Callable[[RunRequest], tuple[object, ...]] = attrgetter(*names)
        self._left_out = self._values_of(RunRequest(provider="", model="", messages=[], stream=False))

    def has_any(self, request: RunRequest) -> bool:
        """Return whether a field of the request is not its default."""
        return self._values_of(request) != self._left_out

    def given(self, request: RunRequest) -> dict[str, Any]:
        """Return the fields that are not None."""
        values = self._values_of(request)
        if values == self._left_out:
            return {}
        return {name: value for name, value in zip(self._names, values, strict=True) if value is not None}


LATER_OPTIONS = (
    "seed",
    "parallel_tool_calls",
    "frequency_penalty",
    "presence_penalty",
    "top_k",
    "logprobs",
    "top_logprobs",
    "metadata",
    "service_tier",
    "verbosity",
)
"""Fields that a worker before this version would drop."""

_later_options = OptionalFields(*LATER_OPTIONS)


def needs(request: RunRequest) -> list[str]:
    """Return what a worker must know, so that it drops no part of the request."""
    messages = [message for message in request.messages if message.extra or type(message.content) is not str]
    needed: list[str] = []
    if (messages or request.tools) and _has_extra(messages, request.tools):
        needed.append(EXTRA)
    if request.fits_schemas:
        needed.append(FITS_SCHEMAS)
    if _later_options.has_any(request):
        needed.append(OPTIONS)
    if messages and _has_new_media(messages):
        needed.append(MEDIA)
    return needed


def _has_extra(messages: list[Message], tools: list[Tool]) -> bool:
    if any(tool.extra or tool.type != "function" for tool in tools):
        return True
    return any(message.extra or any(part.extra for part in _parts_of(message)) for message in messages)


def _has_new_media(messages: list[Message]) -> bool:
    return any(_is_new_media(part) for message in messages for part in _parts_of(message))


def _parts_of(message: Message) -> list[Part]:
    return [] if isinstance(message.content, str) else message.content


def _is_new_media(part: Part) -> bool:
    """Whether an earlier version would drop or misread a part."""
    if isinstance(part, ImagePart):
        return bool(part.file_id or part.provider_data)
    return isinstance(part, AudioPart | FilePart)


def chosen_by(tool: Tool) -> str:
    """Return the name by which ``tool_choice`` chooses a tool.

    A provider's own tool without a name is chosen by its type.
    """
    inner = (tool.extra or {}).get(CUSTOM) if tool.type == CUSTOM else None  # as Chat Completions has it
    name = inner.get("name") if isinstance(inner, dict) else None
    return tool.name or (name if isinstance(name, str) else "") or tool.type
