"""Turns an error into one line for a person: what happened, and what to do next."""

from __future__ import annotations

import os
import re

from headrace.cli.shared.terminal import one_line
from headrace.errors import (
    AuthenticationError,
    ConfigurationError,
    HeadraceError,
    InvalidRequestError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    QueueFullError,
    RateLimitError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.settings.settings import ProviderConfig, load_settings
from headrace.text.shown_address import without_password

_OPTIONS = {
    "custom_options": "--option",
    "embed": "--embed",
    "input_format": "--input-format",
    "max_output_tokens": "--max-output-tokens",
    "messages": "prompt",
    "model": "--model",
    "prompt": "--prompt",
    "provider": "--provider",
    "seed": "--seed",
    "service_tier": "--service-tier",
    "system": "--system",
    "temperature": "--temperature",
    "timeout_ms": "--timeout",
    "via_provider": "--via-provider",
}
"""Argument of ``run_local``, or of a batch job → its name on the command line."""
_PATH = re.compile(r"(\w+)\.?(.*)", re.DOTALL)


def explanation(error: HeadraceError) -> str:
    """Return what happened and what to do next, on one line without control characters."""
    what = _what(error)
    next_step = _next_step(error)
    return one_line(f"{what}; {next_step}" if next_step else what)


def _what(error: HeadraceError) -> str:
    if isinstance(error, InvalidRequestError) and (path := _PATH.fullmatch(error.argument or "")) is not None:
        name, place = path[1], path[2]
        return f"{' '.join(filter(None, (_OPTIONS.get(name, name), place)))}: {error.reason}"
    if isinstance(error, AuthenticationError) and error.code == "no_api_key":
        return f"no key for {error.provider}"
    return str(error)


def _next_step(error: HeadraceError) -> str:
    match error:
        case AuthenticationError(code="no_api_key"):
            return f"set {_key_variable(error)} where the engine starts, or try without a key: `headrace simulate`"
        case AuthenticationError():
            return f"check {_key_variable(error)} where the engine starts"
        case RateLimitError() | QueueFullError():
            return "try again later" if error.retry_after is None else f"try again in {error.retry_after:g} s"
        case ProviderUnavailableError(status_code=None) if (provider := _provider(error)) is not None:
            return f"check that {without_password(provider.base_url)} is right, and that this machine can reach it"
        case ProviderUnavailableError() | ProviderProtocolError() | WorkerLostError():
            return "try again"
        case RunTimeoutError(clock="total"):
            return "allow more time with --timeout"
        case _:
            return ""


def _key_variable(error: ProviderError) -> str:
    provider = _provider(error)
    named = provider.api_key_env if provider is not None else None
    return " or ".join(named) if isinstance(named, list) else named or "the provider's key"


def _provider(error: ProviderError) -> ProviderConfig | None:
    """Return the provider from this process's settings. The engine's settings are most likely the same."""
    try:
        return load_settings(os.environ).providers.get(error.provider)
    except ConfigurationError:
        return None
