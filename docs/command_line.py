"""Makes the reference of the command line from argparse's help: the directive ``command-line`` of the site."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from headrace.cli.main import command_parser


def commands(name: str, parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield each command that does something, with its parser."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    if not inner:
        yield name, parser
    for action in inner:
        for word, below in action.choices.items():
            yield from commands(f"{name} {word}", below)


def described(name: str, parser: argparse.ArgumentParser) -> str:
    """Return a command's part of the page, in Markdown."""
    head = [f"## `{name}`", "", parser.description or "", "", "| argument | meaning |", "|---|---|"]
    arguments = [action for action in parser._actions if action.dest != "help"]  # noqa: SLF001 - no public list of them
    return "\n".join([*head, *(f"| {spelling(each)} | {meaning(each)} |" for each in arguments), ""])


def spelling(action: argparse.Action) -> str:
    """Return how an argument is written, such as ``--limit N``."""
    value = "" if action.nargs == 0 else action.metavar or "|".join(map(str, action.choices or ())) or action.dest
    if not action.option_strings:
        return f"`{value}`"
    return ", ".join(f"`{option} {value}`".replace(" `", "`") for option in action.option_strings).replace("|", "\\|")


def meaning(action: argparse.Action) -> str:
    """Return an argument's help. A default in the home of whoever builds the site is shown with ``~``."""
    text = (action.help or "") % {"default": action.default}
    return text.replace(str(Path.home()), "~").replace("|", "\\|").replace("*", "\\*")


class CommandLine(SphinxDirective):
    """All commands, each with its arguments."""

    def run(self) -> list[nodes.Node]:
        """Return the nodes of the page."""
        parts = [described(name, parser) for name, parser in commands("headrace", command_parser())]
        return self.parse_text_to_nodes("\n".join(parts), allow_section_headings=True)


def setup(app: Any) -> dict[str, bool]:
    """Add the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True}
