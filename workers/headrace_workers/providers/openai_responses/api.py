"""The wire format ``openai-responses``: OpenAI's Responses API, and the servers that are compatible with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.embedding_api import EmbeddingApi
from headrace_workers.providers.embeddings.openai_embeddings import build_openai, read_openai
from headrace_workers.providers.openai_responses import request as openai_responses_request
from headrace_workers.providers.openai_responses.errors import raise_if_error
from headrace_workers.providers.openai_responses.message import API_NAME
from headrace_workers.providers.openai_responses.plain_answer import read_plain
from headrace_workers.providers.openai_responses.stream import ResponsesMapper
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.lenient_json import read_object
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure, ProviderSettings, WireFormat


class OpenAIResponses:
    """The wire format ``openai-responses``."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
        return openai_responses_request.build_request(request, settings, api_key)

    def open_stream(self, request: RunRequest) -> ResponsesMapper:
        """Return a mapper for one streamed response."""
        return ResponsesMapper(request.model)

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole body with status 200.

        Raises ProviderFailedError if it is an error, or not of the Responses API.
        """
        response = read_object(body)
        if not isinstance(response.get("output"), list) and not _is_filtered(response):
            raise_if_error(response)
            reason = f"the response is not of the Responses API but {failures.describe(body)}"
            raise failures.protocol_failure(reason)
        return ResponsesMapper(request.model).read_whole(response)

    def read_plain(self, request: RunRequest, body: bytes) -> Completion | None:
        """Read a whole body with one text and no unknown field. Return None for any other body."""
        return read_plain(body, request.model)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Read a response whose status is not 200. ``headers`` has lower-case names."""
        return failures.read_error(status, headers, body)


def _is_filtered(response: dict[str, Any]) -> bool:
    """Whether a response has no output because all of it was filtered."""
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    return response.get("output") is None and response.get("status") == "incomplete" and reason == "content_filter"


API = OpenAIResponses()

FORMAT = WireFormat(
    name=API_NAME,
    api=API,
    embeddings=EmbeddingApi(build_openai, read_openai, API),
    telemetry_provider="openai",
)
