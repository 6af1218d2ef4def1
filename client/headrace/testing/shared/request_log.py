"""The log of the simulated provider: one entry for each request, updated while its answer is sent.

Times are ``time.monotonic()`` seconds. On Linux this is ``CLOCK_MONOTONIC``: one clock for all processes of a machine,
so times of different processes can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import msgspec

Outcome = Literal["open", "complete", "cut", "ended_early", "failed", "closed_by_client"]


class RequestRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One request and its answer, as they were when the record was made. Times are ``time.monotonic()`` seconds.

    ``outcome`` is ``open`` until the answer ends. ``cut``, ``ended_early`` and ``failed`` are endings that a script
    asked for. ``sent_text`` is all text that was given to the transport. ``chunks_sent`` counts all pieces of the
    answer. ``closed_at`` is the time of the client's close, if it came before the end of the answer. ``headers`` do not
    have the value of the API key.

    ``batch_id`` and ``custom_id``: the batch and the id of a request that a batch has made; None for a live request. Its
    ``headers`` are those of the request that created the batch.
    """

    number: int
    connection: int
    method: str
    path: str
    arrived_at: float
    headers: dict[str, str]
    body: Any
    model: str | None
    status: int | None
    first_byte_at: float | None
    first_chunk_at: float | None
    ended_at: float | None
    closed_at: float | None
    outcome: Outcome
    chunks_sent: int
    sent_text: str
    batch_id: str | None = None
    custom_id: str | None = None


class Arrival(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One request in a few words, to count with. Times are ``time.monotonic()`` seconds.

    ``key``: 16 hex digits that stand for the API key; :func:`key_hash` makes the same ones. ``status``: None until an
    answer begins, also for a connection that was reset. ``batch_id``: the batch of a request that is not live. ``tokens``: how many the provider counted; 0 where it limits no
    tokens.
    """

    at: float
    key: str
    model: str | None
    status: int | None
    tokens: int
    first_chunk_at: float | None
    ended_at: float | None
    outcome: Outcome
    batch_id: str | None = None


class LogEntry:
    """One entry of the log, which changes until the answer has ended. The connection of the request owns it."""

    __slots__ = (
        "arrived_at", "batch_id", "body", "chunks_sent", "closed_at", "connection", "custom_id", "ended_at", "first_byte_at",
        "first_chunk_at", "headers", "key", "method", "number", "outcome", "path", "status", "texts", "tokens",
    )  # fmt: skip

    def __init__(
        self, *, number: int, connection: int, method: str, path: str, headers: dict[str, str], now: float
    ) -> None:
        self.number = number
        self.connection = connection
        self.method = method
        self.path = path
        self.key = _key_of(headers)
        self.headers = _without_key(headers)
        self.arrived_at = now
        self.body: Any = None
        self.status: int | None = None
        self.first_byte_at: float | None = None
        self.first_chunk_at: float | None = None
        self.ended_at: float | None = None
        self.closed_at: float | None = None
        self.outcome: Outcome = "open"
        self.chunks_sent = 0
        self.texts: list[str] = []
        self.tokens = 0
        self.batch_id: str | None = None
        self.custom_id: str | None = None

    def answered(self, status: int, frames: Iterable[tuple[bytes, str, int]], now: float) -> None:
        """Note an answer that no connection has sent: that to a request of a batch."""
        self.status, self.first_byte_at = status, now
        for _, text, chunks in frames:
            if chunks and self.first_chunk_at is None:
                self.first_chunk_at = now
            self.chunks_sent += chunks
            self.texts.append(text)
        self.end("complete", now)

    def end(self, outcome: Outcome, now: float) -> None:
        """Note the end of the answer. Only the first end counts."""
        if self.outcome == "open":
            self.outcome = outcome
            self.ended_at = now
            self.closed_at = now if outcome == "closed_by_client" else None

    @property
    def model(self) -> str | None:
        """The model that was asked for."""
        model = self.body.get("model") if isinstance(self.body, dict) else None
        if model is None and "/models/" in self.path:  # Google has the model in the path
            model = self.path.rpartition("/models/")[2].partition(":")[0]
        return model if isinstance(model, str) else None

    def arrival(self) -> Arrival:
        """Return the entry in a few words."""
        return Arrival(
            at=self.arrived_at,
            key=self.key,
            model=self.model,
            status=self.status,
            tokens=self.tokens,
            first_chunk_at=self.first_chunk_at,
            ended_at=self.ended_at,
            outcome=self.outcome,
            batch_id=self.batch_id,
        )

    def record(self) -> RequestRecord:
        """Return the entry as an unchangeable record."""
        return RequestRecord(
            number=self.number,
            connection=self.connection,
            method=self.method,
            path=self.path,
            arrived_at=self.arrived_at,
            headers=self.headers,
            body=self.body,
            model=self.model,
            status=self.status,
            first_byte_at=self.first_byte_at,
            first_chunk_at=self.first_chunk_at,
            ended_at=self.ended_at,
            closed_at=self.closed_at,
            outcome=self.outcome,
            chunks_sent=self.chunks_sent,
            sent_text="".join(self.texts),
            batch_id=self.batch_id,
            custom_id=self.custom_id,
        )


class RequestLog:
    """The entries of all requests, except requests of ``SimulatedProvider`` itself (control)."""

    def __init__(self) -> None:
        self._entries: list[LogEntry] = []
        self._count = 0

    def arrived(
        self, method: str, path: str, headers: dict[str, str], connection: int, now: float, is_control: bool
    ) -> LogEntry:
        """Open the entry of a request."""
        self._count += not is_control
        entry = LogEntry(number=self._count, connection=connection, method=method, path=path, headers=headers, now=now)
        if not is_control:
            self._entries.append(entry)
        return entry

    def records(self) -> list[RequestRecord]:
        """Return all entries as records, in the order of their arrival."""
        return [entry.record() for entry in self._entries]

    def arrivals(self) -> list[Arrival]:
        """Return all entries in a few words, in the order of their arrival."""
        return [entry.arrival() for entry in self._entries]

    def clear(self) -> None:
        """Remove all entries. Numbers go on."""
        self._entries.clear()


_SECRET_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key", "cookie"})


def _without_key(headers: dict[str, str]) -> dict[str, str]:
    return {name: "(not logged)" if name in _SECRET_HEADERS else value for name, value in headers.items()}


@lru_cache(maxsize=1024)
def key_hash(key: str) -> str:
    """Return the 16 hex digits that stand for an API key in the log. The empty key stays empty."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest() if key else ""


def _key_of(headers: dict[str, str]) -> str:
    key = (
        headers.get("x-api-key") or headers.get("x-goog-api-key") or headers.get("authorization", "").partition(" ")[2]
    )
    return key_hash(key.strip())
