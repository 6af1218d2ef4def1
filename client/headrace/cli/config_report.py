"""Collects what ``headrace config show`` prints: each setting, its source, and what is refused.

Never a key or a password.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from headrace.errors import ConfigurationError
from headrace.pricing.price_file import read_prices
from headrace.settings.found_file_rules import key_variables, refused_settings, without_refused
from headrace.settings.http_values import base_url_problem
from headrace.settings.limit_settings import LimitConfig
from headrace.settings.log_variables import FORMAT_VARIABLE, LEVEL_VARIABLE, check_log_format, check_log_level
from headrace.settings.provider_table import BASE_URL_ENV
from headrace.settings.settings import (
    OTLP,
    ProviderConfig,
    Settings,
    SinkConfig,
    check_file,
    joint_problems,
    merged,
    remedy_for,
    trusted_settings,
    with_built_in,
    with_otel_sink,
)
from headrace.settings.table_check import dotted
from headrace.settings.toml_file import VARIABLE, SettingsPlace, absolute, places, read_file
from headrace.settings.wire_format_names import (
    BUILT_IN_FORMATS,
    OPENAI_BY_MODEL,
    distribution_of,
    format_problem,
    installed_formats,
)
from headrace.spans.data_directory import data_directory
from headrace.text.shown_address import without_password

DEFAULT = "default"
BUILT_IN = "built in"
ENVIRONMENT = "environment"

_VARIABLES = ("HEADRACE_ENGINE", LEVEL_VARIABLE, FORMAT_VARIABLE)
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


class ShownSetting(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. ``source`` is a file, an environment variable, or DEFAULT, BUILT_IN or ENVIRONMENT."""

    setting: str
    value: Any
    source: str


class SearchedFile(msgspec.Struct, frozen=True):
    """A place that was searched for settings.

    ``state`` is ``read``, ``none``, ``ignored``, ``unusable`` or ``in part``.
    """

    path: str
    state: str
    reason: str = ""


WHOLE_FILE = "the whole file"
"""Stands for the setting of a refusal that is about all of a file."""


class ReportedRefusal(msgspec.Struct, frozen=True):
    """A setting that is refused. As long as one is refused, every command ends with this error."""

    source: str
    setting: str
    reason: str
    hint: str = ""


class SettingsReport(msgspec.Struct, frozen=True):
    """Everything that ``headrace config show`` prints."""

    files: list[SearchedFile]
    settings: list[ShownSetting]
    refused: list[ReportedRefusal]


def report(environ: Mapping[str, str]) -> SettingsReport:
    """Return the settings in effect. Raises nothing for the content of a file."""
    reading = _Reading(environ)
    for place in places(environ):
        reading.read(place)
    files = msgspec.convert(reading.tables, Settings)
    entries = [*_of_environment(environ), *_figures(files, reading, environ), *_of_lists(files, reading, environ)]
    return SettingsReport(reading.files, entries, [*reading.refused, *_bad_variables(environ, files)])


