"""Finds the error in an event of a Chat Completions stream. Compatible servers send errors in many forms.

An error with its own HTTP status has the form that all formats share: see ``shared/provider_errors.py``.
"""

from __future__ import annotations

from typing import Any

from headrace_workers.providers.openai_chat.chunks import ChatChunk, groq_part
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.lenient_json import read_object
from headrace_workers.providers.shared.provider_errors import is_error
from headrace_workers.providers.shared.unread_content import refuse_content
from headrace_workers.providers.shared.wire_format import ProviderFailedError

_CHUNK_OBJECTS = (None, "", "chat.completion.chunk", "chat.completion", "text_completion")
"""Values of ``object`` that a chunk may have."""


def check_for_error(name: str, chunk: ChatChunk, data: bytes) -> None:
    """Raise ProviderFailedError where an event is an error, or is a chunk without choices that has unread content.

    ``name`` is the name of the server-sent event; ``chunk`` was decoded from ``data``.
    """
    error = chunk.error or groq_part(chunk).get("error")
    if not error and (name == "error" or not chunk.choices):
        whole = read_object(data)
        if name == "error" or is_error(whole):
            error = whole
        elif _is_chunk(whole):
            refuse_content(whole, "an event without choices")
    if error:
        raise ProviderFailedError(failures.failure_in_stream(error))


def _is_chunk(whole: dict[str, Any]) -> bool:
    """Whether an event without choices is a chunk. Gateways report on their own tools in events of other kinds."""
    return whole.get("object") in _CHUNK_OBJECTS and not isinstance(whole.get("type"), str)
