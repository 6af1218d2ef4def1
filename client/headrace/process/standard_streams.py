r"""Standard input, output and error of a program, without tracebacks when they are closed, full, in ASCII, or have no reader.

Within :func:`own_streams` a command prints as usual, with these rules:

* A character that controls a terminal, or hides text, is written as a JSON escape (``\u001b``). This holds for commands, the parser of
  arguments and tracebacks. :func:`write_as_it_is` writes colours, and a model's answer to a pipe, without escapes.
* A character that the stream's encoding does not have is written as a JSON escape (``\u2192``), not as ``?``.
* If a write to standard output fails, :class:`OutputLostError` is raised once. Later writes to it are dropped.
* If a write to standard error fails, the text is dropped.
* A closed stream is opened on the null device, so that no file or socket of the program gets its number.
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
"""Stands for ESC [ in text that a command prints. It is random, so that no text from outside can contain it."""
_FAILED = 1
_CLOSED = 141
_FLAGS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)
"""Flags with which the null device is opened as descriptor 0, 1 and 2. Closed output stays unwritable: the program reports it."""


class OutputLostError(Exception):
    """Standard output cannot be written. ``error`` is the system's error."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error

    @property
    def exit_code(self) -> int:
        """The exit code of the process: 141 (as a shell reports SIGPIPE) if the output was closed or has no reader, otherwise 1."""
        return _CLOSED if self.has_lost_its_reader or self.error.errno == errno.EBADF else _FAILED

    @property
    def has_lost_its_reader(self) -> bool:
        """Whether the reader has gone, as with ``| head``. This needs no message."""
        return isinstance(self.error, BrokenPipeError)


@contextlib.contextmanager
def own_streams() -> Iterator[None]:
    """Within this context ``sys.stdin``, ``sys.stdout`` and ``sys.stderr`` follow the rules of this module.

    If the program has replaced a standard stream, the replacement gets the escaped text.
    """
    before = (sys.stdin, sys.stdout, sys.stderr)
    _open_closed_streams()
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open, as the real one does
    sys.stdout = _stream(before[1], _Output(_raw(1))) if before[1] is sys.__stdout__ else _escaping_proxy(before[1])
    sys.stderr = (
        _stream(before[2], _ErrorOutput(_raw(2))) if before[2] is sys.__stderr__ else _escaping_proxy(before[2])
    )
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OutputLostError, ValueError):  # lost, or closed by the program
                stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def guarded(program: Callable[[], int]) -> int:
    """Run a program with the streams of this module. Return its exit code, or the code of :class:`OutputLostError` if output was lost."""
    with own_streams():
        try:
            return _flushed(program)
        except OutputLostError as lost:
            if not lost.has_lost_its_reader:
                print(f"headrace: the output cannot be written: {lost.error.strerror}", file=sys.stderr)  # noqa: T201
            return lost.exit_code
        except Exception:  # noqa: BLE001 - print our own faults here: Python itself would not escape the text
            traceback.print_exc()
            return _FAILED


def _flushed(program: Callable[[], int]) -> int:
    try:
        code = program()
    except SystemExit:
        sys.stdout.flush()  # a help text may be longer than the pipe can take
        raise
    sys.stdout.flush()
    return code


def print_json(text: str, out: TextIO) -> None:
    """Write JSON and a line end. If the encoding of ``out`` is not UTF-8, write all characters that are not ASCII as escapes."""
    is_utf_8 = (getattr(out, "encoding", None) or "utf-8").lower().replace("_", "-") in ("utf-8", "utf8")
    text = escaped(text)
    out.write((text if is_utf_8 else text.encode("ascii", _ESCAPES).decode()) + "\n")


def write_as_it_is(out: TextIO, text: str) -> None:
    """Write ``text`` without escapes: text of Headrace itself that controls the terminal, or text for a program that reads it."""
    getattr(out, "write_as_it_is", out.write)(text)


class _EscapingStream(io.TextIOWrapper):
    """A stream that escapes all characters that control a terminal, except those that stand behind :data:`_STYLE`."""

    style_mark = _STYLE

    def write(self, text: str, /) -> int:
        """Write ``text``, escaped."""
        super().write(_shown(text))
        return len(text)

    def write_as_it_is(self, text: str) -> int:
        """Write ``text``."""
        return super().write(text)


class _EscapingProxy:
    """Does the same for a stream with which the program has replaced a standard stream."""

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
    """Raises once if it cannot be written. Later it accepts all text and writes nothing.

    The base class writes, in C. In Python, an interrupt between two lines could cause a text to be written twice.
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
        """Wait until the descriptor can be written. Another process has made it non-blocking."""
        select.select([], [self.fileno()], [])

    def _lose(self, error: OSError) -> None:
        self._is_lost = True
        raise OutputLostError(error) from None


class _ErrorOutput(_Output):
    """Standard error: drops what cannot be written, and never waits for a reader."""

    def _wait(self) -> None:
        self._is_lost = True

    def _lose(self, error: OSError) -> None:  # noqa: ARG002 - the form of the base class
        self._is_lost = True


def _shown(text: str) -> str:
    return escaped(text).replace(_STYLE, "\x1b[")


def _escaping_proxy(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, _EscapingStream | _EscapingProxy) else cast("TextIO", _EscapingProxy(stream))


def _stream(before: TextIO | None, buffer: _Output) -> TextIO:
    encoding = (before.encoding if before is not None else None) or "utf-8"
    is_line_buffered = (
        buffer.isatty()
        or isinstance(buffer, _ErrorOutput)
        or (before is not None and getattr(before, "write_through", False))
    )
    return _EscapingStream(buffer, encoding, _ESCAPES, line_buffering=is_line_buffered)


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