class _Reading:
    """Reads the settings files one after the other: the merged tables, and the source of each setting."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.tables: dict[str, Any] = {}
        self.sources: dict[tuple[str, str], str] = {}
        self.files: list[SearchedFile] = []
        self.refused: list[ReportedRefusal] = []

    def read(self, place: SettingsPlace) -> None:
        try:
            file = read_file(place)
            if file is not None:
                check_file(file)
        except ConfigurationError as error:
            path = absolute(place.path)
            self.files.append(SearchedFile(path, "unusable", str(error)))
            self.refused.append(ReportedRefusal(path, WHOLE_FILE, str(error).removeprefix(f"{place.path}: ")))
            return
        if file is None or file.ignored:
            state = "none" if file is None else "ignored"
            self.files.append(SearchedFile(absolute(place.path), state, file.ignored if file else ""))
            return
        state = "read"
        if file.is_found:
            try:
                found = list(refused_settings(file.table, trusted_settings(file, self.tables, self._environ)))
            except ConfigurationError as error:  # the file of permissions is unusable
                self.files.append(SearchedFile(file.path, "unusable", str(error)))
                self.refused.append(ReportedRefusal(file.path, WHOLE_FILE, str(error)))
                return
            for one in found:
                hint = remedy_for(file, one, self._environ)
                self.refused.append(ReportedRefusal(file.path, dotted(one.path), one.reason, hint))
            state = "in part" if found else "read"
            file = msgspec.structs.replace(file, table=without_refused(file.table, found))
        self.files.append(SearchedFile(file.path, state))
        self.tables = merged(self.tables, file)
        self.sources |= {(name, key): file.path for name, table in file.table.items() for key in table}
        for problem in joint_problems(msgspec.convert(self.tables, Settings)):
            refusal = ReportedRefusal(self.sources[problem.entry], dotted(problem.path), problem.reason)
            self.refused += [refusal] if refusal not in self.refused else []

    def source(self, table: str, name: str, key: str) -> str:
        """Return the source of a key in a named table."""
        return self.sources[table, name] if key in self.tables[table][name] else DEFAULT


def _of_environment(environ: Mapping[str, str]) -> Iterator[ShownSetting]:
    for name in (VARIABLE, *_VARIABLES):
        if value := environ.get(name):
            yield ShownSetting(setting=name, value=value, source=ENVIRONMENT)
    for name in (*_PROXIES, *(name.upper() for name in _PROXIES)):
        if value := environ.get(name):
            yield ShownSetting(setting=name, value=without_password(value), source=ENVIRONMENT)


def _figures(files: Settings, reading: _Reading, environ: Mapping[str, str]) -> Iterator[ShownSetting]:
    for name in ("engine", "spans", "budget"):
        table = getattr(files, name)
        for key in table.__struct_fields__:
            value, source = getattr(table, key), reading.sources.get((name, key), DEFAULT)
            if (name, key) == ("spans", "directory"):
                value, source = _data_directory(files, source, environ)
            elif (name, key) == ("budget", "url"):
                value = without_password(value)
            yield ShownSetting(setting=f"{name}.{key}", value=value, source=source)


def _data_directory(files: Settings, source: str, environ: Mapping[str, str]) -> tuple[str, str]:
    try:
        directory = str(data_directory(files.spans, environ))
    except ConfigurationError as error:
        return str(error), source
    if files.spans.directory:
        return directory, source
    named = [name for name in ("HEADRACE_DATA", "XDG_STATE_HOME") if environ.get(name)]
    return directory, named[0] if named else DEFAULT


def _of_lists(files: Settings, reading: _Reading, environ: Mapping[str, str]) -> Iterator[ShownSetting]:
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the report lists these problems itself
    try:
        settings = with_otel_sink(with_built_in(files, environ), environ)
    finally:
        logging.disable(level)
    for name, provider in settings.providers.items():
        source = reading.sources.get(("providers", name), BUILT_IN)
        yield from _of_provider(name, provider, source, environ)
    for name, sink in settings.sinks.items():
        is_environments = name == OTLP and OTLP not in files.sinks
        yield from _of_sink(name, sink, None if is_environments else reading, environ)
    for table in ("limits", "models", "keys", "spending", "prices"):
        for name, entry in getattr(settings, table).items():
            yield from _of_entry((table, name), entry, reading, environ)
    yield from _unused_formats()
    shipped = read_prices()
    yield ShownSetting(
        setting="prices", value=f"{len(shipped['models'])} models as of {shipped['as_of']}", source=BUILT_IN
    )


def _of_entry(
    path: tuple[str, str], entry: msgspec.Struct, reading: _Reading, environ: Mapping[str, str]
) -> Iterator[ShownSetting]:
    for key in entry.__struct_fields__:
        source, value = reading.source(*path, key), getattr(entry, key)
        if value is None or (value in ("", []) and source == DEFAULT):
            continue
        if path[0] == "keys" and key == "env":
            value = ", ".join(_shown_variable(each, environ) for each in value)
        yield ShownSetting(setting=dotted((*path, key)), value=value, source=source)


def _of_provider(
    name: str, provider: ProviderConfig, source: str, environ: Mapping[str, str]
) -> Iterator[ShownSetting]:
    variable = BASE_URL_ENV.get(name, "") if source == BUILT_IN else ""
    path = ("providers", name)
    yield ShownSetting(setting=dotted((*path, "api")), value=_shown_format(provider.api), source=source)
    of_address = variable if environ.get(variable) else source
    yield ShownSetting(
        setting=dotted((*path, "base_url")), value=without_password(provider.base_url), source=of_address
    )
    if variables := key_variables(provider.api_key_env):
        keys = ", ".join(_shown_variable(each, environ) for each in variables)
        yield ShownSetting(setting=dotted((*path, "api_key_env")), value=keys, source=source)
    for key in LimitConfig.__struct_fields__:
        if (value := getattr(provider, key)) is not None:
            yield ShownSetting(setting=dotted((*path, key)), value=value, source=source)


def _of_sink(
    name: str, sink: SinkConfig, reading: _Reading | None, environ: Mapping[str, str]
) -> Iterator[ShownSetting]:
    for key in sink.__struct_fields__:
        value = getattr(sink, key)
        if value in ("", {}):
            continue
        match key:
            case "url":
                value = without_password(value)
            case "headers":
                value = dict.fromkeys(value, "…")
            case "api_key_env":
                value = _shown_variable(value, environ)
        source = reading.source("sinks", name, key) if reading else ENVIRONMENT
        yield ShownSetting(setting=dotted(("sinks", name, key)), value=value, source=source)


def _shown_format(name: str) -> str:
    """Return a wire format's name for the report. For a plug-in, add its package, or why it cannot be used."""
    if name in BUILT_IN_FORMATS:
        return name
    if name == OPENAI_BY_MODEL:
        return f"{name} (openai-chat or openai-responses, by the model)"
    points = installed_formats().get(name, [])
    return f"{name} ({format_problem(name, points) or f'of {distribution_of(points[0])}'})"


def _unused_formats() -> Iterator[ShownSetting]:
    """Yield the installed wire formats that cannot be used, even if no provider uses them."""
    for name, points in sorted(installed_formats().items()):
        if (problem := format_problem(name, points)) is not None:
            packages = ", ".join(map(distribution_of, points))
            yield ShownSetting(setting=f"wire format {name}", value=f"not used: {problem}", source=packages)


def _shown_variable(variable: str, environ: Mapping[str, str]) -> str:
    """Return a variable's name and whether it is set.

    The "name" may be a key that was written there by mistake: then hide it.
    """
    if environ.get(variable):
        return f"{variable} (set)"
    return (
        f"{variable} (not set)"
        if variable.isupper()
        else "a variable that is not set (its name is hidden: it may be a key)"
    )


def _bad_variables(environ: Mapping[str, str], files: Settings) -> Iterator[ReportedRefusal]:
    for variable, check in ((LEVEL_VARIABLE, check_log_level), (FORMAT_VARIABLE, check_log_format)):
        try:
            check(environ)
        except ConfigurationError as error:
            yield ReportedRefusal(ENVIRONMENT, variable, str(error))
    for variable in dict.fromkeys(BASE_URL_ENV.values()):
        is_used = any(BASE_URL_ENV[name] == variable and name not in files.providers for name in BASE_URL_ENV)
        if is_used and (value := environ.get(variable)) and (problem := base_url_problem(value)) is not None:
            yield ReportedRefusal(ENVIRONMENT, variable, problem)
