"""Prepares the request of a run: finds its provider, address, key and wire format. Keys leave this module in requests only."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.settings.http_values import base_url_problem, key_problem
from headrace.settings.provider_table import BASE_URL_ENV
from headrace.settings.settings import EngineConfig, ProviderConfig, Settings
from headrace.settings.wire_format_names import OPENAI_BY_MODEL
from headrace.wire.messages import BAD_SETTINGS
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.provider_keys import ProviderKeys
from headrace_workers.providers.openai_choice import CHAT, RESPONSES, choose
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import (
    ProviderApi,
    ProviderFailedError,
    ProviderFailure,
    ProviderSettings,
    WireFormat,
)
from headrace_workers.runs.timeouts import ClockLimits
from headrace_workers.wire_format_plugins import load_formats

logger = logging.getLogger(__name__)

_MOST_ACCESSES = 1_000
"""Combinations of provider, key and address that are remembered."""


class Prepared(msgspec.Struct, frozen=True, gc=False):
    """A request that is ready to be sent.

    ``api`` is the wire format's API for chat or embeddings. ``request`` holds the key.
    """

    wire_format: WireFormat
    api: ProviderApi
    request: HttpRequest
    api_key: str | None

    def __repr__(self) -> str:
        return f"Prepared({self.request!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("request", self.request)]


class _Access(msgspec.Struct, frozen=True):
    """How a provider is reached: its settings, wire format and key. ``is_by_model``: the model may choose another format."""

    settings: ProviderSettings
    declared: WireFormat
    key: str | None
    is_by_model: bool

    def __repr__(self) -> str:
        return f"_Access({self.settings!r})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("settings", self.settings)]


class Providers:
    """The configured providers, with the keys and addresses in the worker's environment."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.keys = ProviderKeys(settings, environ)
        self._settings = {name: _provider_settings(name, config) for name, config in settings.providers.items()}
        self._loaded = load_formats({config.api for config in settings.providers.values()} - {OPENAI_BY_MODEL})
        self._accesses: dict[tuple[str, str | None, str | None, str, str], _Access] = {}
        """Provider, caller's key and address, chosen key and wire format → how the provider is reached: checked once."""

    def prepare(
        self,
        request: RunRequest,
        api_key: str | None,
        base_url: str | None = None,
        chosen_key: str = "",
        wire_format: str = "",
    ) -> Prepared:
        """Build the request of a run. Raises ProviderFailedError if it cannot be built.

        ``api_key`` and ``base_url`` are the caller's: see :class:`headrace.wire.messages.Run`. ``chosen_key``: the short
        hash of the worker's key to use, if the provider has several. ``wire_format``: one of OpenAI's two, if the run
        must have it; the provider must be OpenAI or a compatible server.
        """
        asked = (request.provider, api_key, base_url, chosen_key, wire_format)
        access = self._accesses.get(asked)
        if access is None:
            access = self._access(request, api_key, base_url, chosen_key, wire_format)
            if len(self._accesses) >= _MOST_ACCESSES:
                self._accesses.clear()
            self._accesses[asked] = access
        settings, declared, key = access.settings, access.declared, access.key
        if request.inputs or not access.is_by_model:
            api = api_for(request, settings, declared)
            return Prepared(declared, api, _built(declared.name, api, request, settings, key), key)

        def build(name: str) -> Prepared:
            chosen = WIRE_FORMATS[name]
            return Prepared(chosen, chosen.api, _built(name, chosen.api, request, settings, key), key)

        return choose(request, build)

    def _access(
        self, request: RunRequest, api_key: str | None, base_url: str | None, chosen_key: str, wire_format: str
    ) -> _Access:
        settings = self._settings.get(request.provider)
        if settings is None:
            known = ", ".join(sorted(self._settings))
            reason = f"the engine has no such provider; it has: {known}"
            raise ProviderFailedError(ProviderFailure("invalid_request", reason))
        if base_url is not None:
            settings = msgspec.structs.replace(settings, base_url=base_url.rstrip("/"))
        self._check_address(settings, is_callers=base_url is not None)
        if wire_format and settings.api not in {OPENAI_BY_MODEL, CHAT, RESPONSES}:
            reason = f"{settings.name} has no API in the form {wire_format}"
            raise ProviderFailedError(ProviderFailure("invalid_request", reason, argument="model"))
        is_by_model = settings.api == OPENAI_BY_MODEL and not wire_format
        declared = self._wire_format(settings, wire_format or (CHAT if is_by_model else settings.api))
        api_for(request, settings, declared)  # before the key: its absence is told only if the format can be used
        # Never send a key of the engine to an address that the caller names.
        is_callers = api_key is not None or base_url is not None
        key = api_key or self._key(settings, chosen_key, is_callers=is_callers)
        return _Access(settings, declared, key, is_by_model)

    def access(self, provider: str) -> tuple[ProviderSettings, str | None]:
        """Return a provider's settings, and the worker's first key for it. Raises ProviderFailedError if there is none."""
        settings = self._settings.get(provider)
        if settings is None:
            raise ProviderFailedError(ProviderFailure("invalid_request", f"there is no provider {provider} any more"))
        self._check_address(settings, is_callers=False)
        return settings, self._key(settings, "", is_callers=False)

    def wire_format(self, name: str) -> WireFormat:
        """Return a wire format by its name. Raises ProviderFailedError if it is not loaded."""
        declared = self._loaded.formats.get(name)
        if declared is None:
            raise settings_failure(f"no provider of the settings has the wire format {name} any more")
        return declared

    def _wire_format(self, settings: ProviderSettings, name: str) -> WireFormat:
        declared = self._loaded.formats.get(name)
        if declared is None:
            problem = self._loaded.problems[name]
            raise settings_failure(f'providers.{settings.name}.api is "{name}": {problem}')
        return declared

    def _check_address(self, settings: ProviderSettings, *, is_callers: bool) -> None:
        variable = BASE_URL_ENV.get(settings.name)
        if not settings.base_url:
            where = "in this program's environment" if is_callers else "where the engine starts"
            reason = f"no address: set {variable} {where}, or base_url in your own headrace.toml"
            raise settings_failure(reason)
        if (problem := base_url_problem(settings.base_url)) is not None:
            is_from_variable = variable is not None and self._environ.get(variable) == settings.base_url
            name = (
                f"{variable}, where the engine starts," if is_from_variable else f"providers.{settings.name}.base_url"
            )
            raise settings_failure(f"{name} {problem}")

    def _key(self, settings: ProviderSettings, chosen: str, *, is_callers: bool) -> str | None:
        """Return the worker's key: of the provider's table of keys, else of the worker's environment.

        If ``is_callers``, use none: the caller's environment has no key.
        """
        if not is_callers and (key := self._key_of_table(settings.name, chosen)) is not None:
            return key
        for variable in () if is_callers else settings.api_key_env:
            if key := self._environ.get(variable):
                if (problem := key_problem(key)) is not None:
                    raise settings_failure(f"{variable}, where the engine starts, {problem}")
                return key
        if settings.api_key_env:
            variables = " or ".join(settings.api_key_env)
            where = "in this program's environment" if is_callers else "where the engine starts"
            reason = f"no key: set {variables} {where}, or give provider_api_key="
            raise ProviderFailedError(ProviderFailure("authentication", reason, code="no_api_key"))
        return None

    def _key_of_table(self, provider: str, chosen: str) -> str | None:
        try:
            return self.keys.of_table(provider, chosen)
        except ConfigurationError as error:
            raise settings_failure(str(error)) from None


