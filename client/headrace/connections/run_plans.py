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
from headrace.arguments.provider_access import ProviderAccess, RememberedAccess
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


_NO_TAGS: list[str] = []


class RunPlans:
    """Makes the plans of one client's runs.

    ``configured``: the providers in ``headrace.toml``. ``is_embedded``: the engine is this program's own, and gets keys
    from this program's environment.
    """

    def __init__(self, configured: Mapping[str, ProviderConfig], settings: Settings, *, is_embedded: bool) -> None:
        self._access = RememberedAccess(configured, frozenset(settings.keys))
        self._is_embedded = is_embedded
        self._providers = tuple(settings.providers)
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
        key = options.provider_api_key
        if not options.fallbacks and not self._defaults.are_any:
            return self._target(span_id, options, request, key, original_paths, environ, None)
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
            own_key = key if provider == request.provider else None
            paths = {**original_paths, "model": f"fallbacks[{index}]"}
            again = msgspec.structs.replace(request, provider=provider, model=model)
            plan = self._target(span_id, options, again, own_key, paths, environ, plan)
        return self._target(span_id, options, request, key, original_paths, environ, plan)

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
        access = self.access(request.provider, api_key, environ)
        encoded = _encoded(request)
        max_retries, hedge_after, first_chunks = options.max_retries, options.hedge_after, None
        if self._defaults.are_any:
            max_retries, hedge_after, first_chunks = self._with_defaults(options, request)
        output, key, base_url = request.max_output_tokens, access.api_key, access.base_url
        return RunPlan(
            span_id=span_id,
            provider=request.provider,
            model=request.model,
            request=encoded,
            streams=request.stream,
            api_key=key,
            base_url=base_url,
            original_paths=original_paths,
            priority=options.priority,
            on_abort=options.on_abort,
            total_timeout=request.total_timeout,
            is_traced=request.send_trace,
            max_retries=self._max_retries if max_retries is None else max_retries,
            account=account_of(key, base_url),
            user=short_hash(request.user_id) if request.user_id else "",
            tags=[short_hash(tag) for tag in request.tags[:_MAX_TAGS]] if request.tags else _NO_TAGS,
            input_tokens=input_tokens(request, encoded),
            max_output_tokens=0 if output is None else min(output, MAX_COUNT),
            fallback=fallback,
            hedge_after=hedge_after,
            first_chunks=first_chunks,
        )

    def _with_defaults(
        self, options: RunOptions, request: RunRequest
    ) -> tuple[int | None, float | None, SlowFirstChunks | None]:
        """Return the retries and the hedge of a run, by its arguments, else by its model's table."""
        defaults = self._defaults.of(request.provider, request.model)
        max_retries = defaults.max_retries if options.max_retries is None else options.max_retries
        hedge_after = options.hedge_after
        if hedge_after is not None or request.inputs:
            return max_retries, hedge_after, None
        if defaults.hedge_after_ms is not None:
            return max_retries, defaults.hedge_after_ms / 1000, None
        if defaults.hedge == "p95":
            first_chunks = self._slow_first_chunks(request)
            return max_retries, first_chunks.slow(), first_chunks
        return max_retries, None, None

    def _slow_first_chunks(self, request: RunRequest) -> SlowFirstChunks:
        """Return what is known of the first chunks of the request's model."""
        from headrace.runs.hedge import SlowFirstChunks

        return self._first_chunks.setdefault((request.provider, request.model), SlowFirstChunks())

    def access(self, provider: str, api_key: str | None, environ: Mapping[str, str]) -> ProviderAccess:
        """Return the key and the address for the run.

        The program's own engine uses the program's environment, as it is now.
        """
        if not self._is_embedded:
            return ProviderAccess(api_key)
        return self._access.of(environ, provider, api_key)


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
