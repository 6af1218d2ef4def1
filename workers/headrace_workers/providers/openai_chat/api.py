"""The wire format ``openai-chat``: OpenAI's Chat Completions, and the servers that are compatible with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.embedding_api import EmbeddingApi
from headrace_workers.providers.embeddings.openai_embeddings import build_openai, read_openai
from headrace_workers.providers.openai_chat import request as openai_request
from headrace_workers.providers.openai_chat.calls import API_NAME
from headrace_workers.providers.openai_chat.chunks import decode_leniently
from headrace_workers.providers.openai_chat.made_media import SAMPLES, wanted_audio_type
from headrace_workers.providers.openai_chat.plain_answer import read_plain
from headrace_workers.providers.openai_chat.stream import ChatMapper
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.request_parts import wants_several
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure, ProviderSettings, WireFormat


class OpenAIChat:
    """The wire format ``openai-chat``."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
        return openai_request.build_request(request, settings, api_key)

    def open_stream(self, request: RunRequest) -> ChatMapper:
        """Return a mapper for one streamed response."""
        return _mapper(request)

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole body with status 200. Raises ProviderFailedError if it is an error, or no chat completion."""
        try:
            chunk = decode_leniently(body)
        except ValueError:
            reason = f"the response is not a chat completion but {failures.describe(body)}"
            raise failures.protocol_failure(reason) from None
        return _mapper(request).read_whole(chunk, body)

    def read_plain(self, request: RunRequest, body: bytes) -> Completion | None:
        """Read a whole body with one text and no unknown field. Return None for any other body."""
        return read_plain(body, request.model)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Read a response whose status is not 200. ``headers`` has lower-case names."""
        return failures.read_error(status, headers, body)


def _mapper(request: RunRequest) -> ChatMapper:
    audio_type = wanted_audio_type(request) if "audio" in request.custom_options else SAMPLES
    return ChatMapper(request.model, are_alternatives=wants_several(request), audio_type=audio_type)


API = OpenAIChat()

FORMAT = WireFormat(
    name=API_NAME,
    api=API,
    embeddings=EmbeddingApi(build_openai, read_openai, API),
    telemetry_provider="openai",
)
