"""Embeddings behind the interface of a wire format, so that a run of them is a run like any other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.wire.run_request import RunRequest
from headrace_workers.http.request import HttpRequest
from headrace_workers.providers.embeddings import vectors as embeddings
from headrace_workers.providers.embeddings.packed_vectors import MAX_NUMBERS
from headrace_workers.providers.google import stream as google
from headrace_workers.providers.openai_chat import stream as openai_chat
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ProviderApi,
    ProviderFailedError,
    ProviderFailure,
    ProviderSettings,
    Steps,
    StreamMapper,
    finished,
)

_MAX_PACKED = 9 * MAX_NUMBERS + 64 * 1024
"""Bytes of all vectors in a frame."""

Build = Callable[[ProviderSettings, str | None, str, list[str], int | None, dict[str, Any]], HttpRequest]


class EmbeddingApi:
    """One provider's embeddings; errors are those of its wire format."""

    def __init__(self, build: Build, read: embeddings.Read, errors: ProviderApi) -> None:
        self._build = build
        self._read = read
        self._errors = errors

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the request for the vectors of ``request.inputs``."""
        return self._build(settings, api_key, request.model, request.inputs, request.dimensions, request.custom_options)

    def open_stream(self, request: RunRequest) -> StreamMapper:
        """Map what nobody asked for: a stream of embeddings does not exist."""
        return self._errors.open_stream(request)

    def continue_request(self, sent: HttpRequest, token: str) -> HttpRequest:  # noqa: ARG002 - the protocol's form
        """Return ``sent``: vectors come whole."""
        return sent

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Return the vectors, one for each input."""
        return finished(self.read_steps(request, body))

    def read_steps(self, request: RunRequest, body: bytes, arrived: Sequence[msgspec.Raw] = ()) -> Steps:
        """Return the same step by step: to decode numbers may take seconds. ``arrived`` are vectors that were taken out before."""
        found = yield from self._read(body, len(request.inputs), arrived)
        if len(found.vectors) != len(request.inputs):
            reason = f"{len(found.vectors)} vectors came for {len(request.inputs)} texts"
            raise ProviderFailedError(ProviderFailure("provider_protocol", reason, 200))
        size = sum([len(bytes(vector)) for vector in found.vectors if isinstance(vector, msgspec.Raw)])
        if size > _MAX_PACKED:
            reason = f"the vectors hold more than {MAX_NUMBERS} numbers; give fewer texts at a time"
            raise ProviderFailedError(ProviderFailure("invalid_request", reason))
        return Completion(
            finish_reason=None,
            provider_finish_reason=None,
            usage=found.usage,
            tool_calls=[],
            model=found.model,
            vectors=found.vectors,
        )

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Return the failure that a response with another status says."""
        return self._errors.read_error(status, headers, body)


_OPENAI = EmbeddingApi(embeddings.build_openai, embeddings.read_openai, openai_chat.API)
_GOOGLE = EmbeddingApi(embeddings.build_google, embeddings.read_google, google.API)

EMBEDDING_API: dict[str, EmbeddingApi] = {"openai-chat": _OPENAI, "openai-responses": _OPENAI, "google": _GOOGLE}
"""The wire formats that have embeddings."""
