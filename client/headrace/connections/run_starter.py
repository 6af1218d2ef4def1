"""RunStarter: checks the arguments of a call, makes the request, and hands the run to the I/O thread."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
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
from headrace.arguments.provider_access import ProviderAccess, access_from
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.arguments.trace_context import current_traceparent
from headrace.errors import InvalidRequestError
from headrace.pricing.prices import PriceTable
from headrace.runs.delivery import Delivery
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.codec import encode_request
from headrace.wire.messages import MAX_REQUEST_BYTES
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
        self._configured = configured
        self._providers = tuple(settings.providers)
        self._has_engine_keys = frozenset(settings.keys)
        self._total_timeout = settings.engine.total_timeout
        self._prices = PriceTable(settings.prices)

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

    def _access(self, provider: str, api_key: str | None) -> ProviderAccess:
        """Return the key and the address for the run.

        The program's own engine uses the program's environment, as it is now.
        """
        if self._address is not None:
            return ProviderAccess(api_key)
        return access_from(os.environ, provider, self._configured, api_key, self._has_engine_keys)

    def _submit(
        self, owner: int, started_at: float, options: RunOptions, request: RunRequest, original_paths: OriginalPaths
    ) -> Delivery:
        # Sockets and subprocesses are imported with the first run, not with the package.
        from headrace.connections.client_process import current_process

        access = self._access(request.provider, options.provider_api_key)
        plan = RunPlan(
            span_id=options.span_id or _new_id("sp_"),
            provider=request.provider,
            model=request.model,
            request=_encoded(request),
            streams=request.stream,
            api_key=access.api_key,
            base_url=access.base_url,
            original_paths=original_paths,
            priority=options.priority,
            on_abort=options.on_abort,
            total_timeout=request.total_timeout,
            is_traced=request.send_trace,
        )
        process = current_process()
        connection = process.connection(self._address, self._connect_timeout, owner, self._total_timeout)
        delivery = Delivery(Session(plan), request.trace_id, started_at, connection, owner, self._prices)
        process.submit(connection, delivery)
        self._prices.load()  # reading them takes a while the first time: so while the run is on its way
        return delivery


def _encoded(request: RunRequest) -> bytes:
    argument = "input" if request.inputs else "messages"
    try:
        encoded = encode_request(request)
    except RecursionError:
        raise InvalidRequestError(
            "the stack of this thread is too deep to encode the request; start the run in another thread", argument
        ) from None
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidRequestError(
            f"{len(encoded)} bytes in all, beyond the limit of {MAX_REQUEST_BYTES}: send less, or give files by url",
            argument,
        )
    return encoded


def _new_id(prefix: str) -> str:
    # Unique, but not secret. Python seeds it at the start, and again in each forked child.
    return f"{prefix}{random.getrandbits(64):016x}"
