"""The public data types of an engine's status: its workers, processes, limits, spans and sinks. See ``Client.status``."""

from __future__ import annotations

import msgspec

from headrace.dict_form import DictForm


class WorkerState(DictForm, frozen=True, kw_only=True):
    """One worker of an engine, as the broker sees it."""

    name: str
    """Its name, such as ``w1``. A worker that replaces it has the same name."""
    pid: int
    """Its process id."""
    state: str
    """``ok``, ``suspect`` (silent: it gets no new runs) or ``draining`` (it finishes its runs, and then ends)."""
    runs: int
    """How many runs it has now."""
    last_seen: float
    """Seconds since its last heartbeat. It sends one each second."""


class ProcessState(DictForm, frozen=True, kw_only=True):
    """One process of an engine, as the supervisor sees it."""

    name: str
    """``broker``, ``collector``, or the name of a worker."""
    pid: int | None
    """Its process id; None while it does not run."""
    state: str
    """``running``, ``draining``, ``waiting`` (it is started again soon) or ``off`` (spans cannot be stored)."""
    restarts: int
    """How often it was started again after an end that was not asked for."""
    last_end: str
    """How it ended last, such as ``signal 9``; empty if it never did."""


class SinkState(DictForm, frozen=True, kw_only=True):
    """One sink of spans."""

    name: str
    """Its name in the settings."""
    state: str
    """``ok``, ``retrying``, ``open`` (it is not tried for a while) or ``failed`` (its settings cannot be used)."""
    delivered: int
    """Spans that it has taken since the engine's start."""
    pending: int
    """Spans that wait for it."""
    failed: int
    """Spans that were given up since the engine's start."""
    set_aside: int
    """Spans in the store that were given up, also before the engine's start."""
    error: str
    """What it said last, if it does not work."""


class SpanState(DictForm, frozen=True, kw_only=True):
    """What became of spans since the engine's start."""

    directory: str
    """Where they are stored."""
    state: str
    """``ok``, ``disk full`` or ``failing``."""
    stored: int
    """Spans that are stored."""
    waiting: int
    """Spans that are not stored yet."""
    recovered: int
    """Spans that were stored after the process that had them died."""
    untraced: int
    """Runs that wanted no span."""
    dropped: dict[str, int]
    """Spans that were lost, by reason."""
    error: str
    """The error that keeps spans from being stored; empty if there is none."""
    age: float
    """Seconds since the collector's last report. It reports each second."""
    sinks: list[SinkState]
    """Where spans are sent."""


class LimitState(DictForm, frozen=True, kw_only=True):
    """One limit of a pool, per minute."""

    kind: str
    """``requests``, ``tokens``, ``input_tokens`` or ``output_tokens``."""
    limit: int
    """How many in a minute."""
    left: int
    """How many of them are left now."""
    source: str
    """``settings``, ``headers`` (the provider says so in its responses) or ``both``."""


class PoolState(DictForm, frozen=True, kw_only=True):
    """One pool: the runs of one key and one model at one provider, which share the provider's limits."""

    provider: str
    """The provider's name."""
    model: str
    """The model's name without its version; ``*`` for the limits of all models together."""
    key: str
    """The first digits of the key's hash; empty for the engine's only key, ``any`` for runs that may use any of several."""
    limits: list[LimitState]
    """The limits that are known."""
    running: int
    """Runs that are on workers now."""
    waiting: int
    """Runs that wait."""
    blocked_for: float
    """Seconds until the next request may leave, because the provider asked for a pause; 0.0 if it did not."""
    concurrency: int | None
    """How many runs may be on workers at once now; None: any number."""
    breaker: str
    """``closed``; ``open`` (the provider failed too often: no request leaves for a while) or ``half-open`` (one is tried)."""
    rate_limited: int
    """Responses with status 429."""
    retries: int
    """Runs that were tried again after a failure of the provider."""
    admitted: int
    """Runs that were given a worker."""
    out_of_rotation: str
    """Why the key gets no runs, such as ``401``; empty if it does."""


class SpendingState(DictForm, frozen=True, kw_only=True):
    """One spending limit of the settings."""

    name: str
    """Its name in the settings; with a user's hash if each user has the amount."""
    spent: float
    """Dollars that the runs of this day (UTC) have cost, and that the runs of now may cost."""
    max_cost: float
    """Dollars that they may cost in a day."""


class EngineStatus(DictForm, frozen=True, kw_only=True):
    """The state of an engine: its processes, runs and spans. Totals count since the start of its broker."""

    address: str
    """The engine's address; ``embedded`` for this program's own engine."""
    is_running: bool
    """Whether it runs. False only for this program's own engine, before its first run and after its end."""
    reason: str
    """Why it does not run; empty if it runs."""
    version: str = ""
    """The version of Headrace that it runs."""
    broker_pid: int = 0
    """The process id of the broker."""
    uptime: float = 0.0
    """Seconds since the start of the broker."""
    clients: int = 0
    """Processes with a client that is connected, this one included."""
    runs: int = 0
    """Runs that are on workers now."""
    waiting: int = 0
    """Runs that wait for a worker."""
    admitted: int = 0
    """Runs that were given a worker."""
    refused: int = 0
    """Runs that were refused, such as for a full queue."""
    workers: list[WorkerState] = msgspec.field(default_factory=list)
    """The workers that are connected to the broker."""
    processes: list[ProcessState] = msgspec.field(default_factory=list)
    """All processes of the engine. Empty until the first report of the supervisor, shortly after the start."""
    spans: SpanState | None = None
    """What became of spans; None if none are stored."""
    waiting_for: dict[str, int] = msgspec.field(default_factory=dict)
    """How many runs wait for what: ``workers``, ``share`` (the client's share of them), ``limit``, ``blocked`` (the provider asked for a
    pause) or ``breaker`` (the provider failed too often)."""
    pools: list[PoolState] = msgspec.field(default_factory=list)
    """What limits the runs of each provider, key and model. Empty while nothing does."""
    spending: list[SpendingState] = msgspec.field(default_factory=list)
    """The spending limits of the settings."""
    budget: str = ""
    """The limits that several engines share: ``ok``, or why their store cannot be reached; empty if there are none."""
