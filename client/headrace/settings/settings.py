"""Settings: the providers that exist, and the figures of a process, from ``headrace.toml`` and the environment.

Read once at the start of a process. :mod:`headrace.settings.toml_file` says which files there are. Each setting is declared once, here, with
its type and its range; whoever reads a value relies on them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.errors import ConfigurationError
from headrace.pricing.price_file import read_prices
from headrace.pricing.prices import OwnPrice, Price
from headrace.settings.allowed_files import read_allowed_keys
from headrace.settings.found_file_rules import (
    AllowedKey,
    RefusedSetting,
    TrustedProvider,
    TrustedSettings,
    key_variables,
    refused_settings,
)
from headrace.settings.http_values import base_url_problem, header_problem, url_problem
from headrace.settings.log_variables import check_log_format, check_log_level
from headrace.settings.otel_environment import OtelExport, UnsupportedExport, read_otel_environment
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.table_check import figure_problem, first_problem
from headrace.settings.toml_file import VARIABLE, SettingsFile, settings_files, user_file
from headrace.settings.wire_format_names import BUILT_IN_FORMATS, FORMAT_NAME
from headrace.text.shown_address import without_password

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""The name of an engine of the program's own, where an address would be."""
OTLP = "otlp"
"""The name of the sink that OpenTelemetry's variables make."""
MAX_PATH = 90
"""Longest directory that leaves room for a socket's name within the 107 bytes of a Unix socket path."""

_YEAR = 366 * 86400
_MIB = 1024 * 1024
_PIB = 1024**5

