"""RunStarter: checks the arguments of a call, makes the request, and hands the run to the I/O thread."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

from headrace.arguments.checked_request import (
    RequestContext,
    RunOptions,
    build_embedding_request,
    build_options,
    build_request,
    check_names,
)
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.trace_context import current_traceparent
from headrace.connections.run_plans import RunPlans
from headrace.pricing.prices import PriceTable
from headrace.runs.delivery import Delivery
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.run_request import RunRequest


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
        self._prices = PriceTable(settings.prices)
        self._plans = RunPlans(configured, settings, is_embedded=address is None)

    def start_run(
        self,
        owner: int,
        started_at: float,
        arguments: RunArguments,
        *,
        stream: bool,
        answer_format: dict[str, Any] | None = None,
    ) -> Delivery:
        """Check all arguments, then hand the run to the I/O thread. Raises InvalidRequestError, ConfigurationError.

        ``owner``: the client's number. ``answer_format``: the ``response_format`` of a ``response_type``.
        """
        check_names(arguments, RunArguments)
        options = build_options(arguments)
        original_paths: OriginalPaths = {}
        request = build_request(
            arguments,
            stream=stream,
            original_paths=original_paths,
            answer_format=answer_format,
            **self._context(),
        )
        return self._submit(owner, started_at, options, request, original_paths)

    def start_embedding(self, owner: int, started_at: float, arguments: EmbeddingArguments) -> Delivery:
        """Check all arguments, then hand the embedding to the I/O thread. See :meth:`start_run`."""
        check_names(arguments, EmbeddingArguments)
        options = build_options(arguments)
        request = build_embedding_request(arguments, **self._context())
        return self._submit(owner, started_at, options, request, {})

    def _context(self) -> RequestContext:
        return {
            "trace_id": _new_id("tr_"),
            "providers": self._providers,
            "takes_any_provider": self._address is not None,
            "traceparent": current_traceparent(),
        }

    def _submit(
        self, owner: int, started_at: float, options: RunOptions, request: RunRequest, original_paths: OriginalPaths
    ) -> Delivery:
        span_id = options.span_id or _new_id("sp_")
        plan = self._plans.plan(span_id, options, request, original_paths, os.environ)
        process = _client_process().current_process()
        connection = process.connection(self._address, self._connect_timeout, owner, self._total_timeout)
        delivery = Delivery(_session_of(plan), request.trace_id, started_at, connection, owner, self._prices)
        process.submit(connection, delivery)
        self._prices.load()  # reading them takes a while the first time: so while the run is on its way
        return delivery


@cache
def _client_process() -> ModuleType:
    """Import sockets and subprocesses with the first run, not with the package. A statement for each run would cost 2 µs."""
    from headrace.connections import client_process

    return client_process


def _session_of(plan: RunPlan) -> Session:
    if plan.hedge_after is None:
        return Session(plan)
    # Few programs use hedges: so this is imported with the first one.
    from headrace.runs.hedged_session import HedgedSession

    return HedgedSession(plan)


def _new_id(prefix: str) -> str:
    # Unique, but not secret. Python seeds it at the start, and again in each forked child.
    return f"{prefix}{random.getrandbits(64):016x}"
