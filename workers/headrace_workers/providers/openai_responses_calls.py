"""Function calls of a Responses stream, put together: begun by an item, continued by deltas, completed by whatever is whole.

Each of these may be missing, and the indexes and ids that tie them together too. Never parses arguments; they stay text.
"""

from __future__ import annotations

from typing import Any

from headrace.types import RunEvent, ToolCallDelta
from headrace.wire.messages import ToolCallText
from headrace_workers.limits import check_calls
from headrace_workers.providers.failures import protocol_failure
from headrace_workers.providers.growing_call import GrowingCall, arguments_or_none
from headrace_workers.providers.lenient import as_text, json_text
from headrace_workers.providers.openai_responses_events import Event, Item, arguments_of
from headrace_workers.providers.unread import text_in


class ResponseCalls:
    """The calls so far, in order of appearance; that order is their index."""

    __slots__ = ("_calls", "_without_call")

    def __init__(self) -> None:
        self._calls: list[GrowingCall] = []
        self._without_call: list[tuple[Any, Any]] = []  # output index and item id of arguments whose call had not begun

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take_item(self, item: Item, place: Any, events: list[RunEvent], *, is_whole: bool) -> None:
        """Take an item of type ``function_call``: as it begins, or whole."""
        item_id = as_text(item.get("id"))
        call_id = as_text(item.get("call_id")) or item_id
        call = self._of_item(call_id, place)
        is_new = call is None
        if call is None:
            call = GrowingCall(len(self._calls), place, item_id)
            self._calls.append(call)
            check_calls(len(self._calls))
        if call.identify(call_id, as_text(item.get("name"))) or is_new:
            events.append(ToolCallDelta(call.index, call.id, call.name))
        if is_whole:
            self._add(call, call.missing(arguments_of(item.get("arguments"))), events)

    def take_delta(self, event: Event, events: list[RunEvent]) -> None:
        """Take a fragment of arguments."""
        call, arguments = self._of_event(event), text_in(event.delta, "a piece of arguments")
        if call is not None:
            self._add(call, arguments, events)
        elif arguments.strip() not in {"", "{}"} and (event.output_index, event.item_id) not in self._without_call[-1:]:
            self._without_call.append((event.output_index, event.item_id))
            check_calls(len(self._without_call))

    def take_done(self, event: Event, events: list[RunEvent]) -> None:
        """Take arguments that are whole."""
        call = self._of_event(event)
        if call is not None:
            self._add(call, call.missing(arguments_of(event.arguments)), events)

    def take_custom(self, item: Item, events: list[RunEvent]) -> None:
        """Take a call of a custom tool, whose input is text: it becomes the argument ``input``."""
        arguments = json_text({"input": as_text(item.get("input"))})
        if item.get("status") == "incomplete":
            arguments = arguments.removesuffix('"}')
        self.take_item(item | {"arguments": arguments}, None, events, is_whole=True)

    def check(self, items: list[Item]) -> None:
        """Raise ProviderFailedError where arguments came of an item that never did."""
        ids = {str(item.get("id")) for item in items}
        for place, item_id in self._without_call:
            has_item = (type(place) is int and place < len(items)) or (item_id is not None and str(item_id) in ids)
            if not has_item:
                raise protocol_failure("the arguments of a tool came, and nothing that says of which")

    def complete(self, *, is_cut: bool) -> list[ToolCallText]:
        """Return all calls. Of an output that was cut the last may be incomplete."""
        calls = self._calls
        last = calls[-1] if is_cut and calls else None
        return [ToolCallText(call.id, call.name, arguments_or_none(call.text, is_cut=call is last)) for call in calls]

    @staticmethod
    def _add(call: GrowingCall, arguments: str, events: list[RunEvent]) -> None:
        if arguments:
            call.arguments.append(arguments)
            events.append(ToolCallDelta(call.index, arguments=arguments))

    def _of_item(self, call_id: str, place: Any) -> GrowingCall | None:
        for call in self._calls:
            if call.has_own_id and call_id:
                if call.id == call_id:
                    return call
            elif place is not None and call.place == place:
                return call
        return None

    def _of_event(self, event: Event) -> GrowingCall | None:
        """Return the call that an event is of: by its place, else by its item, else the last one.

        None for an item that is no call, as a server's own tools have.
        """
        for call in reversed(self._calls):
            if event.output_index is not None and call.place is not None:
                is_same = event.output_index == call.place
            elif event.item_id and call.item_id:
                is_same = event.item_id == call.item_id
            else:
                is_same = True
            if is_same:
                return call
        return None
