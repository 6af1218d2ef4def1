"""Chooses the environment variables that each process of an engine gets: what it needs, and no secrets of other programs. Pure.

The environment that a process is started with can be read in ``/proc/PID/environ`` while the process runs, and is part of crash reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from headrace.settings.found_file_rules import key_variables
from headrace.settings.known_secrets import is_proxy_variable
from headrace.settings.provider_table import BASE_URL_ENV
from headrace.settings.settings import Settings

Role = Literal["supervisor", "broker", "collector", "worker"]

_COMMON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SUDO_UID|TMPDIR|TEMP|TMP|TZ|TZDIR|TERM|NO_COLOR|HOSTNAME|LANG|LANGUAGE|LC_\w+|LOCPATH|LOCALDOMAIN|RES_OPTIONS|HOSTALIASES"
    r"|HEADRACE_\w+|XDG_\w+|PYTHON\w*|VIRTUAL_ENV|CONDA_PREFIX|CONDA_DEFAULT_ENV|NIX_SSL_CERT_FILE|NIX_PYTHON\w*|NIX_LD\w*|GUIX_PYTHON\w*"
    r"|LD_\w+|GLIBC_TUNABLES|MALLOC_\w+|TCMALLOC_\w+|MIMALLOC_\w+|[A-Z]+SAN_OPTIONS|FAKETIME\w*|COVERAGE_\w+|COV_CORE_\w+|PYTEST_\w+"
    r"|OPENSSL_\w+|SSL_CERT_FILE|SSL_CERT_DIR|UV_THREADPOOL_SIZE|UV_USE_IO_URING|SQLITE_TMPDIR"
)
"""The variables that Python, the C library and Headrace read."""
_SAYS_SECRET = re.compile(r"(^|_)(\w*KEY|\w*TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS?|AUTH|COOKIE)(_|$)")
_OF_SINKS = re.compile(r"OTEL_EXPORTER_\w*(HEADERS|ENDPOINT)")
"""An endpoint may have a password in it."""
_OTEL = re.compile(r"OTEL_\w+")


def environment_of(
    role: Role, environ: Mapping[str, str], settings: Settings, *, is_embedded: bool = False
) -> dict[str, str]:
    """Return the variables of ``environ`` that a process with this role is started with.

    Workers get the keys of providers, and the collector gets the secrets of sinks. Both get the proxies. The broker gets none of
    these. The supervisor gets what its children need. In an embedded engine each run brings its key from its program, so no process
    of the engine gets a provider key, except those of the tables of keys. A redaction hook (``spans.redact``) is the user's code and may need any variable. With a hook,
    workers and the collector get all variables, except that workers do not get the secrets of sinks and the collector does not get
    the keys of providers.
    """
    several = frozenset(name for table in settings.keys.values() for name in table.env)
    keys = _provider_variables(settings) | several
    of_engine = several if is_embedded else keys
    tokens = frozenset(sink.api_key_env for sink in settings.sinks.values())
    needed = {
        "broker": frozenset[str](),
        "worker": of_engine,
        "collector": tokens,
        "supervisor": of_engine | tokens,
    }[role]
    has_hook = role != "broker" and settings.spans.enabled and bool(settings.spans.redact)
    others = {
        "worker": tokens - keys,
        "collector": (keys | frozenset(BASE_URL_ENV.values())) - tokens,
        "broker": keys | tokens,
        "supervisor": frozenset[str](),
    }[role]

    def is_wanted(name: str) -> bool:
        if name in needed:
            return True
        if name in others or (role in ("broker", "worker") and _OF_SINKS.fullmatch(name)):
            return False
        if has_hook:
            return True
        return name not in keys | tokens and _is_common(name, role)

    return {name: value for name, value in environ.items() if is_wanted(name)}


def _is_common(name: str, role: Role) -> bool:
    if role != "broker" and is_proxy_variable(name):
        return True
    if role in ("worker", "supervisor") and (name in BASE_URL_ENV.values() or name == "SSLKEYLOGFILE"):
        return True
    if role in ("collector", "supervisor") and _OTEL.fullmatch(name):
        return True
    return _COMMON.fullmatch(name) is not None and _SAYS_SECRET.search(name) is None


def _provider_variables(settings: Settings) -> frozenset[str]:
    return frozenset(name for config in settings.providers.values() for name in key_variables(config.api_key_env))
