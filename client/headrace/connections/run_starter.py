"""RunStarter: checks the arguments of a call, makes the request, and hands the run to the I/O thread."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.arguments.checked_request import (
    RequestContext,
    RunOptions,
    build_embedding_request,
    build_options,
    build_request,
    check_names,
)
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.provider_access import ProviderAccess
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.trace_context import current_traceparent
from headrace.connections.new_ids import new_id
from headrace.connections.request_shapes import Field, RequestShapes, parts_of
from headrace.connections.run_plans import RunPlans
from headrace.pricing.prices import PriceTable
from headrace.runs.delivery import Delivery
from headrace.runs.open_runs import OpenRun
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.run_request import RunRequest

if TYPE_CHECKING:
    from headrace.connections.connection import Connection
    from headrace.schemas.response_type import ResponseType


class PlannedRun(msgspec.Struct, frozen=True):
    """A run that can be started, and its trace."""

    plan: RunPlan
    trace_id: str


class RunStarter:
    """Starts the runs of one client.

    ``address``: the engine's, None for the program's own engine. ``configured``: the providers in ``headrace.toml``.
    ``settings`` also have the built-in providers.
    """

    def __init__(
        self,
        address: str | None,
        connect_timeout: float,
        configured: Mapping[str, ProviderConfig],
        settings: Settings,
    ) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._providers = tuple(settings.providers)
        self._total_timeout = settings.engine.total_timeout
        self.prices = PriceTable(settings.prices)
        self._plans = RunPlans(configured, settings, is_embedded=address is None)
        self._shapes = RequestShapes()

    def start_run(
        self,
        owner: int,
        started_at: float,
        arguments: RunArguments,
        *,
        stream: bool,
        response_type: ResponseType | None = None,
    ) -> Delivery:
        """Check all arguments, then hand the run to the I/O thread. Raises InvalidRequestError, ConfigurationError.

        ``owner``: the client's number.
        """
        planned = self.plan_call(arguments, "messages", stream=stream, response_type=response_type)
        return self._submit(owner, started_at, planned)

    def start_embedding(self, owner: int, started_at: float, arguments: EmbeddingArguments) -> Delivery:
        """Check all arguments, then hand the embedding to the I/O thread. See :meth:`start_run`."""
        return self._submit(owner, started_at, self.plan_call(arguments, "input"))

    def plan_run(
        self, arguments: RunArguments, *, stream: bool, response_type: ResponseType | None = None
    ) -> tuple[PlannedRun, RunRequest]:
        """Check all arguments, and return the run that they ask for. Raises InvalidRequestError, ConfigurationError."""
        check_names(arguments, RunArguments)
        options = build_options(arguments)
        original_paths: OriginalPaths = {}
        request = build_request(
            arguments,
            stream=stream,
            original_paths=original_paths,
            answer_format=None if response_type is None else response_type.response_format,
            **self._context(),
        )
        return self._planned(options, request, original_paths)

    def plan_embedding(self, arguments: EmbeddingArguments) -> tuple[PlannedRun, RunRequest]:
        """Check all arguments, and return the embedding that they ask for. See :meth:`plan_run`."""
        check_names(arguments, EmbeddingArguments)
        options = build_options(arguments)
        return self._planned(options, build_embedding_request(arguments, **self._context()), {})

    def plan_call(
        self,
        arguments: Any,
        field: Field,
        *,
        stream: bool = False,
        response_type: ResponseType | None = None,
    ) -> PlannedRun:
        """Return the run that a call asks for. Calls of a known shape are not checked again.

        ``field``: ``messages`` for a run, ``input`` for an embedding. Raises the same errors as :meth:`plan_run`.
        """
        parts = parts_of(
            arguments, field, stream=stream, traceparent=current_traceparent(), response_type=response_type
        )
        shape = self._shapes.of(parts)
        if parts is not None and shape is not None and (plan := shape.plan_of(parts, self.access)) is not None:
            return PlannedRun(plan, parts.trace_id)
        if field == "input":
            planned, request = self.plan_embedding(arguments)
        else:
            planned, request = self.plan_run(arguments, stream=stream, response_type=response_type)
        self._shapes.note(parts, planned.plan, request, arguments.get("provider_api_key"), response_type)
        return planned

    def access(self, provider: str, api_key: str | None) -> ProviderAccess:
        """Return the key and the address of a run that starts now. ``api_key``: the caller's own, None for none."""
        return self._plans.access(provider, api_key, os.environ)

    def submit_all(self, owner: int, begin: Callable[[Connection], Sequence[OpenRun]]) -> None:
        """Hand runs to the I/O thread, together. ``begin`` makes them, for the connection of the client ``owner``.

        Raises EngineUnavailableError where no connection can be opened.
        """
        process = _client_process().current_process()
        connection = process.connection(self._address, self._connect_timeout, owner, self._total_timeout)
        process.submit_all(connection, begin(connection))
        self.prices.load()  # see :meth:`_submit`

    def _context(self) -> RequestContext:
        return {
            "trace_id": new_id("tr_"),
            "providers": self._providers,
            "takes_any_provider": self._address is not None,
            "traceparent": current_traceparent(),
        }

    def _planned(
        self, options: RunOptions, request: RunRequest, original_paths: OriginalPaths
    ) -> tuple[PlannedRun, RunRequest]:
        span_id = options.span_id or new_id("sp_")
        plan = self._plans.plan(span_id, options, request, original_paths, os.environ)
        return PlannedRun(plan, request.trace_id), request

    def _submit(self, owner: int, started_at: float, planned: PlannedRun) -> Delivery:
        process = _client_process().current_process()
        connection = process.connection(self._address, self._connect_timeout, owner, self._total_timeout)
        session, trace_id = session_of(planned.plan), planned.trace_id
        delivery = Delivery(session, trace_id, started_at, connection, owner, self.prices, process.pid)
        process.submit(connection, delivery)
        self.prices.load()  # reading them takes a while the first time: so while the run is on its way
        return delivery


@cache
def _client_process() -> ModuleType:
    """Import sockets and subprocesses with the first run, not with the package. A statement for each run would cost 2 µs."""
    from headrace.connections import client_process

    return client_process


def session_of(plan: RunPlan) -> Session:
    """Return the state machine of a new run."""
    if plan.hedge_after is None:
        return Session(plan)
    # Few programs use hedges: so this is imported with the first one.
    from headrace.runs.hedged_session import HedgedSession

    return HedgedSession(plan)
