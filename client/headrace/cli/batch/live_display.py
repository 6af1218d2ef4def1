"""The live display of ``headrace batch`` on a terminal, drawn by rich. Imported only where rich is installed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO, cast

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from headrace.batch.driver.progress import BatchProgress
from headrace.cli.batch.figures import counted
from headrace.cli.batch.progress_view import (
    Figure,
    JobView,
    batches_lines,
    ended_rows,
    errors_line,
    figures,
    hold_up,
    position,
    reused_rows,
    state_line,
    time_left,
)
from headrace.process.standard_streams import write_as_it_is
from headrace.text.escaping import escaped

_REFRESHES = 4
"""How often a second the display is drawn."""
_GAP = 3
"""Blank columns between two figures."""
_WIDEST = 100
"""Columns of the display at most: on a wide terminal, figures far apart are hard to read."""
_NARROWEST = 70
"""Columns that the figures need side by side."""


class LiveDisplay:
    """Draws the state of a job again and again, on ``stream``, until the context is left; then it removes itself.

    ``title``: what the job reads and writes.
    """

    def __init__(self, stream: TextIO, title: str) -> None:
        self._title = escaped(title)
        self._look: Callable[[], JobView | int] = int
        self._console = Console(file=cast("Any", _Unescaped(stream)), highlight=False)
        self._live = Live(
            get_renderable=self._drawn,
            console=self._console,
            refresh_per_second=_REFRESHES,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._log = _LogAbove(self._console)

    def watch(self, look: Callable[[], JobView | int]) -> None:
        """From now on, draw what ``look`` returns: how many rows were read, or the figures of the job."""
        self._look = look

    def note(self, text: str) -> None:
        """Print a line above the display."""
        self._console.print(Text(escaped(text)))

    def __enter__(self) -> Self:
        """Begin to draw."""
        logging.getLogger("headrace").addHandler(self._log)
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Draw no more."""
        self._live.stop()
        logging.getLogger("headrace").removeHandler(self._log)

    def _drawn(self) -> RenderableType:
        seen = self._look()
        return drawn_reading(self._title, seen) if isinstance(seen, int) else drawn(self._title, seen)


def drawn_reading(title: str, rows: int) -> RenderableType:
    """Return the display of a job whose input is being read."""
    return Group(
        Text(title, style="bold", no_wrap=True), Text(f"Reading the input: {counted(rows, 'row')}", style="dim")
    )


def drawn(title: str, view: JobView) -> RenderableType:
    """Return the display of a job."""
    progress = view.progress
    parts: list[RenderableType] = [
        _two_sides(Text(title, style="bold"), Text()),
        _bar(progress),
        _two_sides(Text(position(progress)), Text(time_left(progress))),
        Text(),
        _Figures(figures(view)),
        Text(),
    ]
    if reused := reused_rows(progress):
        parts.append(Text(reused, style="dim"))
    if kinds := errors_line(progress.errors):
        parts.append(Text(f"Failed: {escaped(kinds)}", style="red", no_wrap=True, overflow="ellipsis"))
    if reason := hold_up(progress):
        parts.append(Text(reason, style="yellow"))
    parts += [Text(line, no_wrap=True, overflow="ellipsis") for line in map(escaped, batches_lines(view.batches or ()))]
    parts.append(Text(state_line(view), style="dim" if progress.phase == "running" else "yellow"))
    return Constrain(Group(*parts), _WIDEST)


class _Figures:
    """Draws columns of figures side by side, or below each other on a narrow terminal."""

    def __init__(self, columns: list[list[Figure]]) -> None:
        self._columns = columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table of figures."""
        is_wide = options.max_width >= _NARROWEST
        columns = self._columns if is_wide else [[figure for column in self._columns for figure in column]]
        table = Table.grid(padding=(0, _GAP, 0, 0))
        for _column in columns:
            table.add_column(style="dim", no_wrap=True)
            table.add_column(justify="right", no_wrap=True)
        for line in zip(*columns, strict=True):
            table.add_row(*(cell for figure in line for cell in (Text(figure.name), _value(figure))))
        yield table


def _bar(progress: BatchProgress) -> RenderableType:
    if progress.total is None:
        bar = ProgressBar(total=None, pulse=True, animation_time=progress.elapsed)
    else:
        completed = ended_rows(progress) if progress.total else 1
        bar = ProgressBar(max(progress.total, 1), completed, complete_style="cyan", finished_style="green")
    table = Table.grid(expand=True)  # it ends the line, which a bar alone does not
    table.add_row(bar)
    return table


def _two_sides(left: Text, right: Text) -> RenderableType:
    table = Table.grid(expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_row(left, right)
    return table


def _value(figure: Figure) -> Text:
    return Text(figure.value, style="bold red" if figure.is_problem else "bold")


class _Unescaped:
    """Passes what rich draws on to a standard stream of the program, which would escape its control characters."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        write_as_it_is(self._stream, text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _LogAbove(logging.Handler):
    """Prints the lines of the log above the display. While it is there, the log writes nothing to standard error itself."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        self._console.print(Text(escaped(self.format(record)), style="yellow"))
