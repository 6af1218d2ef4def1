"""The wire format ``anthropic``: Anthropic's Messages API. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.anthropic import errors as anthropic_errors
from headrace_workers.providers.anthropic import request as anthropic_request
from headrace_workers.providers.anthropic.blocks import API_NAME
from headrace_workers.providers.anthropic.json_answers import answer_tool_of
from headrace_workers.providers.anthropic.plain_answer import read_plain
from headrace_workers.providers.anthropic.stream import MessageMapper
from headrace_workers.providers.shared import provider_errors as failures
from headrace_workers.providers.shared.lenient_json import loads
from headrace_workers.providers.shared.wire_format import Completion, ProviderFailure, ProviderSettings, WireFormat


class Anthropic:
    """The wire format ``anthropic``."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
        return anthropic_request.build_request(request, settings, api_key)

    def open_stream(self, request: RunRequest) -> MessageMapper:
        """Return a mapper for one streamed response."""
        return MessageMapper(request.model, answer_tool_of(request))

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole body with status 200. Raises ProviderFailedError if it is an error, or no message."""
        try:
            whole = loads(body)
        except ValueError:
            reason = f"the response is not a message but {failures.describe(body)}"
            raise failures.protocol_failure(reason) from None
        return MessageMapper(request.model, answer_tool_of(request)).read_whole(whole)

    def read_plain(self, request: RunRequest, body: bytes) -> Completion | None:
        """Read a whole body with one text and no unknown field. Return None for any other body."""
        return read_plain(body, request.model)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Read a response whose status is not 200. ``headers`` has lower-case names."""
        return anthropic_errors.read_error(status, headers, body)


API = Anthropic()

FORMAT = WireFormat(name=API_NAME, api=API, telemetry_provider="anthropic")
