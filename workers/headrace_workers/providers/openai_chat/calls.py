"""Joins the tool calls of a Chat Completions response from their fragments.

Vendors repeat or leave out different fields of a fragment: index, id, name. Arguments stay text: they are not parsed.
The input of a custom tool is free text; it becomes the argument ``input``.
"""

from __future__ import annotations

from typing import Any

from headrace.answers.tool_arguments import read_arguments
from headrace.types import RunEvent, ToolCallDelta, ToolCallPart
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.shared.answer_limits import MAX_LOOKED_AT, MIB, check_calls, too_large, weigh_arguments
from headrace_workers.providers.shared.growing_call import GrowingCall, arguments_or_none, key_of
from headrace_workers.providers.shared.lenient_json import as_text, json_text
from headrace_workers.providers.shared.unread_content import object_in, text_in

API_NAME = "openai-chat"
"""The value of ``api`` in ``provider_data`` that this format has made."""

_INPUT_STARTS, _INPUT_ENDS = '{"input":"', '"}'


_MAX_NAME = 4096
_ANYWHERE = ("anywhere",)


class ChatCalls:
    """The calls that have begun, in the order of their appearance. This order is their index."""

    __slots__ = ("_by_id", "_by_place", "_calls", "_looked_at")

    def __init__(self) -> None:
        self._calls: list[GrowingCall] = []
        self._looked_at = 0  # characters that were checked for complete arguments
        # The last call at each place (index); the last call with each id, at its place and at any place.
        self._by_place: dict[Any, GrowingCall] = {}
        self._by_id: dict[tuple[Any, str], GrowingCall] = {}

    def __bool__(self) -> bool:
        return bool(self._calls)

    @property
    def has_custom(self) -> bool:
        """Whether one of the calls is of a custom tool."""
        return any(call.is_custom for call in self._calls)

    def take(self, fragment: Any, events: list[RunEvent], place: Any = None) -> None:
        """Take one element of ``tool_calls``. ``place``, if given, is used instead of its index."""
        fragment = object_in(fragment, "a tool call")
        said, is_custom = _call_fields(fragment)
        call_id, name = as_text(fragment.get("id")), text_in(said.get("name"), "the name of a tool call")
        arguments = _input(said) if is_custom else _arguments(said.get("arguments"))
        place = fragment.get("index") if place is None else place
        call = self._find(place, call_id, name, arguments)
        if call is not None:
            is_named = bool(call_id or name) and call.identify(call_id, _whole_name(call.name, name))
        elif call_id or name or arguments:
            call = GrowingCall(len(self._calls), place)
            call.is_custom = is_custom
            self._calls.append(call)
            check_calls(len(self._calls))
            self._by_place[key_of(place)] = call
            call.identify(call_id, name)
            is_named = True
        else:
            return
        if call_id and call.has_own_id and call.id == call_id:
            self._by_id[key_of(call.place), call_id] = self._by_id[_ANYWHERE, call_id] = call
        if call.is_custom and not call.arguments:
            arguments = _INPUT_STARTS + arguments
        if arguments:
            call.arguments.append(arguments)
        if is_named:
            events.append(ToolCallDelta(call.index, call.id, call.name, arguments))
        elif arguments:
            events.append(ToolCallDelta(call.index, arguments=arguments))

    def take_function(self, function: Any, events: list[RunEvent], *, beside: Any) -> None:
        """Take ``function_call``, the older form of ``tool_calls``.

        A server that sends both (``beside``) means the same call.
        """
        if function and not beside:
            self.take({"function": function}, events, "function_call")

    def end(self, events: list[RunEvent], *, is_cut: bool) -> None:
        """Close the input of custom tools at the end of the response.

        If the output was cut, the last call stays open.
        """
        for call in self._calls[: -1 if is_cut else None]:
            if call.is_custom and not call.has_ended:
                call.has_ended = True
                call.arguments.append(_INPUT_ENDS)
                events.append(ToolCallDelta(call.index, arguments=_INPUT_ENDS))

    def add(self, other: ChatCalls, events: list[RunEvent]) -> None:
        """Add the calls of another choice, without calls whose id is known already."""
        ids = {call.id for call in self._calls if call.has_own_id}
        for call in other._calls:
            if not (call.has_own_id and call.id in ids):
                moved = call.moved(len(self._calls))
                self._calls.append(moved)
                check_calls(len(self._calls))
                events.append(ToolCallDelta(moved.index, moved.id, moved.name, moved.text))

    def complete(self, *, is_cut: bool) -> list[ToolCallText]:
        """Return all calls. If the output was cut, the last call may be incomplete."""
        calls = self._calls
        last = calls[-1] if is_cut and calls else None
        return [ToolCallText(call.id, call.name, arguments_or_none(call.text, is_cut=call is last)) for call in calls]

    def parts(self, *, is_cut: bool) -> list[ToolCallPart]:
        """Return the calls with readable arguments as parts of the message."""
        parts = []
        weigh_arguments([call.text for call in self._calls])
        for call, said in zip(self._calls, self.complete(is_cut=is_cut), strict=True):
            arguments = read_arguments(said.arguments)
            if arguments is not None:
                opaque = {"api": API_NAME, "type": "custom"} if call.is_custom else None
                parts.append(ToolCallPart(call.id, call.name, arguments, opaque))
        return parts

    def _find(self, place: Any, call_id: str, name: str, arguments: str) -> GrowingCall | None:
        """Return the call that a fragment continues; None if the fragment starts a new call."""
        if not self._calls:
            return None
        if not call_id and not name and (place is None or place == self._calls[-1].place):
            return self._calls[-1]
        last = self._calls[-1] if place is None else self._by_place.get(key_of(place))
        if last is None:
            # A fragment with arguments alone starts no call, whatever index the vendor gives.
            return None if call_id or name else self._calls[-1]
        if not call_id:
            # No id, but a name and arguments, after complete arguments: this is another call.
            return None if name and arguments.strip() and self._is_whole(last) else last
        same = self._by_id.get((_ANYWHERE if place is None else key_of(place), call_id))
        if same is not None or not name:
            return same or last
        return None if last.has_own_id or self._is_whole(last) else last

    def _is_whole(self, call: GrowingCall) -> bool:
        """Whether a call's arguments are complete. Raises LimitError if repeated checks take too long."""
        if not call.may_be_whole:
            return False
        self._looked_at += sum(map(len, call.arguments))
        if self._looked_at > MAX_LOOKED_AT:
            raise too_large(f"{MAX_LOOKED_AT // MIB} MiB in pieces of tool calls that cannot be told apart")
        return call.is_whole


def _call_fields(fragment: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the object with the call's name and arguments, and whether it is a custom tool."""
    for key in ("function", "custom"):
        if said := object_in(fragment.get(key), f"{key} of a tool call"):
            return said, key == "custom"
    if fragment.get("type") == "custom" and "input" in fragment:
        return fragment, True
    return fragment, False


def _whole_name(known: str, piece: str) -> str:
    """Return the name so far. A vendor may send it in pieces, or repeat it. Raises LimitError if it is too long."""
    name = piece if not piece or piece.startswith(known) else known + piece
    if len(name) > _MAX_NAME:
        raise too_large(f"{_MAX_NAME} characters in the name of a tool")
    return name


def _input(said: dict[str, Any]) -> str:
    """Return a piece of free text, escaped as the inside of a JSON string."""
    text = text_in(said.get("input"), "the input of a custom tool")
    return json_text(text)[1:-1]


def _arguments(value: Any) -> str:
    """Return arguments as text. Some vendors send an object."""
    if isinstance(value, str):
        return value
    return "" if value is None else json_text(value)
