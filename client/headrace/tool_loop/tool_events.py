"""The events of ``run_tools`` beside the events of a model: turns begin and end, functions are called and return."""

from __future__ import annotations

import msgspec

from headrace.types import Part, RunLocalResult, StreamEvent, ToolCall


class TurnStarted(msgspec.Struct, frozen=True):
    """A turn begins: the model is asked. A turn is one run of the model, and the calls that the model makes in it."""

    turn: int
    """The turn's number, from 1."""
    span_id: str
    """The id of the model's run."""


class TurnEnded(msgspec.Struct, frozen=True):
    """A turn has ended: the model has answered, and all functions that it called have returned."""

    turn: int
    """The turn's number, from 1."""
    result: RunLocalResult
    """The model's answer in this turn."""


class ToolCallStarted(msgspec.Struct, frozen=True):
    """A function is called."""

    turn: int
    """The turn's number, from 1."""
    call: ToolCall
    """The call, with the arguments as the model gave them."""


class ToolCallReturned(msgspec.Struct, frozen=True):
    """A call has its answer. Calls of one turn run at the same time: their answers may come in any order."""

    turn: int
    """The turn's number, from 1."""
    call: ToolCall
    """The call."""
    content: str | list[Part]
    """What the model is told: the result, or what went wrong."""
    error: str | None = None
    """What went wrong, as the model is told it. ``None``: the function returned a result."""


ToolRunEvent = StreamEvent | TurnStarted | TurnEnded | ToolCallStarted | ToolCallReturned
"""An event as ``ToolStream.events()`` yields it."""
