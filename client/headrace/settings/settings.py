"""Declares all settings of ``headrace.toml``, and loads them: from the files, the built-in providers and the environment.

A process loads its settings once, at its start. :mod:`headrace.settings.toml_file` finds the files. Each setting is declared once, here,
with its type and its range. Code that reads a setting may rely on both.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.errors import ConfigurationError
from headrace.pricing.price_file import read_prices
from headrace.pricing.prices import OwnPrice, Price, PriceTable
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
from headrace.settings.limit_checks import SettingProblem, problems_between, problems_within
from headrace.settings.limit_settings import (
    BudgetConfig,
    KeyConfig,
    Limit,
    LimitConfig,
    ModelConfig,
    SpendingConfig,
)
from headrace.settings.log_variables import check_log_format, check_log_level
from headrace.settings.otel_environment import OtelExport, UnsupportedExport, read_otel_environment
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.setting_types import (
    MIB,
    PIB,
    Address,
    Bytes,
    Header,
    ProviderName,
    Timeout,
    TimeoutOrNever,
    Variable,
    VariableOrNone,
)
from headrace.settings.table_check import figure_problem, first_problem
from headrace.settings.toml_file import VARIABLE, SettingsFile, settings_files, user_file
from headrace.settings.wire_format_names import BUILT_IN_FORMATS, FORMAT_NAME, OPENAI_BY_MODEL
from headrace.text.shown_address import without_password

logger = logging.getLogger(__name__)

EMBEDDED = "embedded"
"""Stands in the place of an address: the program's own engine."""
OTLP = "otlp"
"""The name of the sink that is made from OpenTelemetry's environment variables."""
MAX_PATH = 90
"""Bytes of a directory's path. A Unix socket path has at most 107 bytes, and needs the rest for the socket's name."""

_FORMATS = (*BUILT_IN_FORMATS, OPENAI_BY_MODEL)
_OTHER_FORMATS = "the name of an installed wire format, as in ollama-chat"


