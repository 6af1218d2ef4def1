"""Types of command-line options: numbers, seconds, texts. Each raises argparse's error for a wrong value."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from typing import Any

from headrace.arguments.plain_values import is_utf8, path_to
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.errors import ConfigurationError, InvalidRequestError
from headrace.settings.settings import checked_figure

_HIGHEST_COUNT = 2**53
_HIGHEST_PORT = 65_535


def timeout(text: str) -> float:
    """Return a timeout in seconds, more than 0."""
    return figure(number(text), "total_timeout")


def count(text: str) -> int:
    """Return a whole number of things, 0 or more."""
    return _whole_number(text, 0)


def positive_count(text: str) -> int:
    """Return a whole number of things, 1 or more."""
    return _whole_number(text, 1)


def _whole_number(text: str, lowest: int) -> int:
    takes = f"takes a whole number from {lowest} to {_HIGHEST_COUNT:,}"
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(takes) from None
    if not lowest <= found <= _HIGHEST_COUNT:
        raise argparse.ArgumentTypeError(takes)
    return found


def port(text: str) -> int:
    """Return a port to listen on. 0 means a free one."""
    if not text.isdecimal() or int(text) > _HIGHEST_PORT:
        raise argparse.ArgumentTypeError(f"takes a port from 0 to {_HIGHEST_PORT}, not {text!r}")
    return int(text)


def number(text: str) -> float:
    """Return a float. It may be negative, infinite or NaN."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def figure(value: float, setting: str) -> float:
    """Return ``value`` if it is valid for the setting named ``setting`` in ``[engine]``."""
    try:
        return checked_figure("it", value, setting)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None


def json_field(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``KEY=JSON``: a field to add to the provider's request."""
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=JSON, such as store=true")
    try:
        return key, json.loads(value)
    except RecursionError:
        raise argparse.ArgumentTypeError(f"{key}: the value is nested too deeply") from None
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: the value is not JSON; put text into quotes, as in '{key}=\"{value}\"'"
        ) from None


def custom_options(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields as one dict. Raises InvalidRequestError if one is given twice."""
    options: dict[str, Any] = {}
    for key, value in fields:
        if key in options:
            raise InvalidRequestError("is given twice", path_to("custom_options", key))
        options[key] = value
    return options


def check_texts(arguments: argparse.Namespace) -> None:
    """Raise CommandError for a text that is not UTF-8: it can be neither sent nor searched for."""
    for name, value in vars(arguments).items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and not is_utf8(text) for text in texts):
            raise CommandError(ExitCode.USAGE, f"{name.replace('_', '-')}: takes text in UTF-8")
