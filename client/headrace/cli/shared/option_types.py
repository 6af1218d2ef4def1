"""Checks figures and texts of the command line, for all commands. Mistakes are raised as argparse's own errors."""

from __future__ import annotations

import argparse

from headrace.arguments.plain_values import is_utf8
from headrace.cli.shared.exit_codes import CommandError, ExitCode
from headrace.errors import ConfigurationError
from headrace.settings.settings import checked_figure

_HIGHEST_COUNT = 2**53


def timeout(text: str) -> float:
    """Return seconds above 0 that a wait may have."""
    return figure(number(text), "total_timeout")


def count(text: str) -> int:
    """Return a number of things, which may be 0."""
    takes = f"takes a whole number from 0 to {_HIGHEST_COUNT:_}"
    try:
        found = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(takes) from None
    if not 0 <= found <= _HIGHEST_COUNT:
        raise argparse.ArgumentTypeError(takes)
    return found


def number(text: str) -> float:
    """Return a number, which may be negative, infinite or none."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None


def figure(value: float, setting: str) -> float:
    """Return ``value`` where a setting of ``[engine]`` may have it."""
    try:
        return checked_figure("it", value, setting)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(f"{error}") from None


def check_texts(arguments: argparse.Namespace) -> None:
    """Raise CommandError for a text that is not in UTF-8: it can neither be sent nor be looked for."""
    for name, value in vars(arguments).items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and not is_utf8(text) for text in texts):
            raise CommandError(ExitCode.USAGE, f"{name.replace('_', '-')}: takes text in UTF-8")
