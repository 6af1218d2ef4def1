"""Holds the table of rooms in docs/architecture.md against the imports of the code.

``python -m tests.rooms`` (part of scripts/check).

A room is a folder of modules, or a module that stands beside the folders. The table has one row for each room: what it is for, in the
words of its docstring, and all rooms that it imports. An import that the table does not have is a fault of the code or of the table,
and so is a row without its import.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = {"headrace": "client", "headrace_engine": "engine", "headrace_workers": "workers"}
_ROW = re.compile(r"^\| `([a-z_.]+)` \| ([^|]*) \| ?([^|]*?) ?\|$", re.MULTILINE)

Table = dict[str, set[str]]
"""Each room, and the rooms that it imports."""


def modules() -> dict[str, Path]:
    """Return the file of each module of Headrace, by the module's name."""
    found: dict[str, Path] = {}
    for package, folder in PACKAGES.items():
        for path in (ROOT / folder / package).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room_of(module: str, files: Mapping[str, Path]) -> str:
    """Return the room of a module: its folder; a module directly in a package is a room of its own, and so is the package."""
    folder = module.rpartition(".")[0]
    return module if files[module].name == "__init__.py" or folder in PACKAGES else folder


def imports(files: Mapping[str, Path]) -> Table:
    """Return which rooms import which, as the code has it. Imports within functions count."""
    table: Table = {}
    for module, path in files.items():
        room = room_of(module, files)
        others = {room_of(name, files) for name in _imported(path, files)}
        table.setdefault(room, set()).update(others - {room})
    return table


def _imported(path: Path, files: Mapping[str, Path]) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module in files:
            full = {name.name: f"{node.module}.{name.name}" for name in node.names}
            names |= {name if name in files else node.module for name in full.values()}
        elif isinstance(node, ast.Import):
            names |= {name.name for name in node.names if name.name in files}
    return names


def told(page: str) -> Table:
    """Return which rooms import which, as the page says."""
    return {room: set(re.findall(r"`([a-z_.]+)`", cells)) for room, _, cells in _ROW.findall(page)}


def other_words(page: str, files: Mapping[str, Path]) -> list[str]:
    """Return for which rooms the page has other words than the docstring of the room."""
    rows = {room: words for room, words, _ in _ROW.findall(page) if room in files}
    return [
        f"{room}: the table says {words!r}, its docstring {docstring!r}"
        for room, words in rows.items()
        if words != (docstring := _docstring(files[room]))
    ]


def _docstring(path: Path) -> str:
    """Return the docstring of a folder on one line; of a module its first paragraph. With marks as Markdown has them."""
    text = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").replace("``", "`")
    return " ".join((text if path.name == "__init__.py" else text.partition("\n\n")[0]).split())


def differences(code: Table, page: Table) -> list[str]:
    """Return in words what the page and the code say differently, and circles of imports."""
    found: list[str] = []
    for room in sorted(code.keys() | page.keys()):
        if room not in page:
            found.append(f"docs/architecture.md has no row for the room {room}")
        elif room not in code:
            found.append(f"docs/architecture.md has a row for {room}, which does not exist")
        else:
            found += [
                f"{room} imports {other}: the table does not allow it" for other in sorted(code[room] - page[room])
            ]
            found += [
                f"{room} does not import {other}: the table says it does" for other in sorted(page[room] - code[room])
            ]
    found += [f"a circle of imports goes through {room}" for room in sorted(code) if room in reach(code, room)]
    return found


def reach(table: Table, room: str) -> set[str]:
    """Return all rooms that a room imports, itself or by way of others."""
    seen: set[str] = set()
    to_see = [*table.get(room, ())]
    while to_see:
        other = to_see.pop()
        if other not in seen:
            seen.add(other)
            to_see += table.get(other, ())
    return seen


def main() -> int:
    """Print what differs; return 1 where anything does."""
    files, page = modules(), PAGE.read_text("utf-8")
    found = differences(imports(files), told(page)) + other_words(page, files)
    print("\n".join(found) or "the rooms are and import what docs/architecture.md says")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
