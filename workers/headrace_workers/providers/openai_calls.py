"""Tool calls of a Chat Completions response, put together from fragments.

Vendors differ in what they repeat and leave out: index, id, name. Never parses the arguments into anything; they stay text.
"""

from __future__ import annotations

from typing import Any

from headrace.types import RunEvent, ToolCallDelta
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.growing_call import GrowingCall, arguments_or_none
from headrace_workers.providers.lenient import as_text, json_text


class ToolCalls:
    """The calls so far, in order of appearance; that order is their index."""

    __slots__ = ("_calls",)

    def __init__(self) -> None:
        self._calls: list[GrowingCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, fragment: Any, events: list[RunEvent], place: Any = None) -> None:
        """Take one element of ``tool_calls``; ``place`` overrides the index that it gives."""
        if not isinstance(fragment, dict):
            return
        function = fragment.get("function")
        function = function if isinstance(function, dict) else {}
        call_id, name = as_text(fragment.get("id")), as_text(function.get("name"))
        arguments = _arguments(function.get("arguments"))
        place = fragment.get("index") if place is None else place
        call = self._find(place, call_id, name, arguments)
        if call is not None:
            is_named = bool(call_id or name) and call.identify(call_id, name)
        elif call_id or name or arguments:
            call = GrowingCall(len(self._calls), place)
            self._calls.append(call)
            call.identify(call_id, name)
            is_named = True
        else:
            return
        if arguments:
            call.arguments.append(arguments)
        if is_named:
            events.append(ToolCallDelta(call.index, call.id, call.name, arguments))
        elif arguments:
            events.append(ToolCallDelta(call.index, arguments=arguments))

    def complete(self, *, is_cut: bool) -> list[ToolCallText]:
        """Return all calls. Of an output that was cut the last may be incomplete."""
        calls = self._calls
        last = calls[-1] if is_cut and calls else None
        return [ToolCallText(call.id, call.name, arguments_or_none(call.text, is_cut=call is last)) for call in calls]

    def _find(self, place: Any, call_id: str, name: str, arguments: str) -> GrowingCall | None:
        """Return the call that a fragment continues, None when it starts one."""
        if not self._calls:
            return None
        if not call_id and not name and (place is None or place == self._calls[-1].place):
            return self._calls[-1]
        there = [call for call in self._calls if place is None or call.place == place]
        if not there:
            # Arguments alone start no call: the vendor's index is not to be trusted.
            return None if call_id or name else self._calls[-1]
        last = there[-1]
        if not call_id:
            # Without an id, a name with arguments after arguments that are complete can only be another call.
            return None if name and arguments.strip() and last.is_whole else last
        same = next((call for call in reversed(there) if call.has_own_id and call.id == call_id), None)
        if same is not None or not name:
            return same or last
        return None if last.has_own_id or last.is_whole else last


def _arguments(value: Any) -> str:
    """Return arguments as text; some vendors send the object itself."""
    if isinstance(value, str):
        return value
    return "" if value is None else json_text(value)