def settings_failure(reason: str) -> ProviderFailedError:
    """Return the error for unusable settings. The caller gets it as a ConfigurationError."""
    return ProviderFailedError(ProviderFailure("invalid_request", reason, code=BAD_SETTINGS))


def api_for(request: RunRequest, settings: ProviderSettings, declared: WireFormat) -> ProviderApi:
    """Return the API of a wire format for this request.

    Raises ProviderFailedError for texts to embed, if the format has no embeddings.
    """
    if not request.inputs:
        return declared.api
    if declared.embeddings is None:
        reason = f"{settings.name} has no embeddings; use a model of a provider that has, such as openai or google"
        raise ProviderFailedError(ProviderFailure("invalid_request", reason, argument="model"))
    return declared.embeddings


def _built(
    name: str, api: ProviderApi, request: RunRequest, settings: ProviderSettings, key: str | None
) -> HttpRequest:
    """Build the request in one wire format. Every exception becomes a ProviderFailedError."""
    try:
        return api.build_request(request, settings, key)
    except ProviderFailedError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"the request has a value that JSON cannot represent: {error}"
        raise ProviderFailedError(ProviderFailure("invalid_request", reason)) from None
    except Exception as error:
        logger.exception("wire format cannot build a request", extra={"wire_format": name})
        reason = f"the wire format {name} failed to build the request: {type(error).__name__}"
        raise ProviderFailedError(ProviderFailure("provider_protocol", reason)) from None


def clock_limits(request: RunRequest, config: EngineConfig, time_left: float | None = None) -> ClockLimits:
    """Return the limits of a run's clocks: the caller's, else those of the engine's settings.

    ``time_left``: the seconds of the total timeout that earlier attempts of the run have left; None: all.

    Without streaming, nothing comes before the whole answer. Then the first-chunk and idle clocks run only if the
    caller sets them.
    """
    is_streamed = request.stream
    limits = ClockLimits(
        connect=config.connect_timeout,
        first_chunk=request.first_chunk_timeout or (config.first_chunk_timeout if is_streamed else math.inf),
        idle=request.idle_timeout or (config.idle_timeout if is_streamed else math.inf),
        total=request.total_timeout or config.total_timeout,
        reader=config.stalled_reader_timeout or math.inf,
    )
    if time_left is None:
        return limits
    return msgspec.structs.replace(limits, spent=max(limits.total - time_left, 0.0))


def _provider_settings(name: str, config: ProviderConfig) -> ProviderSettings:
    named = config.api_key_env
    variables = (named,) if isinstance(named, str) else tuple(named or ())
    return ProviderSettings(name=name, api=config.api, base_url=config.base_url, api_key_env=variables)