NO_KEYS = KeyConfig()


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[providers.NAME]`` table.

    ``api`` is the wire format: one that ships with Headrace, one of an installed plug-in, or ``openai``, which takes OpenAI's Chat
    Completions or Responses by the model. ``base_url`` is what the official SDK of the format takes: with the version at its end for OpenAI, the host alone for Anthropic and Google. ``api_key_env`` names the environment
    variables that may hold the key; the first variable that is set counts. Without ``api_key_env`` no key is sent. The limits
    are for all models of the provider together; ``[limits.NAME]`` may have them too.
    """

    api: Annotated[str, Meta(extra={"one_of": _FORMATS, "others": FORMAT_NAME, "others_are": _OTHER_FORMATS})]
    base_url: Address
    api_key_env: Variable | list[Variable] | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    input_tokens_per_minute: Limit | None = None
    output_tokens_per_minute: Limit | None = None
    max_concurrency: Limit | None = None

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"ProviderConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: the address without its password and its query."""
        address = without_password(self.base_url)
        return [("api", self.api), ("base_url", address), ("api_key_env", self.api_key_env)]


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[engine]`` table. All durations are in seconds."""

    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """How many worker processes to start; 0: one for every two processors, at least 1 and at most 8."""
    max_runs_per_worker: Annotated[int, Meta(ge=1, le=1_000_000)] = 16_384
    max_waiting_runs: Annotated[int, Meta(ge=0, le=100_000_000)] = 100_000
    connect_timeout: Timeout = 10.0
    first_chunk_timeout: Timeout = 300.0
    idle_timeout: Timeout = 120.0
    total_timeout: Timeout = 600.0
    stalled_reader_timeout: TimeoutOrNever = 300.0
    """A run ends after so long without a reader that takes its full stream; 0: never."""
    max_worker_age: TimeoutOrNever = 0.0
    """A worker of about this age is replaced by a new process; 0: never."""
    max_worker_memory: Bytes = 0
    """A worker that uses more memory is replaced; 0: never. In bytes."""
    max_retries: Annotated[int, Meta(ge=0, le=100)] = 2
    """How often a run is tried again after a failure of the provider, if neither the call nor ``[models]`` says otherwise."""
    worker_drain_timeout: TimeoutOrNever = 600.0
    """How long the runs of a replaced worker may take to finish. At the end of the engine ``--drain-timeout`` counts instead."""

    def worker_count(self) -> int:
        """Return how many workers to start."""
        return self.workers or min(max((os.cpu_count() or 1) // 2, 1), 8)


class SpansConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[spans]`` table: what is stored of each run, where, and for how long."""

    enabled: bool = True
    directory: str = ""
    """Default: ``HEADRACE_DATA``, else ``$XDG_STATE_HOME/headrace``, else ``~/.local/state/headrace``."""
    durability: Literal["normal", "full"] = "normal"
    """What stored spans survive: ``normal``: the end of any process; ``full``: a power failure too."""
    content: Literal["full", "none"] = "full"
    """``full``: prompts and answers are stored; ``none``: they are not. For sinks see ``content`` of the sink."""
    redact: Annotated[str, Meta(extra={"form": r"(\w+(\.\w+)*:\w+(\.\w+)*)?", "takes": '"module:function"'})] = ""
    """``module:function``. It gets the content of each span before the span is written anywhere."""
    retention_days: Annotated[float, Meta(ge=0, le=36_525, extra={"unit": "days"})] = 30.0
    max_file_bytes: Annotated[int, Meta(ge=100_000, le=PIB, extra={"unit": "bytes"})] = 1024 * MIB
    memory_bytes: Bytes = 64 * MIB
    """Bytes of spans that a worker keeps in memory until the collector has taken them."""
    spool_bytes: Bytes = 256 * MIB
    """Bytes of such spans on disk. Beyond it the oldest spans are dropped and counted."""


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[sinks.NAME]`` table: a place to which stored spans are sent. All durations are in seconds."""

    type: Literal["otlp", "http", "jsonl"]
    url: Address = ""
    """``otlp``: the collector's base URL (``/v1/traces`` is added), or the whole URL. ``http``: the URL to which ``/api/v1/spans`` is added."""
    path: str = ""
    """``jsonl``: the file to which spans are appended."""
    headers: dict[str, Header] = {}
    api_key_env: VariableOrNone = ""
    """The environment variable that holds a bearer token."""
    content: bool = False
    """Whether prompts and answers are sent too. They are sensitive: the default is false."""
    batch_size: Annotated[int, Meta(ge=1, le=100_000, extra={"unit": "spans"})] = 256
    timeout: Annotated[float, Meta(ge=0.001, le=3600, extra={"unit": "seconds"})] = 10.0
    service_name: str = "headrace"
    semconv: Literal["current", "1.41"] = "current"
    """``otlp``: the version of the GenAI semantic conventions from which the names come."""
    compression: Literal["none", "gzip"] = "none"
    """``otlp``: how requests are compressed."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"SinkConfig({shown})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return the fields that may be shown: no header, and the address without its password and its query."""
        return [
            ("type", self.type),
            ("url", without_password(self.url)),
            ("path", self.path),
            ("content", self.content),
        ]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All tables of ``headrace.toml``."""

    providers: dict[ProviderName, ProviderConfig] = {}
    engine: EngineConfig = EngineConfig()
    spans: SpansConfig = SpansConfig()
    sinks: dict[str, SinkConfig] = {}
    prices: dict[str, Price] = {}
    """Model (``gpt-4o``) or provider/model (``groq/llama-3.3-70b``) → price. These prices go before those that ship with Headrace."""
    limits: dict[str, LimitConfig] = {}
    models: dict[str, ModelConfig] = {}
    keys: dict[ProviderName, KeyConfig] = {}
    spending: dict[str, SpendingConfig] = {}
    budget: BudgetConfig = BudgetConfig()


# msgspec crashes if several threads use a type for the first time at once. So use it here, at import.
msgspec.json.Decoder(Settings)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings from the files, the built-in providers and ``environ``.

    Raises ConfigurationError, which names the file and the setting at fault.
    """
    return with_otel_sink(with_built_in(load_files(environ), environ), environ)


def load_files(environ: Mapping[str, str]) -> Settings:
    """Return the settings from the files alone. Raises ConfigurationError, which names the file and the setting at fault."""
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
            raise ConfigurationError(f"{file.path}: {refused}. {remedy_for(file, refused, environ)}")
        found_prices.update(file.table.get("prices", ()) if file.is_found else ())
        own = merged(own, file)
        # After each file: a found file may not bring a provider that a table of the user's own file is waiting for.
        if (problem := next(joint_problems(msgspec.convert(own, Settings)), None)) is not None:
            raise ConfigurationError(f"{place_of(problem, files)}: {problem}")
    settings = msgspec.convert(own, Settings)
    if found_prices:
        settings = msgspec.structs.replace(settings, prices=_with_own(settings.prices, found_prices))
    return settings


def joint_problems(settings: Settings) -> Iterator[SettingProblem]:
    """Yield what is wrong with tables that are about other tables, such as limits of a provider that does not exist."""
    return problems_between(settings, {**dict.fromkeys(BUILT_IN), **settings.providers}, PriceTable(settings.prices))


def place_of(problem: SettingProblem, files: Iterable[SettingsFile]) -> str:
    """Return the file that has the table of a problem: the most important of those that have it."""
    table, name = problem.entry
    return next(file.path for file in reversed([*files]) if name in file.table.get(table, {}))


