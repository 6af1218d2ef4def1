"""The environment variables of the log: ``HEADRACE_LOG`` (its level) and ``HEADRACE_LOG_FORMAT`` (how a line is written). Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Literal

from headrace.errors import ConfigurationError
from headrace.text.similar_names import meant

LogFormat = Literal["text", "json"]

LEVEL_VARIABLE = "HEADRACE_LOG"
FORMAT_VARIABLE = "HEADRACE_LOG_FORMAT"
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")


def log_level(environ: Mapping[str, str]) -> int | None:
    """Return the level that ``HEADRACE_LOG`` names, or None if it is not set or is not a level."""
    return logging.getLevelNamesMapping().get(environ.get(LEVEL_VARIABLE, "").upper())


def log_format(environ: Mapping[str, str]) -> LogFormat:
    """Return the format that ``HEADRACE_LOG_FORMAT`` names, or ``text`` if it is not set or is not a format."""
    name = environ.get(FORMAT_VARIABLE, "").lower()
    return name if name in LOG_FORMATS else "text"


def check_log_level(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError if ``HEADRACE_LOG`` is set and is not a level."""
    level = environ.get(LEVEL_VARIABLE, "")
    if level and level.upper() not in logging.getLevelNamesMapping():
        raise _error(LEVEL_VARIABLE, level, LOG_LEVELS)


def check_log_format(environ: Mapping[str, str]) -> None:
    """Raise ConfigurationError if ``HEADRACE_LOG_FORMAT`` is set and is not a format."""
    name = environ.get(FORMAT_VARIABLE, "")
    if name and name.lower() not in LOG_FORMATS:
        raise _error(FORMAT_VARIABLE, name, LOG_FORMATS)


def _error(variable: str, value: str, choices: tuple[str, ...]) -> ConfigurationError:
    close = meant(value, choices)
    hint = f"did you mean {close}? It takes" if close else "it takes"
    return ConfigurationError(f"{variable} is {value!r}; {hint} {', '.join(choices)}")
