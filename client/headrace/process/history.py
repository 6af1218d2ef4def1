"""Writes what this process does to a file of JSON lines, from which tests check the promises of the engine. Off by default.

For debugging: if ``HEADRACE_HISTORY`` names a directory, each process appends to the file ``ROLE-PID-EPOCH.jsonl`` in it. The lines
have the texts of answers, but no prompts and no keys. Times are from ``CLOCK_MONOTONIC``, which is one clock for all processes of a
machine. Each line is written at once, so it is kept if the process dies. A line that cannot be written is left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from headrace.files.private_files import open_private
from headrace.types import RunEvent
from headrace.wire.flow import characters
from headrace.wire.groups import unpacked
from headrace.wire.messages import (
    Abort,
    Aborted,
    Acquire,
    Chunk,
    Credit,
    Failed,
    Finished,
    Goodbye,
    Grant,
    Hello,
    Hold,
    Refuse,
    Release,
    Run,
    Silent,
)

logger = logging.getLogger(__name__)

VARIABLE = "HEADRACE_HISTORY"

Way = Literal["sent", "received"]


class HistoryEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. ``event`` says what happened, for example ``sent run``, ``received chunk``, or the name of a note.

    ``epoch`` is the epoch of the worker that the line is about. If the line is about no worker, it is the epoch of the frame's sender.
    ``peer`` is the identity of the connection.
    """

    at: float
    event: str
    span_id: str = ""
    attempt: int = 0
    epoch: int = 0
    peer: str = ""
    name: str = ""
    pid: int = 0
    kind: str = ""
    reason: str = ""
    sequence: int = 0
    count: int = 0
    characters: int = 0
    sequence_limit: int = 0
    character_limit: int = 0
    text: str = ""


class History:
    """The file of this process. It is closed when the object is deleted."""

    def __init__(self, path: Path) -> None:
        self._descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        weakref.finalize(self, os.close, self._descriptor).atexit = False  # at exit other threads still write

    def note(self, event: str, **facts: Any) -> None:
        """Write one line."""
        self._write([HistoryEvent(at=time.monotonic(), event=event, **facts)])

    def frame(self, way: Way, messages: Iterable[msgspec.Struct], epoch: int = 0, peer: bytes = b"") -> None:
        """Write a line for each message of a frame that is about runs or peers."""
        now, name = time.monotonic(), peer.hex()
        lines = [
            HistoryEvent(
                at=now,
                event=f"{way} {type(message).__name__.lower()}",
                **(dict[str, Any](epoch=epoch) | facts),
                peer=name,
            )
            for packed in messages
            for message in unpacked(packed)
            if (facts := _facts(message, has_text=way == "received")) is not None
        ]
        if lines:
            self._write(lines)

    def _write(self, lines: Sequence[HistoryEvent]) -> None:
        with contextlib.suppress(OSError):
            os.write(self._descriptor, b"".join([msgspec.json.encode(line) + b"\n" for line in lines]))


def open_history(role: str, epoch: int) -> History | None:
    """Return the history of this process. Return None if ``HEADRACE_HISTORY`` is not set, or the file cannot be made."""
    directory = os.environ.get(VARIABLE)
    if not directory:
        return None
    try:
        return History(Path(directory) / f"{role}-{os.getpid()}-{epoch}.jsonl")
    except OSError as error:
        logger.warning("history cannot be written", extra={"directory": directory, "reason": error.strerror})
        return None


_FIELDS: dict[type, tuple[str, ...]] = {
    Hello: ("name", "pid"),
    Goodbye: ("reason",),
    Silent: ("epoch",),
    Acquire: ("span_id", "attempt"),
    Grant: ("span_id", "attempt", "epoch"),
    Refuse: ("span_id", "attempt", "kind", "reason"),
    Release: ("span_id", "attempt"),
    Hold: ("span_id", "attempt", "epoch"),
    Run: ("span_id", "attempt", "epoch", "sequence_limit", "character_limit"),
    Credit: ("span_id", "attempt", "sequence_limit", "character_limit"),
    Abort: ("span_id", "attempt"),
    Chunk: ("span_id", "attempt", "sequence"),
    Finished: ("span_id", "attempt", "sequence"),
    Failed: ("span_id", "attempt", "sequence", "kind", "reason"),
    Aborted: ("span_id", "attempt", "sequence"),
}
"""The fields of each message that are written. All others are left out, so that no prompt and no key is written."""


def _facts(message: msgspec.Struct, *, has_text: bool) -> dict[str, Any] | None:
    fields = _FIELDS.get(type(message))
    if fields is None:
        return None
    facts = {field: getattr(message, field) for field in fields}
    match message:
        case Chunk():
            facts |= _contents(message.events, has_text=has_text)
        case Finished():
            facts["characters"] = message.text_length
        case Hello():
            facts["kind"] = message.role
        case Abort():
            facts["kind"] = message.mode
    return facts


def _contents(events: list[RunEvent], *, has_text: bool) -> dict[str, Any]:
    return {
        "count": len(events),
        "characters": characters(events),
        "text": "".join([event for event in events if isinstance(event, str)]) if has_text else "",
    }
