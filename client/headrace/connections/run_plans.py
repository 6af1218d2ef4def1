"""Makes the plan of a run from its checked arguments: encoded request, key, retries and fallbacks. Pure.

The environment is an argument.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from headrace.arguments.checked_request import RunOptions
from headrace.arguments.model_choice import ModelDefaults, ProviderModel, default_fallbacks, fallback_models
from headrace.arguments.original_paths import OriginalPaths
from headrace.arguments.provider_access import ProviderAccess, access_from
from headrace.arguments.token_estimate import input_tokens
from headrace.errors import InvalidRequestError
from headrace.runs.run_plan import RunPlan
from headrace.settings.settings import ProviderConfig, Settings
from headrace.wire.accounts import account_of, short_hash
from headrace.wire.bounds import MAX_COUNT
from headrace.wire.codec import encode_request
from headrace.wire.messages import MAX_REQUEST_BYTES
from headrace.wire.run_request import RunRequest

if TYPE_CHECKING:
    from headrace.runs.hedge import SlowFirstChunks

_MAX_TAGS = 64
"""Tags of a run that spending limits can name. Further tags are only kept with the span."""


class RunPlans:
    """Makes the plans of one client's runs.

    ``configured``: the providers in ``headrace.toml``. ``is_embedded``: the engine is this program's own, and gets keys
    from this program's environment.
    """

    def __init__(self, configured: Mapping[str, ProviderConfig], settings: Settings, *, is_embedded: bool) -> None:
        self._configured = configured
        self._is_embedded = is_embedded
        self._providers = tuple(settings.providers)
        self._has_engine_keys = frozenset(settings.keys)
        self._max_retries = settings.engine.max_retries
        self._defaults = ModelDefaults(settings.models)
        self._first_chunks: dict[ProviderModel, SlowFirstChunks] = {}

    def plan(
        self,
        span_id: str,
        options: RunOptions,
        request: RunRequest,
        original_paths: OriginalPaths,
        environ: Mapping[str, str],
    ) -> RunPlan:
        """Return the plan of a run, with a plan for each of its fallbacks.

        Raises InvalidRequestError for a wrong fallback or a request that is too large, and ConfigurationError for a
        variable of ``environ`` that cannot be used.
        """
        first = (request.provider, request.model)
        defaults = self._defaults.of(*first)
        named: list[ProviderModel] = []
        if options.fallbacks:
            named = fallback_models(first, options.fallbacks, self._providers)
        elif options.fallbacks is None and defaults.fallbacks:
            named = default_fallbacks(first, defaults, self._providers)
        plan: RunPlan | None = None
        for index in range(len(named) - 1, -1, -1):
            provider, model = named[index]
            key = options.provider_api_key if provider == request.provider else None
            paths = {**original_paths, "model": f"fallbacks[{index}]"}
            again = msgspec.structs.replace(request, provider=provider, model=model)
            plan = self._target(span_id, options, again, key, paths, environ, plan)
        return self._target(span_id, options, request, options.provider_api_key, original_paths, environ, plan)

    def _target(
        self,
        span_id: str,
        options: RunOptions,
        request: RunRequest,
        api_key: str | None,
        original_paths: OriginalPaths,
        environ: Mapping[str, str],
        fallback: RunPlan | None,
    ) -> RunPlan:
        """Return the plan of a run with one model."""
        access = self._access(request.provider, api_key, environ)
        encoded = _encoded(request)
        defaults = self._defaults.of(request.provider, request.model)
        max_retries = options.max_retries
        if max_retries is None:
            max_retries = defaults.max_retries
        hedge_after, first_chunks = options.hedge_after, None
        if hedge_after is None and defaults.hedge_after_ms is not None and not request.inputs:
            hedge_after = defaults.hedge_after_ms / 1000
        elif hedge_after is None and defaults.hedge == "p95" and not request.inputs:
            first_chunks = self._slow_first_chunks(request)
            hedge_after = first_chunks.slow()
        return RunPlan(
            span_id=span_id,
            provider=request.provider,
            model=request.model,
            request=encoded,
            streams=request.stream,
            api_key=access.api_key,
            base_url=access.base_url,
            original_paths=original_paths,
            priority=options.priority,
            on_abort=options.on_abort,
            total_timeout=request.total_timeout,
            is_traced=request.send_trace,
            max_retries=self._max_retries if max_retries is None else max_retries,
            account=account_of(access.api_key, access.base_url),
            user=short_hash(request.user_id) if request.user_id else "",
            tags=[short_hash(tag) for tag in request.tags[:_MAX_TAGS]] if request.tags else [],
            input_tokens=input_tokens(request, encoded),
            max_output_tokens=min(request.max_output_tokens or 0, MAX_COUNT),
            fallback=fallback,
            hedge_after=hedge_after,
            first_chunks=first_chunks,
        )

    def _slow_first_chunks(self, request: RunRequest) -> SlowFirstChunks:
        """Return what is known of the first chunks of the request's model."""
        from headrace.runs.hedge import SlowFirstChunks

        return self._first_chunks.setdefault((request.provider, request.model), SlowFirstChunks())

    def _access(self, provider: str, api_key: str | None, environ: Mapping[str, str]) -> ProviderAccess:
        """Return the key and the address for the run.

        The program's own engine uses the program's environment, as it is now.
        """
        if not self._is_embedded:
            return ProviderAccess(api_key)
        return access_from(environ, provider, self._configured, api_key, self._has_engine_keys)


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
