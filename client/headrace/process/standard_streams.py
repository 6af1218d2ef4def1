r"""Standard input, output and errors of a program, so that no state of theirs ends in a traceback: closed, full, left by its reader, ASCII.

A command prints as ever. Within :func:`own_streams`

* a character that steers a terminal, or hides text, is written as JSON escapes it (``\u001b``), whoever prints it: a command, the
  parser of arguments, a traceback. Colours and a model's answer for a pipe go out by :func:`write_as_it_is`;
* a letter that the stream's encoding does not have is written as JSON escapes it (``\u2192``): nothing becomes ``?``;
* a write to standard output that fails raises :class:`OutputLostError`, once; what a command writes after it goes nowhere;
* a write to standard error that fails is dropped: there is nobody to tell;
* a closed stream is opened on the null device, so that no file or socket of the program takes its number.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from headrace.text.escaping import escaped, json_escape

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_ESCAPES = "headrace-escapes"
_STYLE = f"\ufdd0{os.urandom(8).hex()}:"
"""What stands for ESC [ in text that a command prints: a mark that nobody outside of this process can know, and so forge."""
_FAILED = 1
_CLOSED = 141
_FLAGS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
"""How the null device is opened as 0, 1 and 2. Output that was closed cannot be written: the program says so, as others do."""


class OutputLostError(Exception):
    """Standard output cannot be written. ``error`` is what the system said."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error

    @property
    def exit_code(self) -> int:
        """The status to end with: as a shell reports SIGPIPE where the output is closed, a plain failure where it is full."""
        return _CLOSED if self.has_lost_its_reader or self.error.errno == errno.EBADF else _FAILED

    @property
    def has_lost_its_reader(self) -> bool:
        """Whether the reader has gone, as in ``| head``. Nobody needs to be told of it."""
        return isinstance(self.error, BrokenPipeError)


@contextlib.contextmanager
def own_streams() -> Iterator[None]:
    """Within, ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` are as promised; to streams of somebody else, escaped text is passed on."""
    before = (sys.stdin, sys.stdout, sys.stderr)
    _open_closed_streams()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open, as the real one does
    sys.stdout = _stream(before[1], _Output(_raw(1))) if before[1] is sys.__stdout__ else _passed_on(before[1])
    sys.stderr = _stream(before[2], _Notes(_raw(2))) if before[2] is sys.__stderr__ else _passed_on(before[2])
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OutputLostError, ValueError):  # lost, or closed by the program
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def guarded(program: Callable[[], int]) -> int:
    """Run a program on streams as promised; return its exit code, which says too whether its output was lost."""
    with own_streams():
        try:
            return _flushed(program)
        except OutputLostError as lost:
            if not lost.has_lost_its_reader:
                print(f"headrace: the output cannot be written: {lost.error.strerror}", file=sys.stderr)  # noqa: T201
            return lost.exit_code
        except Exception:  # noqa: BLE001 - a mistake of ours is shown here: Python itself would not escape what it quotes
            traceback.print_exc()
            return _FAILED


def _flushed(program: Callable[[], int]) -> int:
    try:
        code = program()
    except SystemExit:
        sys.stdout.flush()  # a help may be longer than the pipe that takes it
        raise
    sys.stdout.flush()
    return code


def print_json(text: str, out: TextIO) -> None:
    """Write JSON and a line's end: in UTF-8, and where ``out`` has another encoding with escapes for all that is not ASCII."""
    is_utf_8 = (getattr(out, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
    text = escaped(text)
    out.write((text if is_utf_8 else text.encode("ascii", _ESCAPES).decode()) + "\n")


def write_as_it_is(out: TextIO, text: str) -> None:
    """Write ``text`` without escapes: what Headrace itself wrote to steer a terminal, or what a program is to read."""
    getattr(out, "write_as_it_is", out.write)(text)


class _Escaping(io.TextIOWrapper):
    """A stream that no text can steer, but by the marks of :data:`_STYLE`."""

    style_mark = _STYLE

    def write(self, text: str, /) -> int:
        """Write ``text``, escaped."""
        super().write(_shown(text))
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        """Write ``text``."""
        return super().write(text)


class _PassingOn:
    """Does the same before a stream that somebody else put in the place of a standard one."""

    style_mark = _STYLE

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.write_as_it_is = stream.write

    def write(self, text: str) -> int:
        """Write ``text``, escaped."""
        self._stream.write(_shown(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(io.BufferedWriter):
    """Tells once that it cannot be written, then takes everything and writes nothing.

    The writing itself is the base class's, in C: an interrupt between two lines of Python could have it write something twice.
    """

    _is_lost = False

    def write(self, data: ReadableBuffer) -> int:
        """Write or keep ``data``."""
        view = memoryview(data)
        length = len(view)
        while not self._is_lost:
            try:
                super().write(view)
                break
            except BlockingIOError as error:
                view = view[error.characters_written :]
                self._wait()
            except OSError as error:
                self._lose(error)
        return length

    def flush(self) -> None:
        """Write what is kept."""
        while not self._is_lost:
            try:
                super().flush()
                break
            except BlockingIOError:
                self._wait()
            except OSError as error:
                self._lose(error)

    def _wait(self) -> None:
        """Wait for room: whoever shares the descriptor has made it one that does not wait by itself."""
        select.select([], [self.fileno()], [])

    def _lose(self, error: OSError) -> None:
        self._is_lost = True
        raise OutputLostError(error) from None


class _Notes(_Output):
    """Standard error: drops what cannot be written, and never waits for a reader."""

    def _wait(self) -> None:
        self._is_lost = True

    def _lose(self, error: OSError) -> None:  # noqa: ARG002 - nobody is told
        self._is_lost = True


def _shown(text: str) -> str:
    return escaped(text).replace(_STYLE, "\x1b[")


def _passed_on(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, _Escaping | _PassingOn) else cast("TextIO", _PassingOn(stream))


def _stream(before: TextIO | None, buffer: _Output) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    is_hasty = (
        buffer.isatty()
        or isinstance(buffer, _Notes)
        or (before is not None and getattr(before, "write_through", False))
    )
    return _Escaping(buffer, encoding, _ESCAPES, line_buffering=is_hasty)


def _raw(descriptor: int) -> io.FileIO:
    return io.FileIO(descriptor, "w", closefd=False)


def _open_closed_streams() -> None:
    for descriptor, flags in enumerate(_FLAGS):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, flags)
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
            os.set_inheritable(descriptor, True)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(json_escape, error.object[error.start : error.end])), error.end


codecs.register_error(_ESCAPES, _escaped)
