"""Reads the settings of a running engine again, and checks them, before its workers are replaced."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import ConfigurationError
from headrace.process.child_environment import Role, environment_of
from headrace.settings.provider_keys import check_keys
from headrace.settings.settings import Settings, load_settings

Environments = dict[str, dict[str, str]]
"""A child's role → the variables with which it is started."""


def checked_environments(settings: Settings, environ: Mapping[str, str], *, is_embedded: bool) -> Environments:
    """Return the environments for the processes of an engine. Raises ConfigurationError if a provider's keys cannot be used."""
    check_keys(settings, environ)
    roles: tuple[Role, ...] = ("broker", "collector", "worker")
    return {role: environment_of(role, environ, settings, is_embedded=is_embedded) for role in roles}


def reloaded(environ: Mapping[str, str], *, is_embedded: bool) -> Environments | str:
    """Read the settings again. Return the environments for new processes, or why the settings cannot be used."""
    try:
        return checked_environments(load_settings(environ), environ, is_embedded=is_embedded)
    except ConfigurationError as error:
        return str(error)
