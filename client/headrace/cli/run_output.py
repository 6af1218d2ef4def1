"""How ``headrace run`` shows a run: as text for people, or as lines of JSON for programs."""

from __future__ import annotations

from typing import Any, Protocol, TextIO

import msgspec

from headrace.cli.shared.terminal import as_json, dim, one_line
from headrace.errors import HeadraceError, RunError
from headrace.process.standard_streams import print_json, write_as_it_is
from headrace.text.escaping import escaped
from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    ReasoningDelta,
    RefusalDelta,
    RunLocalResult,
    StreamEvent,
    StreamResult,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageUpdate,
)

_EVENT_NAMES: dict[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
    ToolCallDelta: "tool_call",
    UsageUpdate: "usage",
}


class Output(Protocol):
    """Shows one run. The last call is either ``finished`` or ``failed``."""

    def event(self, event: StreamEvent) -> None:
        """Show one event as soon as it arrives."""

    def answer(self, result: RunLocalResult) -> None:
        """Show the complete answer of a run that did not stream."""

    def finished(self, result: RunLocalResult) -> None:
        """Show the result of the run."""

    def failed(self, error: HeadraceError) -> None:
        """End the output of a run that failed. The command itself prints the error."""


class TextOutput:
    """Writes the answer to ``out``, and remarks about it to ``notes``: most remarks only if that is a terminal."""

    def __init__(self, out: TextIO, notes: TextIO) -> None:
        self._out = out
        self._notes = notes
        self._is_reasoning = False
        self._is_within_line = False
        self._length = 0

    def event(self, event: StreamEvent) -> None:
        """Show text and reasoning."""
        match event:
            case TextDelta() | RefusalDelta():
                self._write(event.text)
            case ReasoningDelta():
                self._write_reasoning(event.text)
            case ToolCallDelta() | UsageUpdate():
                pass  # shown when they are complete

    def answer(self, result: RunLocalResult) -> None:
        """Show reasoning and text."""
        self._write_reasoning(result.reasoning)
        self._write(result.text or result.refusal or "")

    def finished(self, result: RunLocalResult) -> None:
        """Show tool calls, and on a terminal the finish reason, tokens and time."""
        self._end_line()
        for call in result.tool_calls:
            self._write(f"{call.name}({as_json(call.arguments)})\n")
        made: list[ImagePart | AudioPart | FilePart] = [*result.images, *result.audio, *result.files]
        for part in made:
            print(one_line(_media(part)), file=self._notes)
        if isinstance(result, StreamResult) and result.aborted:
            facts = [f"aborted after {self._length} characters", _tokens(result.usage), result.span_id]
            print(dim(one_line(" · ".join(facts)), self._notes), file=self._notes)
        elif self._notes.isatty():
            facts = [result.finish_reason or "done", _tokens(result.usage), f"{result.latency_ms / 1000:.1f} s"]
            print(dim(one_line(" · ".join([*facts, result.span_id])), self._notes), file=self._notes)

    def failed(self, error: HeadraceError) -> None:  # noqa: ARG002 - the command prints the error
        """End the line."""
        self._end_line()

    def _write(self, text: str) -> None:
        if not text:
            return
        self._end_reasoning()
        # A program that reads a pipe gets the exact text. For a terminal, control characters are escaped.
        write_as_it_is(self._out, escaped(text) if self._out.isatty() else text)
        self._out.flush()
        self._length += len(text)
        self._is_within_line = not text.endswith("\n")

    def _write_reasoning(self, text: str) -> None:
        if text and self._notes.isatty():
            self._is_reasoning = True
            self._notes.write(dim(escaped(text), self._notes))
            self._notes.flush()

    def _end_reasoning(self) -> None:
        if self._is_reasoning:
            self._is_reasoning = False
            self._notes.write("\n\n")
            self._notes.flush()

    def _end_line(self) -> None:
        self._end_reasoning()
        if self._is_within_line:
            self._out.write("\n")
            self._out.flush()
            self._is_within_line = False


class JsonOutput:
    """Writes a line of JSON for each event, then one for the result or the error.

    The field ``type`` says which it is.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def event(self, event: StreamEvent) -> None:
        """Print the event's fields."""
        self._print(_EVENT_NAMES[type(event)], _fields(event))

    def answer(self, result: RunLocalResult) -> None:
        """Print nothing: the result holds the answer."""

    def finished(self, result: RunLocalResult) -> None:
        """Print the result's fields."""
        self._print("result", _fields(result))

    def failed(self, error: HeadraceError) -> None:
        """Print the error's class, its text, and the partial answer."""
        fields = {"error": type(error).__name__, "message": str(error)}
        if isinstance(error, RunError):
            fields |= {"span_id": error.span_id, "partial_text": error.partial_text}
        self._print("error", fields)

    def _print(self, kind: str, fields: dict[str, Any]) -> None:
        print_json(as_json({"type": kind} | fields), self._out)
        self._out.flush()


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    # msgspec encodes some events as arrays. Here each field has its name.
    fields = {name: getattr(value, name) for name in value.__struct_fields__}
    if isinstance(usage := fields.get("usage"), Usage):
        fields["usage"] = _fields(usage)  # fields with the value 0 included
    plain: dict[str, Any] = msgspec.to_builtins(fields)
    return plain


def _media(part: ImagePart | AudioPart | FilePart) -> str:
    """Return what a model made, on one line. ``--json`` shows its content."""
    if part.data is not None:
        return f"({part.media_type}, {len(part.data) * 3 // 4} bytes; --json shows it)"
    return f"({part.media_type or 'file'}, {part.url or getattr(part, 'file_id', None)})"


def _tokens(usage: Usage) -> str:
    if usage.source == "none":
        return "tokens unknown"
    about = "" if usage.source == "provider" else "about "
    return f"{about}{usage.total_tokens} tokens ({usage.input_tokens} in, {usage.output_tokens} out)"
