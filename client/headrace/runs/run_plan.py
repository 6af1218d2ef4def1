"""What the session of a run needs to know of the caller's request. Immutable."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.run_arguments import Priority
from headrace.wire.messages import AbortMode


class FirstChunkTimes(Protocol):
    """Learns how long the first chunks of one model take."""

    def add(self, seconds: float, /) -> None:
        """A first chunk came, so long after its run was given to a worker."""


class RunPlan(msgspec.Struct, frozen=True):
    """What was asked for. ``request`` is the encoded RunRequest.

    ``total_timeout`` is in seconds; ``None`` leaves it to the engine. ``original_paths``: see
    :mod:`headrace.arguments.original_paths`. ``max_retries``: how often the run is tried again after a failure of its
    provider. ``account``, ``user``, ``tags``, ``input_tokens`` and ``max_output_tokens`` are those of ``Acquire``.
    ``fallback``: the same run with another model, for the case that this one fails. ``hedge_after``: seconds without any
    event after which a hedge begins; None: none. ``first_chunks`` learns how long the run's first event takes.
    """

    span_id: str
    provider: str
    model: str
    request: bytes
    streams: bool
    api_key: str | None = None
    base_url: str | None = None
    original_paths: OriginalPaths = {}
    priority: Priority = "interactive"
    on_abort: AbortMode = "close"
    total_timeout: float | None = None
    is_traced: bool = True
    max_retries: int = 0
    account: str = ""
    user: str = ""
    tags: list[str] = []
    input_tokens: int = 0
    max_output_tokens: int = 0
    fallback: RunPlan | None = None
    hedge_after: float | None = None
    first_chunks: FirstChunkTimes | None = None

    def __repr__(self) -> str:
        return f"RunPlan(span_id={self.span_id!r}, provider={self.provider!r}, model={self.model!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what a traceback may show: the id, and no key."""
        return [("span_id", self.span_id)]
