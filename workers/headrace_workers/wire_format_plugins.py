"""Loads wire formats of plug-ins: installed distributions with an entry point of the group ``headrace.wire_formats``.

A plug-in that cannot be used is logged once. Runs of its providers then fail with the reason; all other runs are not
affected.
"""

from __future__ import annotations

import logging
from collections import ChainMap
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import msgspec

from headrace.settings.wire_format_names import distribution_of, format_problem, installed_formats
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderApi, SteppedApi, WireFormat

if TYPE_CHECKING:  # its import takes 50 ms or more, at the start of each worker
    from importlib.metadata import EntryPoint

logger = logging.getLogger(__name__)


class LoadedFormats(msgspec.Struct, frozen=True):
    """The wire formats that a worker can use. ``problems``: name → why the format cannot be used."""

    formats: Mapping[str, WireFormat]
    problems: dict[str, str]


class UnusableFormatError(Exception):
    """An installed wire format cannot be used; the text says why."""


def load_formats(names: Collection[str]) -> LoadedFormats:
    """Return the built-in wire formats, and the plug-ins among ``names``. Imports no plug-in that is not named."""
    loaded, problems = dict[str, WireFormat](), dict[str, str]()
    wanted = sorted({*names} - WIRE_FORMATS.keys())
    installed = installed_formats() if wanted else {}
    for name, points in installed.items():
        if name in WIRE_FORMATS:
            logger.warning(
                "wire format is not used", extra={"wire_format": name, "reason": format_problem(name, points)}
            )
    for name in wanted:
        try:
            loaded[name] = _loaded(name, installed.get(name, []))
        except UnusableFormatError as error:
            problems[name] = str(error)
            logger.warning("wire format cannot be used", extra={"wire_format": name, "reason": str(error)})
    formats: Mapping[str, WireFormat] = ChainMap(loaded, WIRE_FORMATS) if loaded else WIRE_FORMATS  # type: ignore[arg-type]
    return LoadedFormats(formats, problems)


def _loaded(name: str, points: list[EntryPoint]) -> WireFormat:
    if (problem := format_problem(name, points)) is not None:
        raise UnusableFormatError(problem)
    (point,) = points
    package = distribution_of(point)
    try:
        declared = point.load()
    except (Exception, SystemExit) as error:
        logger.warning("wire format cannot be loaded", exc_info=error, extra={"wire_format": name, "package": package})
        raise UnusableFormatError(f"{package} cannot be loaded: {type(error).__name__}: {error}") from error
    if (problem := declaration_problem(name, declared)) is not None:
        raise UnusableFormatError(f"{package}: {point.value} {problem}")
    return declared  # type: ignore[no-any-return]  # the check has seen that it is a WireFormat


def declaration_problem(name: str, declared: object) -> str | None:
    """Return what is wrong with the object of an entry point, as what follows its name; None if nothing is wrong."""
    if not isinstance(declared, WireFormat):
        return f"is no WireFormat but {type(declared).__name__}"
    if declared.name != name:
        return f"has the name {declared.name!r}; its entry point says {name!r}"
    if not isinstance(declared.api, ProviderApi):
        return "has an api without the methods of ProviderApi"
    if declared.embeddings is not None and not isinstance(declared.embeddings, SteppedApi):
        return "has embeddings without the methods of SteppedApi"
    if not declared.telemetry_provider:
        return "has no telemetry_provider"
    return None
