r"""Formats one log record as one line: text (``time process LEVEL logger: message key=value …``) or one JSON object.

What stands in a record may come from a provider, a file or a user. So each text is masked first (secrets), then cut to a length,
then escaped. No value and no traceback can begin a line that looks like another event: in text the lines of a traceback are
indented, in JSON it is one string.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from headrace.settings.log_variables import LogFormat
from headrace.text.escaping import escaped
from headrace.text.secret_mask import MASK

MAX_FIELD = 2_000
"""Characters of one field. A longer field is cut at its end."""
MAX_MESSAGE = 8_000
"""Characters of the message."""
MAX_TRACEBACK = 16_000
"""Characters of a traceback. A longer traceback loses its middle: the end names the error."""
MAX_FIELDS = 50

RESERVED = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""The attributes of every log record. ``logging`` raises KeyError for a field with such a name. Names that begin with an underscore are
no fields either: a library may add them to every record of the program, as Ray does."""

_BARE = re.compile(r"[\w./:@%+-]+", re.ASCII)
"""A value that needs no quotes."""
_NOT_IN_NAMES = re.compile(r"[^\w.-]", re.ASCII)
_MAX_NAME = 100
_MOST_MASKINGS = 4
_LARGEST_INT = 2**63 - 1
"""Many readers of JSON have integers of 64 bits."""

Field = str | int | float | bool | None


class LogLineFormatter(logging.Formatter):
    """Formats records of one process.

    ``process`` is the process's role: ``client``, ``supervisor``, ``broker``, ``collector``, or a worker's name (``w1``).
    ``masked`` takes secrets out of a text; the process sets it once it knows its secrets.
    """

    def __init__(self, process: str, log_format: LogFormat = "text") -> None:
        super().__init__()
        self.process = process
        self.masked: Callable[[str], str] = str
        self._format = _json_line if log_format == "json" else _text_line

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, without its line end. Never raises for what a record may hold."""
        return self._format(LogLine(record, self.process, self._clean, self._traceback(record)))

    def _clean(self, text: str, length: int) -> str:
        """Return ``text`` without secrets, and at most about ``length`` characters of it."""
        text = _shortened(self._without_secrets(text), length)
        return self._without_secrets(text)

    def _without_secrets(self, text: str) -> str:
        # Taking a secret out of an encoded text decodes the text, and what is decoded may have a secret in it again.
        for _ in range(_MOST_MASKINGS):
            hidden = self.masked(text)
            if hidden == text:
                return text
            text = hidden
        return MASK

    def _traceback(self, record: logging.LogRecord) -> str:
        # Not `record.exc_text`: a handler of somebody else may have set it.
        parts: list[str] = []
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            parts.append(self.formatException(record.exc_info))
        if record.stack_info:
            parts.append(record.stack_info)
        text = "\n".join(part for part in parts if part)
        if len(text) > MAX_TRACEBACK:
            half = MAX_TRACEBACK // 2
            text = f"{text[:half]}\n… ({len(text) - 2 * half} characters left out)\n{text[-half:]}"
        return text and self._without_secrets(text)


class LogLine:
    """The parts of one line, cleaned: no secrets, no long texts, fields of plain types."""

    def __init__(
        self, record: logging.LogRecord, process: str, clean: Callable[[str, int], str], traceback: str
    ) -> None:
        self.time = _time(record.created)
        self.process = process
        self.pid = record.process or os.getpid()
        self.level = record.levelname
        self.logger = clean(record.name, _MAX_NAME)
        self.message = clean(_message(record), MAX_MESSAGE)
        self.fields = _fields(record, clean)
        self.traceback = traceback


def _text_line(line: LogLine) -> str:
    fields = "".join(f" {name}={_shown(value)}" for name, value in line.fields.items())
    event = f"{line.time} {line.process} {line.level} {line.logger}: {line.message}"
    text = f"{event}{fields}".replace("\n", "\\n")
    if line.traceback:
        text += "".join(f"\n    {part}" for part in line.traceback.split("\n"))
    return escaped(text)


def _shown(value: Field) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return value if _BARE.fullmatch(value) else escaped(json.dumps(value, ensure_ascii=False))


def _json_line(line: LogLine) -> str:
    parts: dict[str, object] = {
        "time": line.time,
        "level": line.level,
        "logger": line.logger,
        "process": line.process,
        "pid": line.pid,
        "message": line.message,
        "fields": line.fields,
    }
    if line.traceback:
        parts["exception"] = line.traceback
    # ASCII only: no terminal obeys it, and no encoding of a stream changes it.
    return json.dumps(_without_halves(parts))


def _without_halves(value: object) -> object:
    """Return ``value`` without halves of characters (lone surrogates): strict readers of JSON refuse them."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, Mapping):
        return {name: _without_halves(part) for name, part in value.items()}
    return value


def _time(created: float) -> str:
    try:
        moment = datetime.fromtimestamp(created, UTC)
    except (OverflowError, ValueError, OSError):
        moment = datetime.fromtimestamp(0, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - another library's arguments may not fit its message
        return _as_text(record.msg)


def _fields(record: logging.LogRecord, clean: Callable[[str, int], str]) -> dict[str, Field]:
    fields: dict[str, Field] = {}
    given = [(name, value) for name, value in vars(record).items() if name not in RESERVED and name[0] != "_"]
    for name, value in given[:MAX_FIELDS]:
        plain = _plain(value)
        shown_name = _NOT_IN_NAMES.sub("_", clean(_as_text(name), _MAX_NAME))
        fields[shown_name] = clean(plain, MAX_FIELD) if isinstance(plain, str) else plain
    if len(given) > MAX_FIELDS:
        fields["fields_left_out"] = len(given) - MAX_FIELDS
    return fields


def _plain(value: object) -> Field:
    """Return a value as JSON has it, if it is a plain one; else a text."""
    if value is None or isinstance(value, bool):
        return value
    if type(value) is int and abs(value) <= _LARGEST_INT:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    return _as_text(value)


def _as_text(value: object) -> str:
    try:
        return str.__str__(value) if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - a value's own method may raise anything
        return f"({type(value).__name__} that cannot be shown)"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
