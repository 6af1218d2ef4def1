"""Collects everything of an engine that somebody could read.

Files, output, command lines and memory of its processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from tests.conftest import processes

Artefacts = Mapping[str, bytes]
"""What was found, by where."""

_CHUNK = 4 * 1024 * 1024


def files(*places: Path) -> dict[str, bytes]:
    """Return all files at and below these places."""
    found: dict[str, bytes] = {}
    for place in places:
        for path in [place, *place.rglob("*")]:
            if path.is_file():
                with contextlib.suppress(FileNotFoundError):
                    found[str(path)] = path.read_bytes()
    return found


def command_lines(directory: str) -> dict[str, bytes]:
    """Return the command lines of the processes of the engine in a directory."""
    return {f"command line of {pid}": line.encode() for pid, _, line in processes() if directory in line}


def found_in(artefacts: Artefacts, words: Collection[str]) -> list[str]:
    """Return where any of the words is."""
    return sorted(f"{word} in {name}" for name, data in artefacts.items() for word in words if word.encode() in data)


def is_in_memory(pid: int, word: str) -> bool:
    """Return whether a word is anywhere in a process's memory."""
    wanted = word.encode()
    return any(wanted in piece for piece in _memory(pid, len(wanted)))


def _memory(pid: int, overlap: int) -> Iterator[bytes]:
    areas = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for area in areas:
            if not area[1].startswith("rw"):
                continue
            start, end = (int(bound, 16) for bound in area[0].split("-"))
            with contextlib.suppress(OSError, ValueError, OverflowError):
                for place in range(start, end, _CHUNK):
                    memory.seek(place)
                    yield memory.read(min(_CHUNK + overlap, end - place))
