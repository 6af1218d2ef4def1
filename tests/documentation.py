"""Reads the code blocks of README.md and of all pages in docs/, so that tests can run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from tests.conftest import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md")
FILES = (*PAGES, *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
_FENCE = re.compile(r"^```([^\n`]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class CodeBlock(msgspec.Struct, frozen=True):
    """A fenced block: where it stands, the word behind its fence, and its text."""

    file: str
    line: int
    heading: str
    language: str
    text: str

    @property
    def is_web_view(self) -> bool:
        """Whether a web server must serve it for it to do anything."""
        return "StreamingHttpResponse" in self.text or "StreamingResponse" in self.text

    @property
    def needs_ray(self) -> bool:
        """Whether a Ray cluster must run it."""
        return "import ray" in self.text

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@cache
def code_blocks(language: str) -> list[CodeBlock]:
    """Return the blocks of one language, in all files: ``sh`` is commands, ``console`` commands with their output."""
    found: list[CodeBlock] = []
    for file in FILES:
        text = (ROOT / file).read_text(encoding="utf-8")
        for fence in _FENCE.finditer(text):
            before = text[: fence.start()]
            headings = _HEADING.findall(_FENCE.sub("", before))
            line = before.count("\n") + 1
            found.append(CodeBlock(file, line, headings[-1] if headings else "", fence[1], fence[2]))
    return [block for block in found if block.language == language]


def code_block(language: str, file: str, heading: str) -> CodeBlock:
    """Return the only block of a language below a heading."""
    [block] = [block for block in code_blocks(language) if (block.file, block.heading) == (file, heading)]
    return block


# The table of settings: what its cells say of a declared setting.

NOTHING = "\N{EN DASH}"
"""In a cell that has nothing to say."""
_SIZES = {
    366 * 86_400: "366 days",
    1024**5: "1 PiB",
    1024**3: "1 GiB",
    256 * 1024**2: "256 MiB",
    64 * 1024**2: "64 MiB",
}
_KINDS = {int: "integer", float: "number", bool: "true or false", str: "text", dict: "table of text"}


def setting_cells(table: type[msgspec.Struct]) -> dict[str, list[str]]:
    """Return what the reference must say of each setting of a table, by its name: type, unit, default, bound."""
    hints = get_type_hints(table, include_extras=True)
    return {
        field.name: [
            _kind(hints[field.name]),
            next((unit for meta in _metas(hints[field.name]) if (unit := (meta.extra or {}).get("unit"))), NOTHING),
            _default(field),
            next((_bound(meta) for meta in _metas(hints[field.name]) if meta.le is not None), NOTHING),
        ]
        for field in msgspec.structs.fields(table)
    }


def _metas(hint: Any) -> Iterator[msgspec.Meta]:
    """Yield the bounds that are declared for a type, and for the types inside it."""
    if get_origin(hint) is Annotated:
        yield from hint.__metadata__
    for inner in get_args(hint):
        yield from _metas(inner)


def _kind(hint: Any) -> str:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        words = [word for meta in hint.__metadata__ for word in (meta.extra or {}).get("one_of", ())]
        return " or ".join(f'`"{word}"`' for word in words) or _kind(inner[0])
    if origin is Literal:
        return " or ".join(f'`"{word}"`' for word in inner)
    if origin in (Union, UnionType):
        return " or ".join(_kind(each) for each in inner if each is not type(None))
    if origin is list:
        return f"list of {_kind(inner[0])}"
    return _KINDS[origin or hint]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, int | float):
        return _figure(default)
    return f'`"{default}"`' if default else "none"


def _bound(meta: msgspec.Meta) -> str:
    if meta.gt is not None:
        return f"above {_figure(meta.gt)} to {_figure(meta.le or 0)}"
    return f"{_figure(meta.ge or 0)} to {_figure(meta.le or 0)}"


def _figure(value: float) -> str:
    return _SIZES.get(int(value)) or (f"{int(value):,}" if value == int(value) else f"{value:g}")
