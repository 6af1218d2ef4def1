"""The wire format ``google``: ``generateContent`` of Google's Gemini API. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.answers.assembly import joined_text
from headrace.types import RunEvent
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings.embedding_api import EmbeddingApi
from headrace_workers.providers.google import errors as google_errors
from headrace_workers.providers.google import request as google_request
from headrace_workers.providers.google.answer import API_NAME
from headrace_workers.providers.google.chunks import decode_leniently
from headrace_workers.providers.google.embeddings import build_google, read_google
from headrace_workers.providers.google.stream import GoogleMapper
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.sse import EventTooLargeError, SSEParser
from headrace_workers.providers.shared.wire_format import (
    Completion,
    ProviderFailedError,
    ProviderFailure,
    ProviderSettings,
    WireFormat,
)

_EVENT_STARTS = (b"data:", b"event:", b":")


class Google:
    """The wire format ``google``."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do.

        It always asks for a stream, because only a stream shows that the provider is working.
        """
        return google_request.build_request(request, settings, api_key)

    def open_stream(self, request: RunRequest) -> GoogleMapper:
        """Return a mapper for one streamed response, and for the responses that continue it."""
        return GoogleMapper(request)

    def continue_request(self, sent: HttpRequest, token: str) -> HttpRequest:
        """Return the request that continues a response: the same request, with the provider's token."""
        return google_request.continue_request(sent, token)

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole body with status 200: a response, an array of responses, or events without their content type.

        Raises ProviderFailedError if it is an error, or no Gemini response.
        """
        mapper = GoogleMapper(request, needs_message=True)
        if body.lstrip().startswith(_EVENT_STARTS):
            for name, data in _events_of(body):
                mapper.feed(name, data, [])
            return mapper.finish()
        try:
            chunks = decode_leniently(body)
        except ValueError:
            reason = f"the response is not a Gemini response but {failures.describe(body)[:400]}"
            raise failures.protocol_failure(reason) from None
        events: list[RunEvent] = []
        mapper.is_weighed = True
        try:
            for chunk in chunks:
                mapper.take(chunk, body, events)
            return mapper.finish(events)
        except ProviderFailedError as error:
            error.partial_text = joined_text(events)
            raise

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Read a response whose status is not 200. ``headers`` has lower-case names."""
        return google_errors.read_error(status, headers, body)


def _events_of(body: bytes) -> list[tuple[str, bytes]]:
    parser = SSEParser()
    try:
        return parser.feed(body) + parser.finish()
    except EventTooLargeError as error:
        raise failures.protocol_failure(str(error)) from None


API = Google()

FORMAT = WireFormat(
    name=API_NAME,
    api=API,
    embeddings=EmbeddingApi(build_google, read_google, API),
    telemetry_provider="gcp.gemini",
)