Timeout = Annotated[float, Meta(ge=0.001, le=_YEAR, extra={"unit": "seconds"})]
TimeoutOrNever = Annotated[float, Meta(ge=0, le=_YEAR, extra={"unit": "seconds"})]
Limit = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Bytes = Annotated[int, Meta(ge=0, le=_PIB, extra={"unit": "bytes"})]
Address = Annotated[str, Meta(extra={"hidden": True})]
"""May have a password in it."""
Header = Annotated[str, Meta(extra={"hidden": True})]
_VARIABLE_TAKES = (
    "the name of an environment variable (letters, digits and _): the key itself does not belong in the file"
)
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", extra={"takes": _VARIABLE_TAKES, "hidden": True})]
VariableOrNone = Annotated[
    str, Meta(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", extra={"takes": _VARIABLE_TAKES, "hidden": True})
]
ProviderName = Annotated[
    str,
    Meta(
        extra={"name": r"[^\s/\x00-\x1f\x7f-\x9f]+", "takes": "a name without blanks and without /, as in NAME/model"}
    ),
]


_OTHER_FORMATS = "the name of an installed wire format, as in ollama-chat"


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[providers.NAME]`` table.

    ``api`` is the wire format: one that ships with Headrace, or one of a plug-in that is installed for the engine. ``base_url`` means what it means to the format's official SDK: OpenAI's has the version at
    its end, Anthropic's and Google's are the host. ``api_key_env`` names the environment variables that may hold the key,
    the first that is set; without any, none is sent. The limits are read, and not enforced yet: a warning says so.
    """

    api: Annotated[str, Meta(extra={"one_of": BUILT_IN_FORMATS, "others": FORMAT_NAME, "others_are": _OTHER_FORMATS})]
    base_url: Address
    api_key_env: Variable | list[Variable] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"ProviderConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: of the address neither a password nor a query, which may be keys."""
        address = without_password(self.base_url)
        return [("api", self.api), ("base_url", address), ("api_key_env", self.api_key_env)]


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[engine]`` table. Durations in seconds."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Worker processes; 0 means one for every two cores, at least one and at most 8."""
    max_runs_per_worker: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    max_waiting_runs: Annotated[int, Meta(ge=0, le=100_000_000)] = 100_000
    connect_timeout: Timeout = 10.0
    first_chunk_timeout: Timeout = 300.0
    idle_timeout: Timeout = 120.0
    total_timeout: Timeout = 600.0
    stalled_reader_timeout: TimeoutOrNever = 300.0
    """How long a stream waits for a reader that takes nothing, before it is ended; 0 means for ever."""
    max_worker_age: TimeoutOrNever = 0.0
    """After about so long a worker is replaced by a new process; 0 means never."""
    max_worker_memory: Bytes = 0
    """A worker that takes more bytes of memory is replaced; 0 means never."""
    worker_drain_timeout: TimeoutOrNever = 600.0
    """What the runs of a worker that is replaced have to finish. At the engine's end it is ``--drain-timeout``."""

    def worker_count(self) -> int:
        """Return how many workers to start."""
        return self.workers or min(max((os.cpu_count() or 1) // 2, 1), 8)


class SpansConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[spans]`` table: what is kept of each run, where, and for how long."""

    enabled: bool = True
    directory: str = ""
    """Default: ``HEADRACE_DATA``, else ``$XDG_STATE_HOME/headrace``, else ``~/.local/state/headrace``."""
    durability: Literal["normal", "full"] = "normal"
    """``normal`` outlives the death of any process, ``full`` also a power failure."""
    content: Literal["full", "none"] = "full"
    """Whether prompts and answers are stored. What remote sinks are sent is each sink's own ``content``."""
    redact: Annotated[str, Meta(pattern=r"^(\w+(\.\w+)*:\w+(\.\w+)*)?$", extra={"takes": '"module:function"'})] = ""
    """``module:function``, called with each span's content before it is written anywhere."""
    retention_days: Annotated[float, Meta(ge=0, le=36_525, extra={"unit": "days"})] = 30.0
    max_file_bytes: Annotated[int, Meta(ge=100_000, le=_PIB, extra={"unit": "bytes"})] = 1024 * _MIB
    memory_bytes: Bytes = 64 * _MIB
    """What a worker keeps in memory of spans that the collector has not taken."""
    spool_bytes: Bytes = 256 * _MIB
    """What a worker keeps on disk of them; beyond it the oldest are dropped, and counted."""


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[sinks.NAME]`` table: where spans are sent on to. Durations in seconds."""

    type: Literal["otlp", "http", "jsonl"]
    url: Address = ""
    """For ``otlp`` the collector's base URL (``/v1/traces`` is added) or the whole one; for ``http`` the base of ``/api/v1/spans``."""
    path: str = ""
    """For ``jsonl``: the file to append to."""
    headers: dict[str, Header] = {}
    api_key_env: VariableOrNone = ""
    """The variable that holds a bearer token."""
    content: bool = False
    """Whether prompts and answers are sent along. They are sensitive: off unless asked for."""
    batch_size: Annotated[int, Meta(ge=1, le=100_000, extra={"unit": "spans"})] = 256
    timeout: Annotated[float, Meta(ge=0.001, le=3600, extra={"unit": "seconds"})] = 10.0
    service_name: str = "headrace"
    semconv: Literal["current", "1.41"] = "current"
    """``otlp``: which names of the GenAI semantic conventions."""
    compression: Literal["none", "gzip"] = "none"
    """``otlp``: how requests are packed."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"SinkConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what may be shown: no header, and of the address neither a password nor a query, which may be keys."""
        return [
            ("type", self.type),
            ("url", without_password(self.url)),
            ("path", self.path),
            ("content", self.content),
        ]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    providers: dict[ProviderName, ProviderConfig] = {}
    engine: EngineConfig = EngineConfig()
    spans: SpansConfig = SpansConfig()
    sinks: dict[str, SinkConfig] = {}
    prices: dict[str, Price] = {}
    """By model (``gpt-4o``) or provider and model (``groq/llama-3.3-70b``); beyond and before those that ship with Headrace."""


# msgspec crashes where a type is first used in several threads at once: so it is used here, at the import.
msgspec.json.Decoder(Settings)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that ``environ`` and the files say; raises ConfigurationError naming what is wrong, and in which file."""
    return with_otel_sink(with_built_in(load_files(environ), environ), environ)


def load_files(environ: Mapping[str, str]) -> Settings:
    """Return what the files alone say; raises ConfigurationError naming what is wrong, and in which file."""
    check_log_level(environ)
    check_log_format(environ)
    files = settings_files(environ)
    for file in files:
        check_file(file)
    own: dict[str, Any] = {}
    found_prices: set[str] = set()
    for file in files:
        if file.ignored:
            _warn_ignored(file.path, file.ignored)
        elif file.is_found and (
            refused := next(refused_settings(file.table, trusted_settings(file, own, environ)), None)
        ):
            raise ConfigurationError(f"{file.path}: {refused}. {what_to_do(file, refused, environ)}")
        found_prices.update(file.table.get("prices", ()) if file.is_found else ())
        own = merged(own, file)
    settings = msgspec.convert(own, Settings)
    if found_prices:
        settings = msgspec.structs.replace(settings, prices=_with_own(settings.prices, found_prices))
    for name, provider in settings.providers.items():
        if provider.requests_per_minute or provider.tokens_per_minute or provider.max_concurrency:
            logger.warning("provider limits are not enforced by this version", extra={"provider": name})
    return settings


def _with_own(prices: Mapping[str, Price], found: Collection[str]) -> dict[str, Price]:
    """Return prices, where a name in ``found`` has a price that counts for its own provider alone."""
    return {
        name: OwnPrice(**msgspec.structs.asdict(price)) if name in found else price for name, price in prices.items()
    }


@cache
def _warn_ignored(path: str, reason: str) -> None:
    hint = f"if the file is yours, set {VARIABLE} to its path"
    logger.warning("settings file is ignored", extra={"file": path, "reason": reason, "hint": hint})


def told_with_file(error: ConfigurationError, table: str, key: str, environ: Mapping[str, str]) -> ConfigurationError:
    """Return the error with the file that has the setting, for what is found wrong only later than the reading."""
    paths = [file.path for file in settings_files(environ) if key in file.table.get(table, {})]
    return ConfigurationError(f"{paths[-1]}: {error}") if paths else error


def checked_figure(name: str, value: object, setting: str) -> float:
    """Return a figure that was given instead of the one of ``[engine]``; raises ConfigurationError where it is out of its range."""
    if (problem := figure_problem(name, value, EngineConfig, setting)) is not None:
        raise ConfigurationError(problem)
    return value  # type: ignore[return-value]  # the check has seen that it is a number


def with_built_in(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return ``settings`` with the built-in providers beneath its own, their base URLs as ``environ`` says."""
    providers = {
        name: ProviderConfig(api=api, base_url=base_url, api_key_env=list(variables) or None)
        for name, (api, base_url, variables) in BUILT_IN.items()
    }
    for name, variable in BASE_URL_ENV.items():
        if base_url := environ.get(variable):
            providers[name] = msgspec.structs.replace(providers[name], base_url=base_url)
    providers.update(settings.providers)
    return msgspec.structs.replace(settings, providers=providers)


def with_otel_sink(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return ``settings`` with the sink that OpenTelemetry's own variables ask for, unless they have ``[sinks.otlp]``."""
    if OTLP in settings.sinks:
        return settings
    match read_otel_environment(environ):
        case OtelExport() as export if (problem := url_problem(export.url)) is not None:
            logger.warning("spans are not exported", extra={"reason": f"OTEL_EXPORTER_OTLP_ENDPOINT {problem}"})
        case OtelExport() as export:
            sink = SinkConfig(type="otlp", **msgspec.structs.asdict(export))
            return msgspec.structs.replace(settings, sinks={**settings.sinks, OTLP: sink})
        case UnsupportedExport(reason):
            logger.warning("spans are not exported", extra={"reason": reason})
    return settings


def directory_of(address: str) -> Path:
    """Return the directory that an ``ipc://`` address names; raises ConfigurationError for any other address."""
    scheme, separator, path = address.partition("://")
    if scheme != "ipc" or not separator or not path.startswith("/"):
        raise ConfigurationError(
            f"engine address {address!r}: takes ipc:// and the absolute path of the engine's directory, "
            "such as ipc:///run/headrace/engine"
        )
    if not path.isprintable():
        raise ConfigurationError(f"engine address {address!r}: the path has characters that cannot be printed")
    if len(path.encode()) > MAX_PATH:
        raise ConfigurationError(f"engine address {address!r}: the path is longer than {MAX_PATH} bytes")
    return Path(path)


def check_file(file: SettingsFile) -> None:
    """Raise ConfigurationError where a setting of the file cannot be used; of what it may set, see :func:`load_files`."""
    problem = first_problem(file.table, Settings)
    if problem is None:
        settings = msgspec.convert(file.table, Settings)
        problem = _provider_problem(settings.providers) or _sink_problem(settings.sinks)
    if problem is not None:
        raise ConfigurationError(f"{file.path}: {problem}")


def _provider_problem(providers: Mapping[str, ProviderConfig]) -> str | None:
    for name, provider in providers.items():
        if (problem := base_url_problem(provider.base_url)) is not None:
            return f"providers.{name}.base_url {problem}"
    return None


def _sink_problem(sinks: Mapping[str, SinkConfig]) -> str | None:
    for name, sink in sinks.items():
        where = f"sinks.{name}"
        needed, other = ("path", "url") if sink.type == "jsonl" else ("url", "path")
        if not getattr(sink, needed):
            return f"{where}.{needed} is missing"
        if getattr(sink, other):
            return f'{where}.{other} is not for a sink of type "{sink.type}"; take it out'
        if sink.type == "jsonl":
            continue
        if (problem := url_problem(sink.url)) is not None:
            return f"{where}.url {problem}"
        for header, value in sink.headers.items():
            if (problem := header_problem(header, value)) is not None:
                return f"{where}.headers: {problem}"
    return None


def trusted_settings(file: SettingsFile, own: Mapping[str, Any], environ: Mapping[str, str]) -> TrustedSettings:
    """Return what there is without a found file, of which ``own`` are the other files' tables."""
    before = with_built_in(msgspec.convert(own, Settings), environ)

    @cache
    def grants() -> Collection[AllowedKey]:
        return read_allowed_keys(environ)

    return TrustedSettings(
        directory=os.path.realpath(os.path.dirname(file.path)),
        providers={
            name: TrustedProvider(one.base_url, key_variables(one.api_key_env))
            for name, one in before.providers.items()
        },
        other_keys=[sink.api_key_env for sink in before.sinks.values() if sink.api_key_env],
        prices=lambda: {*read_prices()["models"], *before.prices},
        is_allowed=lambda grant: grant in grants(),
    )


def what_to_do(file: SettingsFile, refused: RefusedSetting, environ: Mapping[str, str]) -> str:
    """Return how a user has a setting of a found file taken that is refused."""
    if refused.grants:
        return "You have not allowed that; if it is right, run `headrace config allow` in that directory"
    import shlex

    # A user copies this into a shell: a cloned directory may be called "$(reboot)".
    allowed = f"set {VARIABLE}={shlex.quote(file.path)}"
    if users := user_file(environ):
        allowed += f", or move the table to {users}"
    return f"A file that is only found in the current directory may not do that; if it is yours, {allowed}"


def merged(below: Mapping[str, Any], file: SettingsFile) -> dict[str, Any]:
    """Return two files as one: ``file`` goes before, by key in [engine] and [spans], by name in the others."""
    above = _anchored(file)
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}


def _anchored(file: SettingsFile) -> dict[str, Any]:
    """Return the tables with paths that are relative to the file's directory: what lies in the current directory is anybody's."""
    base = os.path.dirname(os.path.abspath(file.path))

    def anchored(table: Mapping[str, Any], key: str) -> dict[str, Any]:
        path = table.get(key, "")
        return {**table, key: os.path.join(base, path)} if path and not path.startswith(("/", "~")) else {**table}

    tables = {**file.table}
    if "spans" in tables:
        tables["spans"] = anchored(tables["spans"], "directory")
    if "sinks" in tables:
        tables["sinks"] = {name: anchored(sink, "path") for name, sink in tables["sinks"].items()}
    return tables
