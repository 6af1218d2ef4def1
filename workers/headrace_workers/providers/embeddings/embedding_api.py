"""The embeddings of a provider as a ProviderApi, so that a worker runs them like any other run. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.packed_vectors import MAX_NUMBERS
from headrace_workers.providers.embeddings.vectors import ReadEmbeddings
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
"""Bytes of all vectors in one frame."""

BuildEmbeddings = Callable[[ProviderSettings, str | None, str, list[str], int | None, dict[str, Any]], HttpRequest]


class EmbeddingApi:
    """The embeddings of one wire format. ``chat`` is the format's own API: it reads errors and unexpected streams."""

    def __init__(self, build: BuildEmbeddings, read: ReadEmbeddings, chat: ProviderApi) -> None:
        self._build = build
        self._read = read
        self._chat = chat

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the request for the vectors of ``request.inputs``."""
        return self._build(settings, api_key, request.model, request.inputs, request.dimensions, request.custom_options)

    def open_stream(self, request: RunRequest) -> StreamMapper:
        """Return the mapper of the format's own API: an error may come as a stream, embeddings never do."""
        return self._chat.open_stream(request)

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole response: one vector for each input."""
        return finished(self.read_steps(request, body))

    def read_steps(self, request: RunRequest, body: bytes, arrived: Sequence[msgspec.Raw] = ()) -> Steps:
        """Read a whole response in steps, because numbers may take seconds to decode.

        ``arrived`` are vectors that were taken out of the body as it arrived.
        """
        found = yield from self._read(body, len(request.inputs), arrived)
        if len(found.vectors) != len(request.inputs):
            reason = f"the provider sent {len(found.vectors)} vectors for {len(request.inputs)} texts"
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
        """Read a response whose status is not 200."""
        return self._chat.read_error(status, headers, body)
