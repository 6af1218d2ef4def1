"""RunToolsResult: what ``run_tools`` returns, and how the figures of its turns are added up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, get_args

from headrace.types import Message, RunLocalResult, T_co, Usage, UsageSource

StopReason = Literal["max_turns", "unanswered_calls", "aborted"]

_TRUST: tuple[UsageSource, ...] = get_args(UsageSource)
"""Sources of usage, the best first."""


class RunToolsResult(RunLocalResult[T_co], Generic[T_co], frozen=True, kw_only=True):
    """The result of ``run_tools``: the model's last answer, and all that led to it.

    The fields of :class:`RunLocalResult` are the fields of the last turn, except for ``usage``, ``cost``, ``latency_ms``
    and ``attempts``, which are totals of all turns. ``cost`` is ``None`` if the cost of a turn is not known.
    """

    messages: list[Message]
    """The whole conversation: the messages that you gave, each answer of the model, and each answer of a function.

    Give it to ``run_tools`` or ``run_local`` to go on, with a further message of the user or without.
    """
    turns: list[RunLocalResult]
    """The model's answer in each turn."""
    stopped: StopReason | None
    """Why the model could not go on to its end. ``None``: it did.

    ``max_turns``: the limit was reached. The functions of the last turn were called too, so that ``messages`` is
    complete. ``unanswered_calls``: the model called a tool that was given as a dict, for which there is no function.
    Add an answer to each such call before you go on: it is in ``tool_calls``, or an item in ``message``. ``aborted``: the program aborted.
    """

    @property
    def aborted(self) -> bool:
        """Whether the program aborted. ``text`` is then the text of the last turn that had arrived."""
        return self.stopped == "aborted"


def total_usage(turns: Sequence[RunLocalResult]) -> Usage:
    """Return the tokens of all turns. The source is the least trusted of all."""
    requests: dict[str, int] = {}
    for turn in turns:
        for name, count in turn.usage.server_tool_requests.items():
            requests[name] = requests.get(name, 0) + count
    figures = {
        name: sum(getattr(turn.usage, name) for turn in turns)
        for name in Usage.__struct_fields__
        if name.endswith("_tokens")
    }
    source = _TRUST[max(_TRUST.index(turn.usage.source) for turn in turns)]
    return Usage(**figures, source=source, server_tool_requests=requests)


def tools_result(
    turns: list[RunLocalResult], messages: list[Message], stopped: StopReason | None, latency_ms: float
) -> RunToolsResult[Any]:
    """Return the result of all turns."""
    last = turns[-1]
    costs = [turn.cost for turn in turns]
    fields = {name: getattr(last, name) for name in RunLocalResult.__struct_fields__}
    fields |= {
        "text": _text(turns),
        "usage": total_usage(turns),
        "cost": None if None in costs else sum(cost for cost in costs if cost is not None),
        "attempts": sum(turn.attempts for turn in turns),
        "latency_ms": latency_ms,
    }
    return RunToolsResult(**fields, messages=messages, turns=turns, stopped=stopped)


def plain_result(result: RunLocalResult) -> RunLocalResult:
    """Return the result of a turn as a RunLocalResult, also of a streamed run: so turns look the same in each way."""
    if type(result) is RunLocalResult:
        return result
    return RunLocalResult(**{name: getattr(result, name) for name in RunLocalResult.__struct_fields__})


def is_paused(result: RunLocalResult) -> bool:
    """Tell whether a provider paused its answer: Anthropic's own tools had more to do than fits into one response."""
    return result.provider_finish_reason == "pause_turn" and not result.tool_calls


def _text(turns: Sequence[RunLocalResult]) -> str:
    """Return the text of the last answer. A paused answer goes on in the next turn."""
    text = turns[-1].text
    for turn in reversed(turns[:-1]):
        if not is_paused(turn):
            break
        text = turn.text + text
    return text


def has_content(message: Message) -> bool:
    """Tell whether a message says anything: providers refuse an empty one."""
    return bool(message.content)
