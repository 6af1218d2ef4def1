"""The calls of one turn while they run: until when each may run, and what the model is told of each. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from headrace.tool_loop.tool_conversation import PlannedCall
from headrace.tool_loop.tool_events import ToolCallReturned
from headrace.tools.tool_results import UnfitResultError, content_of, error_words

MAX_AT_ONCE = 64
"""Functions of one conversation that run at the same time at most. Further calls of the turn wait."""

logger = logging.getLogger(__name__)


class TurnCalls:
    """The calls of one turn. The shells name a call by its place."""

    def __init__(self, calls: Sequence[PlannedCall], deadline: float | None) -> None:
        """Take the calls. ``deadline``: when the whole conversation must have ended."""
        self.calls = list(calls)
        self._answers: dict[int, ToolCallReturned] = {}
        self._deadline = deadline
        self._begun = 0
        self._until: dict[int, float] = {}

    def begin(self, running: int, now: float) -> list[int]:
        """Return the calls that begin now, while ``running`` others run."""
        places = [*range(self._begun, min(len(self.calls), self._begun + MAX_AT_ONCE - running))]
        for place in places:
            tool = self.calls[place].tool
            if tool is not None and tool.timeout is not None:
                self._until[place] = now + tool.timeout
        self._begun += len(places)
        return places

    def wait_time(self, now: float) -> float | None:
        """Return for how many seconds a shell may wait before it looks again. ``None``: without end."""
        limits = [until for place, until in self._until.items() if place not in self._answers]
        if self._deadline is not None:
            limits.append(self._deadline)
        return max(0.0, min(limits) - now) if limits else None

    def overdue(self, now: float) -> list[int]:
        """Return the calls without an answer that have run for longer than they may."""
        return [place for place, until in self._until.items() if until <= now and place not in self._answers]

    def is_out_of_time(self, now: float) -> bool:
        """Tell whether the time of the whole conversation is over."""
        return self._deadline is not None and self._deadline <= now

    def waited_for(self) -> list[str]:
        """Return the names of the tools that have not returned."""
        return [call.call.name for place, call in enumerate(self.calls) if place not in self._answers]

    def refused(self, place: int) -> ToolCallReturned:
        """Answer a call that cannot be made."""
        return self._answer(place, self.calls[place].failed(self.calls[place].problem or ""))

    def returned(self, place: int, value: Any) -> ToolCallReturned:
        """Take what a function returned."""
        try:
            content = content_of(value)
        except UnfitResultError as error:
            return self._answer(place, self.calls[place].failed(str(error)))
        return self._answer(place, self.calls[place].returned(content))

    def raised(self, place: int, error: BaseException) -> ToolCallReturned:
        """Take what a function raised. Raises the error itself if it must end everything."""
        call = self.calls[place]
        tool = call.tool
        if not isinstance(error, Exception) or (tool is not None and isinstance(error, tool.raises)):
            raise error
        logger.info("tool raised", exc_info=error, extra={"tool": call.call.name})
        return self._answer(place, call.failed(error_words(error)))

    def was_cancelled(self, place: int) -> ToolCallReturned:
        """Take that a function ended by a cancellation of its own."""
        return self._answer(place, self.calls[place].failed("the tool was cancelled"))

    def took_too_long(self, place: int) -> ToolCallReturned:
        """Give a call up."""
        call = self.calls[place]
        limit = call.tool.timeout if call.tool is not None else None
        return self._answer(place, call.failed(f"the tool has not returned within {limit:g} s"))

    def answers(self) -> list[ToolCallReturned]:
        """Return the answers in the order of the calls. A call without an answer was aborted."""
        return [self._answers.get(place) or call.aborted() for place, call in enumerate(self.calls)]

    def _answer(self, place: int, answer: ToolCallReturned) -> ToolCallReturned:
        self._answers[place] = answer
        return answer
