"""Reads the code blocks of README.md and of all pages in docs/, so that tests can run them."""

from __future__ import annotations

import re
from functools import cache

import msgspec

from tests.conftest import ROOT

FILES = ("README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")))
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

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@cache
def code_blocks(language: str) -> list[CodeBlock]:
    """Return the blocks of one language, in all files; of commands and their output the language is empty."""
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
