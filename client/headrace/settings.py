"""Settings: the providers that exist, and the figures of a process, from ``headrace.toml`` and the environment.

Read once at the start of a process. The file is the one named by ``HEADRACE_CONFIG``, else ``headrace.toml`` in the
current directory, else none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from headrace.errors import ConfigurationError
from headrace.otel_environment import OtelExport, UnsupportedExport, read_otel_environment
from headrace.provider_table import BASE_URL_ENV, BUILT_IN

logger = logging.getLogger(__name__)

API_NAMES = ("openai-chat", "openai-responses", "anthropic", "google")

EMBEDDED = "embedded"
"""The name of an engine of the program's own, where an address would be."""
OTLP = "otlp"
"""The name of the sink that OpenTelemetry's variables make."""
MAX_PATH = 90
"""Longest directory that leaves room for a socket's name within the 107 bytes of a Unix socket path."""


class ProviderConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[providers.NAME]`` table.

    ``api`` is the wire format. ``base_url`` means what it means to the format's official SDK: OpenAI's has the version at
    its end, Anthropic's and Google's are the host. ``api_key_env`` names the environment variables that may hold the key,
    the first that is set; without any, none is sent. The limits are read, and not enforced yet: a warning says so.
    """

    api: str
    base_url: str
    api_key_env: str | list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrency: int | None = None


class EngineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ``[engine]`` table. Durations in seconds."""

    workers: int = 0
    """Worker processes; 0 means one for every two cores, at least one and at most 8."""
    max_runs_per_worker: int = 4096
    max_waiting_runs: int = 100_000
    connect_timeout: float = 10.0
    first_chunk_timeout: float = 300.0
    idle_timeout: float = 120.0
    total_timeout: float = 600.0
    stalled_reader_timeout: float = 300.0
    """How long a stream waits for a reader that takes nothing, before it is ended; 0 means for ever."""
    max_worker_age: float = 0.0
    """After about so long a worker is replaced by a new process; 0 means never."""
    max_worker_memory: int = 0
    """A worker that takes more bytes of memory is replaced; 0 means never."""
    worker_drain_timeout: float = 600.0
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
    redact: str = ""
    """``module:function``, called with each span's content before it is written anywhere."""
    retention_days: float = 30.0
    max_file_bytes: int = 1024 * 1024 * 1024
    memory_bytes: int = 64 * 1024 * 1024
    """What a worker keeps in memory of spans that the collector has not taken."""
    spool_bytes: int = 256 * 1024 * 1024
    """What a worker keeps on disk of them; beyond it the oldest are dropped, and counted."""


class SinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One ``[sinks.NAME]`` table: where spans are sent on to. Durations in seconds."""

    type: Literal["otlp", "http", "jsonl"]
    url: str = ""
    """For ``otlp`` the collector's base URL (``/v1/traces`` is added) or the whole one; for ``http`` the base of ``/api/v1/spans``."""
    path: str = ""
    """For ``jsonl``: the file to append to."""
    headers: dict[str, str] = {}
    api_key_env: str = ""
    """The variable that holds a bearer token."""
    content: bool = False
    """Whether prompts and answers are sent along. They are sensitive: off unless asked for."""
    batch_size: int = 256
    timeout: float = 10.0
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
        return [("type", self.type), ("url", _bare(self.url)), ("path", self.path), ("content", self.content)]


class Price(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model costs, in US dollars per million tokens; ``None`` means the price of plain input."""

    input: float
    output: float = 0.0
    cached_input: float | None = None
    cache_write: float | None = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    providers: dict[str, ProviderConfig] = {}
    engine: EngineConfig = EngineConfig()
    spans: SpansConfig = SpansConfig()
    sinks: dict[str, SinkConfig] = {}
    prices: dict[str, Price] = {}
    """By model (``gpt-4o``) or provider and model (``groq/llama-3.3-70b``); beyond and before those that ship with Headrace."""

    def key_variables(self) -> frozenset[str]:
        """Return the environment variables that hold providers' keys, and nothing that others than workers need."""
        named = [config.api_key_env for config in self.providers.values()]
        keys = {name for names in named for name in ([names] if isinstance(names, str) else names or [])}
        return frozenset(keys - {sink.api_key_env for sink in self.sinks.values()})


# msgspec crashes where a type is first used in several threads at once: so it is used here, at the import.
msgspec.json.Decoder(Settings)


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings that ``environ`` and the file say; raises ConfigurationError naming what is wrong."""
    named = environ.get("HEADRACE_CONFIG")
    path = Path(named) if named else Path("headrace.toml")
    if not named and not path.is_file():
        return with_otel_sink(with_built_in(Settings(), environ), environ)
    try:
        settings = msgspec.toml.decode(path.read_bytes(), type=Settings)
    except OSError as error:
        raise ConfigurationError(f"HEADRACE_CONFIG={named}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ConfigurationError(f"{path}: {error}") from error
    for name, provider in settings.providers.items():
        if provider.requests_per_minute or provider.tokens_per_minute or provider.max_concurrency:
            logger.warning("limits of providers.%s are not enforced by this version", name)
        if provider.api not in API_NAMES:
            known = ", ".join(API_NAMES)
            raise ConfigurationError(f"{path}: providers.{name}.api is {provider.api!r}; it takes one of {known}")
    _check_sinks(path, settings.sinks)
    return with_otel_sink(with_built_in(settings, environ), environ)


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
        case OtelExport() as export:
            sink = SinkConfig(type="otlp", **msgspec.structs.asdict(export))
            return msgspec.structs.replace(settings, sinks={**settings.sinks, OTLP: sink})
        case UnsupportedExport(reason):
            logger.warning("spans are not exported: %s", reason)
    return settings


def directory_of(address: str) -> Path:
    """Return the directory that an ``ipc://`` address names; raises ConfigurationError for any other address."""
    scheme, separator, path = address.partition("://")
    if scheme != "ipc" or not separator or not path.startswith("/"):
        raise ConfigurationError(
            f"engine address {address!r}: takes ipc:// and the absolute path of the engine's directory, "
            "such as ipc:///run/headrace/engine"
        )
    if len(path.encode()) > MAX_PATH:
        raise ConfigurationError(f"engine address {address!r}: the path is longer than {MAX_PATH} bytes")
    return Path(path)


def _check_sinks(path: Path, sinks: Mapping[str, SinkConfig]) -> None:
    for name, sink in sinks.items():
        needed = "path" if sink.type == "jsonl" else "url"
        if not getattr(sink, needed):
            raise ConfigurationError(f"{path}: sinks.{name}.{needed} is missing")
        if sink.batch_size < 1 or not sink.timeout > 0:
            raise ConfigurationError(f"{path}: sinks.{name}: batch_size and timeout must be above 0")


def _bare(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "…"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
