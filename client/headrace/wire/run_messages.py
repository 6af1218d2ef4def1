"""The messages of one run, between a client and a worker: request, credit, chunks and the terminal message."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from headrace.types import FinishReason, Message, RunEvent, TokenLogprob, Usage
from headrace.wire.bounds import Count, Id, Reason, Seconds, Secret, Small, Word
from headrace.wire.connection_messages import WireMessage

MAX_REQUEST_BYTES = 48 * 1024 * 1024
"""Largest encoded request of a run. The client checks it before it sends."""

WINDOW_EVENTS = 64
"""Events of one stream that a worker may send before the client has taken them."""
WINDOW_CHARACTERS = 64 * 1024
"""Characters of one stream that a worker may send before the client has taken them: at most 256 KiB as UTF-8."""

AbortMode = Literal["close", "drain"]
FailureKind = Literal[
    "invalid_request",
    "authentication",
    "rate_limit",
    "provider_unavailable",
    "provider_protocol",
    "timeout",
    "worker_stopping",
    "worker_failed",
    "duplicate_span_id",
]
BAD_SETTINGS = "headrace_configuration"
"""``Failed.code`` of a failure of kind ``invalid_request`` whose cause is the settings, not the caller's arguments."""
NOT_BEGUN = "not_begun"
"""``Failed.code`` of a failure of kind ``worker_stopping``: the worker refused the run before it began."""

# Client to worker.


class Run(WireMessage, frozen=True, tag=30):
    """Start a run.

    ``request`` is an encoded RunRequest. Only the worker decodes it, so a bad request ends one run only.
    """

    span_id: Id
    attempt: Small
    epoch: Count
    request: Annotated[bytes, Meta(max_length=MAX_REQUEST_BYTES)]
    sequence_limit: int
    character_limit: int
    api_key: Secret | None = None
    """``None``: use the key of the worker's environment. ``""``: the caller's environment has no key; use none."""
    queued: float = 0.0
    """Seconds that the run waited for its lease."""
    base_url: Secret | None = None
    """The provider's address in the caller's environment. ``None``: use the worker's settings."""
    waited_for: Word = ""
    """What the run waited for: as in the Grant."""
    key: Word = ""
    """The short hash of the worker's key to use: as in the Grant. An unknown one, or none: any key of the provider."""
    reports: bool = False
    """Whether the worker reports the response's head to the broker: as in the Grant."""
    time_left: Seconds | None = None
    """Seconds that are left of the run's total timeout, in a further attempt. ``None``: all."""
    span_of: Id = ""
    """The run's own id, where ``span_id`` is that of a hedge: a second attempt of the same run beside the first one."""

    def __repr__(self) -> str:
        return f"Run(span_id={self.span_id!r}, attempt={self.attempt}, request={len(self.request)} bytes)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no key and no prompt."""
        return [("span_id", self.span_id)]


class Credit(WireMessage, frozen=True, tag=31):
    """How much the worker may send.

    The limits count from the run's start, so a repeated or late Credit does no harm.
    """

    span_id: Id
    attempt: Small
    sequence_limit: int
    character_limit: int


class Abort(WireMessage, frozen=True, tag=32):
    """Stop a run. Mode ``close`` closes the provider's response; ``drain`` reads it to its end, for the exact usage.

    ``is_beaten``: another attempt of the same run was faster. The run's span is that attempt's.
    """

    span_id: Id
    attempt: Small
    mode: AbortMode = "close"
    is_beaten: bool = False


class Query(WireMessage, frozen=True, tag=33):
    """Ask the worker whether it has a run. A client asks after it has heard nothing of the run for long."""

    span_id: Id
    attempt: Small


# Worker to client.


class Chunk(WireMessage, frozen=True, tag=40):
    """Events of a run.

    ``sequence`` is the number of the first one; the next chunk has this number plus ``len(events)``.
    """

    span_id: Id
    attempt: Small
    sequence: int
    events: list[RunEvent]


class ToolCallText(WireMessage, frozen=True):
    """A tool call as the provider sent it. ``arguments`` is JSON text that is not parsed yet."""

    id: str
    name: str
    arguments: str


class Finished(WireMessage, frozen=True, tag=41):
    """Terminal: the run is complete. It repeats the whole result, so that the client can check what it put together.

    ``sequence`` and ``text_length`` are the totals of events and of characters of text. ``message`` is set where the
    chunks do not have everything: in a run without streaming, and where parts carry opaque data of the provider.
    """

    span_id: Id
    attempt: Small
    sequence: int
    text_length: int
    finish_reason: FinishReason | None
    provider_finish_reason: str | None
    usage: Usage
    tool_calls: list[ToolCallText]
    model: str
    message: Message | None = None
    refusal: str | None = None
    vectors: list[list[float]] | None = None
    wire_format: str | None = None
    """The wire format of the provider's answer, such as ``openai-responses``. ``None``: an older worker."""
    logprobs: list[TokenLogprob] | None = None
    """The log probability of each token, if the run asked for them and the provider sent them."""


class Failed(WireMessage, frozen=True, tag=42):
    """Terminal: the run failed after ``sequence`` events. Which fields are set depends on ``kind``.

    ``retry_after`` and ``limit`` are in seconds. ``argument`` names the caller's argument that is wrong, such as
    ``messages[3].content[0].detail``. ``may_retry``: another attempt may succeed. ``is_final``: the same request would
    fail again with this key, for example because the money is used up. ``maybe_billed``: the provider may bill this
    attempt.
    """

    span_id: Id
    attempt: Small
    sequence: int
    kind: FailureKind
    reason: Reason
    usage: Usage = Usage()
    status_code: int | None = None
    request_id: str | None = None
    code: str | None = None
    retry_after: float | None = None
    clock: str = ""
    limit: float = 0.0
    partial_text: str = ""
    argument: str | None = None
    may_retry: bool = False
    is_final: bool = False
    maybe_billed: bool = False


class Aborted(WireMessage, frozen=True, tag=43):
    """Terminal: the run was aborted. ``usage`` is the best that is known. ``wire_format`` is as in Finished."""

    span_id: Id
    attempt: Small
    sequence: int
    usage: Usage
    wire_format: str | None = None


class RunState(WireMessage, frozen=True, tag=44):
    """Answer to a Query. ``is_running`` False: the worker does not have the run, and will never send anything of it."""

    span_id: Id
    attempt: Small
    is_running: bool


Terminal = Finished | Failed | Aborted
