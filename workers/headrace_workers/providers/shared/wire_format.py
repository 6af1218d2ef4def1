"""The interface of a wire format: build a request, read a response. Pure: bytes in, run events out.

A wire format is a folder in ``providers/``, or a plug-in. It has one object with the methods of :class:`ProviderApi`,
and declares it in one :class:`WireFormat`.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import msgspec

from headrace.text.shown_address import without_password
from headrace.types import FinishReason, Message, RunEvent, TokenLogprob, Usage
from headrace.wire.messages import FailureKind, ToolCallText
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.shared.text_span import TextSpan

CUT_REASONS = ("max_tokens", "content_filter", "error")
"""Finish reasons of an answer that was cut: its last tool call may be incomplete."""


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One configured provider.

    ``api`` is the name of its wire format. A query in ``base_url`` is sent with each request.
    """

    name: str
    api: str
    base_url: str
    api_key_env: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ProviderSettings(name={self.name!r}, base_url={without_password(self.base_url)!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: no password, and no query, which may be a key."""
        return [("name", self.name), ("base_url", without_password(self.base_url))]

    def url(self, path: str) -> str:
        """Return the URL of ``path``. Queries of the base URL and of ``path`` are joined."""
        return _joined_url(self.base_url, path)


@functools.lru_cache(maxsize=256)
def _joined_url(base_url: str, path: str) -> str:
    base, _, query = base_url.partition("?")
    path, _, own = path.partition("?")
    queries = "&".join(part for part in (query.strip("&"), own) if part)
    return f"{base.rstrip('/')}{path}?{queries}" if queries else f"{base.rstrip('/')}{path}"


class ProviderFailure(msgspec.Struct, frozen=True):
    """Why a run failed. ``retry_after`` is in seconds.

    ``argument`` is the path of the wrong value in the caller's arguments, such as ``tools[1].strict``. ``may_retry``:
    another attempt may succeed. ``is_final``: the same request would fail again with this key, for example because the
    money is used up. ``failure_classes.classified`` sets both for an error of a provider.
    """

    kind: FailureKind
    reason: str
    status_code: int | None = None
    request_id: str | None = None
    code: str | None = None
    retry_after: float | None = None
    argument: str | None = None
    may_retry: bool = False
    is_final: bool = False


class ProviderFailedError(Exception):
    """The run fails. ``partial_text`` is the text of a whole body that was read before the failure."""

    def __init__(self, failure: ProviderFailure) -> None:
        super().__init__(failure)
        self.failure = failure
        self.partial_text = ""


class Completion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A complete answer.

    ``message`` is None if the run's events have all of the answer. It is set without streaming, and where the answer
    has opaque data that the next request must send back. ``vectors`` are the result of an embeddings run.
    The run itself sets ``logprobs``.
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
    logprobs: list[TokenLogprob] | None = None


class StreamMapper(Protocol):
    """Maps the events of one streamed response to run events.

    ``usage`` is the latest usage. ``is_complete`` is True after the terminal event of the API, which nothing follows.
    ``has_split_characters`` is True if a character may have come in two halves (surrogates in two events); the run
    joins them. ``response_id`` is the provider's id of the response, as soon as it is known. ``continuation`` is a
    token if the provider stopped at a limit of its own: the run then sends :meth:`ContinuingApi.continue_request`, and
    feeds the next response to the same mapper. It stays None for a format without continuations.
    """

    usage: Usage
    is_complete: bool
    has_split_characters: bool
    continuation: str | None
    response_id: str | None

    @property
    def has_end(self) -> bool:
        """Whether the response has its finish reason. If the body ends after it, the answer is whole."""

    def feed(self, name: str, data: bytes, events: list[RunEvent]) -> None:
        """Read one server-sent event, or one line of JSON. Append its run events to ``events``.

        ``name`` is the event's name, or empty. Raises ProviderFailedError if the event is an error.
        """

    def finish(self, events: list[RunEvent] | None = None) -> Completion:
        """Return the complete answer, after the terminal event or at the end of the body.

        Appends to ``events`` what is known only at the end. Raises ProviderFailedError (``provider_protocol``) if the
        stream was cut.
        """


class RepeatingMapper(StreamMapper, Protocol):
    """A mapper of streams that repeat all bytes of a text delta except the text, and perhaps its number. Its later deltas need no decoding."""

    def text_span(self, name: str, data: bytes) -> TextSpan | None:
        """Return where the text of an event stands that was read last. None unless the event is a text and nothing else.

        Until the next call of ``feed``, the caller may take events that are equal but for text and number: it adds their
        texts to the span's ``kept`` and to the events, which must be all that ``feed`` would do with them.
        """


_Read = TypeVar("_Read")

Steps = Generator[None, None, Completion]
"""Reads a whole answer in steps, and returns it. Between two steps the event loop may do other work."""


def finished(steps: Generator[None, None, _Read]) -> _Read:
    """Take all steps at once, and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("_Read", end.value)


@runtime_checkable
class ProviderApi(Protocol):
    """Builds the requests of one wire format, and reads its responses."""

    def build_request(self, request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
        """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the provider cannot do."""

    def open_stream(self, request: RunRequest) -> StreamMapper:
        """Return a mapper for one streamed response."""

    def read_body(self, request: RunRequest, body: bytes) -> Completion:
        """Read a whole body with status 200.

        Raises ProviderFailedError if it is an error, or no response of this API.
        """

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
        """Read a response whose status is not 200. ``headers`` has lower-case names."""


@runtime_checkable
class SteppedApi(ProviderApi, Protocol):
    """A wire format whose whole answers may take long to read: they are read in several turns of the loop."""

    def read_steps(self, request: RunRequest, body: bytes, arrived: Sequence[msgspec.Raw] = ()) -> Steps:
        """Read a whole body as ``read_body`` does.

        ``arrived`` are vectors that were taken out of the body as it arrived.
        """


class PlainApi(ProviderApi, Protocol):
    """A wire format that reads the most usual body in one step."""

    def read_plain(self, request: RunRequest, body: bytes) -> Completion | None:
        """Read a whole body with status 200 that has no content but text, and no field that the format does not know.

        Return what ``read_body`` returns, with a message that a frame can carry. Return None for any other body.
        """


@runtime_checkable
class ContinuingApi(ProviderApi, Protocol):
    """A wire format in which the provider may stop at its own limit, and continue the answer in another response."""

    def continue_request(self, sent: HttpRequest, token: str) -> HttpRequest:
        """Return the request that continues a response. ``token`` is the ``continuation`` of the mapper."""


class WireFormat(msgspec.Struct, frozen=True, kw_only=True):
    """The declaration of one wire format. The registry and every table of formats are made from these declarations.

    ``name`` is what ``api =`` says in ``headrace.toml``: small letters, digits and single hyphens, as in
    ``openai-chat``. ``embeddings`` is None where the format has no embeddings. ``telemetry_provider`` is the format's
    value of ``gen_ai.provider.name`` in OpenTelemetry's GenAI conventions.
    """

    name: str
    api: ProviderApi
    embeddings: SteppedApi | None = None
    telemetry_provider: str

    @property
    def has_continuation(self) -> bool:
        """Whether the provider may continue an answer in a further response."""
        return isinstance(self.api, ContinuingApi)
