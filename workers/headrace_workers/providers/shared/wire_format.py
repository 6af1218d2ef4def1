"""The interface of a wire format: build a request, read a response. Pure: bytes in, run events out.

A wire format is a folder in ``providers/``, or a plug-in. It has one object with the methods of :class:`ProviderApi`, and
declares it in one :class:`WireFormat`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from headrace.text.shown_address import without_password
from headrace.types import FinishReason, Message, RunEvent, Usage
from headrace.wire.messages import FailureKind, ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.http.request import HttpRequest

CUT = ("max_tokens", "content_filter", "error")
"""Finish reasons of an answer that stopped before its end: a tool call in it may be incomplete."""


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One configured provider. ``api`` names the wire format; ``base_url`` may have a query, which goes with each request."""

    name: str
    api: str
    base_url: str
    api_key_env: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ProviderSettings(name={self.name!r}, base_url={without_password(self.base_url)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown."""
        return [("name", self.name), ("base_url", without_password(self.base_url))]

    def url(self, path: str) -> str:
        """Return the address of ``path``, which may have a query of its own: both queries go behind both paths."""
        base, _, query = self.base_url.partition("?")
        path, _, own = path.partition("?")
        queries = "&".join(part for part in (query.strip("&"), own) if part)
        return f"{base.rstrip('/')}{path}?{queries}" if queries else f"{base.rstrip('/')}{path}"


class ProviderFailure(msgspec.Struct, frozen=True):
    """Why a response is no success. ``retry_after`` in seconds.

    ``argument`` is the place in the caller's arguments that is to blame, as in ``tools[1].strict``.
    """

    kind: FailureKind
    reason: str
    status_code: int | None = None
    request_id: str | None = None
    code: str | None = None
    retry_after: float | None = None
    argument: str | None = None


class ProviderFailedError(Exception):
    """Raised by mappers; carries the failure to the run."""

    def __init__(self, failure: ProviderFailure) -> None:
        super().__init__(failure)
        self.failure = failure
        self.partial_text = ""  # of a body that is read as a whole


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A complete response.

    ``message`` is set when the run's events cannot say all of it (no streaming, or opaque data to be sent back).
    """

    finish_reason: FinishReason | None
    provider_finish_reason: str | None
    usage: Usage
    tool_calls: list[ToolCallText]
    model: str
    message: Message | None = None
    refusal: str | None = None
    response_id: str | None = None
    vectors: list[list[float]] | list[msgspec.Raw] | None = None


class StreamMapper(Protocol):
    """Maps one streamed response.

    ``has_split_characters`` says that a character may have come in two halves, as surrogates in two events: the run joins them.
    ``usage`` is the best known so far; ``is_complete`` says that its terminal event was seen; ``response_id`` is the provider's
    id of the response, once it is known. ``has_end`` says that the response told why it ends: if nothing more comes, it is
    whole. ``continuation`` is set where the provider stopped at a limit of its own and goes on when asked again with this token: the run then sends
    :meth:`ContinuingApi.continue_request` and feeds the same mapper with what follows.
    """

    usage: Usage
    is_complete: bool
    has_split_characters: bool
    continuation: str | None
    response_id: str | None

    @property
    def has_end(self) -> bool:
        """Whether the response told why it ends."""

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Append to ``events`` what one server-sent event says; raise ProviderFailedError when it says failure."""

    def finish(self, events: list[RunEvent] | None = None) -> Completion:
        """Return the whole, after the terminal event or at the end of the body; append to ``events`` what only the end tells.

        Raises ProviderFailedError (``provider_protocol``) when the stream was cut.
        """


_Read = TypeVar("_Read")

Steps = Generator[None, None, Completion]
"""Reads a whole answer step by step, and returns it: after each step there may be another turn of the loop."""


def finished(steps: Generator[None, None, _Read]) -> _Read:
    """Take all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("_Read", end.value)


@runtime_checkable
class ProviderApi(Protocol):
    """Builds the requests of one wire format, and reads its responses."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the request to send; raise ProviderFailedError (``invalid_request``) for what the provider cannot do."""

    def open_stream(self, request: RunRequest) -> StreamMapper:
        """Return a mapper for one streamed response."""

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Map a whole JSON response with status 200; raise ProviderFailedError where it is an error or none of ours."""

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Return the failure that a response with another status says. ``headers`` has lower-case names."""


@runtime_checkable
class SteppedApi(ProviderApi, Protocol):
    """A wire format of which a whole answer may take long: it is read over several turns of the loop."""

    def read_steps(self, request: RunRequest, body: bytes, arrived: Sequence[msgspec.Raw] = ()) -> Steps:
        """Map a whole JSON response as ``read_body`` does; ``arrived`` are vectors that were taken out of it as it came."""


@runtime_checkable
class ContinuingApi(ProviderApi, Protocol):
    """A wire format in which the provider may stop at a limit of its own, and continue the answer in a further response."""

    def continue_request(self, sent: HttpRequest, token: str) -> HttpRequest:
        """Return the request that continues a response. ``token`` is the ``continuation`` of the mapper."""


class WireFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration of one wire format. The registry and every table of formats are made from these declarations.

    ``name`` is what ``api =`` says in ``headrace.toml``: small letters, digits and single hyphens, as in ``openai-chat``.
    ``embeddings`` is None where the format has no embeddings. ``telemetry_provider`` is the format's value of
    ``gen_ai.provider.name`` in OpenTelemetry's GenAI conventions.
    """

    name: str
    api: ProviderApi
    embeddings: SteppedApi | None = None
    telemetry_provider: str

    @property
    def has_continuation(self) -> bool:
        """Whether the provider may continue an answer in a further response."""
        return isinstance(self.api, ContinuingApi)
