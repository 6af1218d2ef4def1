"""Finds each log event in the source code of the product: its text, level, process and fields."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from tests.conftest import ROOT

_PACKAGES = ("client/headrace", "engine/headrace_engine", "workers/headrace_workers")
_LEVELS = {
    "debug": "DEBUG",
    "info": "INFO",
    "warning": "WARNING",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "CRITICAL",
}
_PROCESSES = {
    "engine/headrace_engine/supervisor": "supervisor",
    "engine/headrace_engine/broker": "broker",
    "engine/headrace_engine/spans": "collector",
    "engine/headrace_engine": "any",
    "workers/headrace_workers": "worker",
    "client/headrace/transport": "any",
    "client/headrace/process": "any",
    "client/headrace/settings": "any",
    "client/headrace/spans/redaction.py": "any",
    "client/headrace/spans/collector_link.py": "any",
    "client/headrace": "client",
}
"""Which process logs what stands in a folder. The first folder that fits counts."""


class LogCall(msgspec.Struct, frozen=True):
    """One call that logs. ``problem`` says what is wrong with it, or is empty."""

    place: str
    text: str
    level: str
    process: str
    fields: tuple[str, ...]
    problem: str


@cache
def log_calls() -> tuple[LogCall, ...]:
    """Return all calls that log, in the client, the engine and the workers."""
    return tuple(
        call
        for package in _PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in _calls_in(path, path.relative_to(ROOT).as_posix())
    )


def _calls_in(path: Path, name: str) -> Iterator[LogCall]:
    process = next(process for folder, process in _PROCESSES.items() if name.startswith(folder))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and (found := _level_and_text(node)) is not None:
            level, text = found
            fields, problem = _fields(node)
            if text is None:
                problem = "the text is not a constant"
            elif len(node.args) > (1 if isinstance(node.func, ast.Attribute) else 3):
                problem = "the text has arguments: make them fields"
            yield LogCall(f"{name}:{node.lineno}", text or "", level, process, fields, problem)


def _level_and_text(call: ast.Call) -> tuple[str, str | None] | None:
    """Return the level of a call, and its text if that is a constant; None if the call does not log."""
    match call.func:
        case ast.Attribute(value=ast.Name(id="logger"), attr=method) if method in _LEVELS:
            return _LEVELS[method], _constant(call.args[0])
        case ast.Name(id="log") if len(call.args) >= 3:
            level = call.args[1]
            return (level.attr if isinstance(level, ast.Attribute) else "?"), _constant(call.args[2])
    return None


def _fields(call: ast.Call) -> tuple[tuple[str, ...], str]:
    """Return the names of a call's fields, and what is wrong with them."""
    for keyword in call.keywords:
        if keyword.arg == "extra":
            if not isinstance(keyword.value, ast.Dict):
                return (), "the fields are not written out in the call"
            names = [_constant(key) if key is not None else None for key in keyword.value.keys]
            if None in names:
                return (), "a field has no constant name"
            return tuple(name for name in names if name is not None), ""
    return (), ""


def _constant(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
