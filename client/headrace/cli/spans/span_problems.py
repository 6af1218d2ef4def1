"""Finds out why runs leave no spans in a data directory, or why a sink sends none, and says what to do."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from headrace.files.trusted_directory import check_private
from headrace.settings.otel_environment import UnsupportedExport, read_otel_environment
from headrace.settings.settings import OTLP, SinkConfig

_LEAST_ROOM = 256 * 1024
"""Bytes that a new database needs, with its journal."""


def directory_problem(directory: Path) -> str | None:
    """Return why an engine that starts now could not keep spans in ``directory``, and what to do. None if it could."""
    problem = check_private(directory)
    if problem is None:
        existing = next(path for path in [directory, *directory.parents] if _is_there(path))
        problem = _slot_problem(directory) or _why_not_writable(existing)
    return problem and f"spans are not kept: {problem}; correct that, or name another directory with HEADRACE_DATA"


def sink_problems(sinks: Mapping[str, SinkConfig]) -> Iterator[str]:
    """Yield a line for each configured sink that cannot send spans: why, and what to do."""
    for name, sink in sinks.items():
        if sink.type == "otlp" and not _has_otlp():
            yield f"sink {name} sends nothing: it needs a package that is not installed: pip install 'headrace[otlp]'"


def aside_problems(aside: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """Yield a line for each sink that has set spans aside.

    ``aside`` has one (sink, span id, reason) for each such span.
    """
    by_sink: dict[str, list[tuple[str, str]]] = {}
    for sink, span_id, reason in aside:
        by_sink.setdefault(sink, []).append((span_id, reason))
    for sink, spans in by_sink.items():
        (span_id, reason), count = spans[-1], len(spans)
        which = f"{count} spans, the last is {span_id}" if count > 1 else f"span {span_id}"
        yield f"sink {sink} has set aside {which} ({reason}); `headrace spans show ID` shows it"


def export_problem(sinks: Mapping[str, SinkConfig], environ: Mapping[str, str]) -> str | None:
    """Return why spans are not exported as OpenTelemetry's environment variables request, or None."""
    wanted = None if OTLP in sinks else read_otel_environment(environ)
    return f"spans are not exported: {wanted.reason}" if isinstance(wanted, UnsupportedExport) else None


def _has_otlp() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.proto") is not None
    except ImportError:
        return False


def _slot_problem(directory: Path) -> str | None:
    """Return a problem if something that is not a directory has the name of an engine's slot.

    No engine can start then.
    """
    try:
        files = [path for path in directory.iterdir() if path.name.isdigit() and not path.is_dir()]
    except OSError:
        return None
    return f"{min(files)} is not a directory" if files else None


def _why_not_writable(directory: Path) -> str | None:
    if not directory.is_dir():
        return f"{directory} is not a directory"
    try:
        # Only writing shows whether a file can be written. The file has no name, so nothing is left to remove.
        with tempfile.TemporaryFile(prefix=".headrace-", dir=directory) as file:
            file.write(bytes(_LEAST_ROOM))
            file.flush()
    except OSError as error:
        return f"nothing can be written in {directory} ({error.strerror})"
    return None


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True
