"""Reads a function's docstring: what the function does, and what each parameter means. Google, NumPy and reST styles."""

from __future__ import annotations

import inspect

import msgspec


class DocstringWords(msgspec.Struct, frozen=True):
    """What a docstring says."""

    description: str
    """The docstring without its section on parameters."""
    parameters: dict[str, str]
    """Each parameter that the docstring describes → its description."""


def read_docstring(docstring: str | None) -> DocstringWords:
    """Return what a docstring says. A docstring in no known style is a description as a whole."""
    if not docstring or not docstring.strip():
        return DocstringWords("", {})
    import docstring_parser

    text = inspect.cleandoc(docstring)
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return DocstringWords(text, {})
    parts = [part for part in (parsed.short_description, parsed.long_description) if part]
    gap = "\n\n" if parsed.blank_after_short_description else "\n"
    parameters = {
        _bare(param.arg_name): " ".join(param.description.split()) for param in parsed.params if param.description
    }
    return DocstringWords(gap.join(parts), parameters)


def _bare(name: str) -> str:
    """Return a parameter's name without the stars and the escapes that a docstring may give it."""
    return name.strip().lstrip("*\\")
