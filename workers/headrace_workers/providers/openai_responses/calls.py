"""Joins the function calls of a Responses stream: an item begins a call, deltas continue it, a whole item completes it.

Any of these may be missing, and so may the indexes and ids that connect them. Arguments stay text: they are not parsed.
"""

from __future__ import annotations

from typing import Any

from headrace.types import RunEvent, ToolCallDelta
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.openai_responses.events import Item, ResponseEvent, arguments_of
from headrace_workers.providers.shared.answer_limits import check_calls
from headrace_workers.providers.shared.growing_call import GrowingCall, arguments_or_none, key_of
from headrace_workers.providers.shared.lenient_json import as_text, json_text
from headrace_workers.providers.shared.provider_errors import protocol_failure
from headrace_workers.providers.shared.unread_content import text_in


class ResponseCalls:
    """The calls that have begun, in the order of their appearance. This order is their index.

    All look-ups use dicts, so that many calls do not take quadratic time.
    """

    __slots__ = ("_by_id", "_calls", "_first_at", "_last_at", "_last_of_item", "_last_unplaced", "_without_call")

    def __init__(self) -> None:
        self._calls: list[GrowingCall] = []
        self._by_id: dict[str, GrowingCall] = {}  # call id → the first call with this id
        self._first_at: dict[Any, GrowingCall] = {}  # output index → the first call there
        self._last_at: dict[Any, GrowingCall] = {}  # output index → the last call there
        self._last_of_item: dict[Any, GrowingCall] = {}  # item id, or "" for none → the last call of the item
        self._last_unplaced: dict[Any, GrowingCall] = {}  # the same, for calls without an output index
        # Output index and item id of arguments that came before their call.
        self._without_call: list[tuple[Any, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take_item(self, item: Item, place: Any, events: list[RunEvent], *, is_whole: bool) -> None:
        """Take an item of type ``function_call``: its beginning, or a whole item (``is_whole``)."""
        item_id = as_text(item.get("id"))
        call_id = as_text(item.get("call_id")) or item_id
        call = self._of_item(call_id, place)
        is_new = call is None
        if call is None:
            call = GrowingCall(len(self._calls), place, item_id)
            self._add_call(call)
        if call.identify(call_id, as_text(item.get("name"))) or is_new:
            events.append(ToolCallDelta(call.index, call.id, call.name))
        if call.has_own_id:
            known = self._by_id.get(call.id)
            if known is None or known.index > call.index:
                self._by_id[call.id] = call
        if is_whole:
            self._add(call, call.missing(arguments_of(item.get("arguments"))), events)

    def take_delta(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        """Take a piece of arguments."""
        call, arguments = self._of_event(event), text_in(event.delta, "a piece of arguments")
        if call is not None:
            self._add(call, arguments, events)
        elif arguments.strip() not in {"", "{}"} and (event.output_index, event.item_id) not in self._without_call[-1:]:
            self._without_call.append((event.output_index, event.item_id))
            check_calls(len(self._without_call))

    def take_done(self, event: ResponseEvent, events: list[RunEvent]) -> None:
        """Take whole arguments."""
        call = self._of_event(event)
        if call is not None:
            self._add(call, call.missing(arguments_of(event.arguments)), events)

    def take_custom(self, item: Item, events: list[RunEvent]) -> None:
        """Take a call of a custom tool. Its input is text, which becomes the argument ``input``."""
        arguments = json_text({"input": as_text(item.get("input"))})
        if item.get("status") == "incomplete":
            arguments = arguments.removesuffix('"}')
        self.take_item(item | {"arguments": arguments}, None, events, is_whole=True)

    def check(self, items: list[Item]) -> None:
        """Raise ProviderFailedError if arguments arrived, but not the item of their call."""
        ids = {str(item.get("id")) for item in items}
        for place, item_id in self._without_call:
            has_item = (type(place) is int and place < len(items)) or (item_id is not None and str(item_id) in ids)
            if not has_item:
                raise protocol_failure("the arguments of a tool call arrived without the name of its tool")

    def complete(self, *, is_cut: bool) -> list[ToolCallText]:
        """Return all calls. If the output was cut, the last call may be incomplete."""
        calls = self._calls
        last = calls[-1] if is_cut and calls else None
        return [ToolCallText(call.id, call.name, arguments_or_none(call.text, is_cut=call is last)) for call in calls]

    @staticmethod
    def _add(call: GrowingCall, arguments: str, events: list[RunEvent]) -> None:
        if arguments:
            call.arguments.append(arguments)
            events.append(ToolCallDelta(call.index, arguments=arguments))

    def _add_call(self, call: GrowingCall) -> None:
        self._calls.append(call)
        check_calls(len(self._calls))
        self._last_of_item[call.item_id] = call
        if call.place is None:
            self._last_unplaced.pop(call.item_id, None)  # so that the last entry of the dict is the newest call
            self._last_unplaced[call.item_id] = call
        else:
            key = key_of(call.place)
            self._first_at.setdefault(key, call)
            self._last_at[key] = call

    def _of_item(self, call_id: str, place: Any) -> GrowingCall | None:
        """Return the first call with the item's id; or the first call at its place, if the item or the call has no id."""
        at_place = self._first_at.get(key_of(place)) if place is not None else None
        if not call_id:
            return at_place
        same = self._by_id.get(call_id)
        if at_place is None or at_place.has_own_id:  # only the first call at a place may be without an id
            return same
        return at_place if same is None or at_place.index < same.index else same

    def _of_event(self, event: ResponseEvent) -> GrowingCall | None:
        """Return the call of an event: by its output index, else by its item id, else the last call.

        Return None for an item that is no function call, such as an item of a server tool.
        """
        item_id = event.item_id
        if event.output_index is None:
            return _last_of(self._last_of_item, item_id) if item_id else self._calls[-1] if self._calls else None
        placed = self._last_at.get(key_of(event.output_index))
        if not self._last_unplaced:
            return placed
        unplaced = _last_of(self._last_unplaced, item_id) if item_id else next(reversed(self._last_unplaced.values()))
        return _later(placed, unplaced)


def _last_of(calls: dict[Any, GrowingCall], item_id: Any) -> GrowingCall | None:
    """Return the last call of an item, or without an item id, whichever is later."""
    return _later(calls.get(key_of(item_id)), calls.get(""))


def _later(one: GrowingCall | None, other: GrowingCall | None) -> GrowingCall | None:
    if one is None or other is None:
        return one or other
    return one if one.index > other.index else other