def _with_own(prices: Mapping[str, Price], found: Collection[str]) -> dict[str, Price]:
    """Return prices. A price with a name in ``found`` counts only for its own provider."""
    return {
        name: OwnPrice(**msgspec.structs.asdict(price)) if name in found else price for name, price in prices.items()
    }


@cache
def _warn_ignored(path: str, reason: str) -> None:
    hint = f"if the file is yours, set {VARIABLE} to its path"
    logger.warning("settings file is ignored", extra={"file": path, "reason": reason, "hint": hint})


def with_file_name(error: ConfigurationError, table: str, key: str, environ: Mapping[str, str]) -> ConfigurationError:
    """Return an error with the name of the file that has the setting. For errors that are found after the files were read."""
    paths = [file.path for file in settings_files(environ) if key in file.table.get(table, {})]
    return ConfigurationError(f"{paths[-1]}: {error}") if paths else error


def checked_figure(name: str, value: object, setting: str) -> float:
    """Return ``value``, which is used instead of a setting of ``[engine]``. Raises ConfigurationError if it is out of the setting's range."""
    if (problem := figure_problem(name, value, EngineConfig, setting)) is not None:
        raise ConfigurationError(problem)
    return value  # type: ignore[return-value]  # the check has seen that it is a number


def with_built_in(settings: Settings, environ: Mapping[str, str]) -> Settings:
    """Return ``settings`` with the built-in providers too. Providers of ``settings`` go before them; ``environ`` may change their addresses."""
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
    """Return ``settings`` with the sink that OpenTelemetry's variables ask for, unless there is a ``[sinks.otlp]``."""
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
    """Return the directory that an ``ipc://`` address names. Raises ConfigurationError for any other address."""
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
    """Raise ConfigurationError if a setting of the file cannot be used. Whether the file may have it is checked in :func:`load_files`."""
    problem = first_problem(file.table, Settings)
    if problem is None:
        settings = msgspec.convert(file.table, Settings)
        problem = _provider_problem(settings.providers) or _sink_problem(settings.sinks) or _limit_problem(settings)
    if problem is not None:
        raise ConfigurationError(f"{file.path}: {problem}")


def _limit_problem(settings: Settings) -> str | None:
    found = next(problems_within(settings), None)
    return None if found is None else str(found)


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
    """Return the settings that exist without a found file. ``own`` has the tables of the other files."""
    before = with_built_in(msgspec.convert(own, Settings), environ)

    @cache
    def allowed() -> Collection[AllowedKey]:
        return read_allowed_keys(environ)

    return TrustedSettings(
        directory=os.path.realpath(os.path.dirname(file.path)),
        providers={
            name: TrustedProvider(one.base_url, (*key_variables(one.api_key_env), *before.keys.get(name, NO_KEYS).env))
            for name, one in before.providers.items()
        },
        other_keys=[sink.api_key_env for sink in before.sinks.values() if sink.api_key_env],
        prices=lambda: {*read_prices()["models"], *before.prices},
        is_allowed=lambda key: key in allowed(),
    )


def remedy_for(file: SettingsFile, refused: RefusedSetting, environ: Mapping[str, str]) -> str:
    """Return what the user can do so that a refused setting of a found file is used."""
    if refused.keys:
        return "You have not allowed that; if it is right, run `headrace config allow` in that directory"
    import shlex

    # A user copies this into a shell. A cloned directory may have the name "$(reboot)".
    allowed = f"set {VARIABLE}={shlex.quote(file.path)}"
    if users := user_file(environ):
        allowed += f", or move the table to {users}"
    return f"A file that is only found in the current directory may not do that; if the file is yours, {allowed}"


def merged(below: Mapping[str, Any], file: SettingsFile) -> dict[str, Any]:
    """Return the tables of two files as one. ``file`` goes before: by key in [engine], [spans] and [budget], by name in the other tables."""
    above = _anchored(file)
    return {name: {**below.get(name, {}), **above.get(name, {})} for name in {**below, **above}}


def _anchored(file: SettingsFile) -> dict[str, Any]:
    """Return the tables with absolute paths: a relative path starts at the file's directory, not at the current directory."""
    base = os.path.dirname(os.path.abspath(file.path))

    def anchored(table: Mapping[str, Any], key: str) -> dict[str, Any]:
        path = table.get(key, "")
        return {**table, key: os.path.join(base, path)} if path and not path.startswith(("/", "~")) else {**table}

    tables = {**file.table}
    if "spans" in tables:
        tables["spans"] = anchored(tables["spans"], "directory")
    if "keys" in tables:
        tables["keys"] = {name: anchored(keys, "file") for name, keys in tables["keys"].items()}
    if "sinks" in tables:
        tables["sinks"] = {name: anchored(sink, "path") for name, sink in tables["sinks"].items()}
    return tables
