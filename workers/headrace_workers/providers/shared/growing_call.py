"""A tool call that arrives in pieces: what OpenAI's two wire formats know of one. Never parses its arguments; they stay text."""

from __future__ import annotations

from typing import Any

from headrace.answers.tool_arguments import read_arguments, well_formed_text
from headrace_workers.providers.shared.answer_limits import weigh_arguments
from headrace_workers.providers.shared.lenient_json import UNREADABLE, check_json
from headrace_workers.providers.shared.provider_errors import protocol_failure

_MAX_COMPARED = 4
_BLANKS = 1024
"""Characters in which the end of an object is looked for."""


def arguments_or_none(text: str, *, is_cut: bool) -> str:
    """Return a call's arguments; a call without any takes none, unless the output was cut before they came.

    Some servers send ``null`` for a call without arguments.
    """
    said = text.strip()
    if said == "null" or not (said or is_cut):
        return "{}"
    return text


def key_of(place: Any) -> Any:
    """Return what tells a place from others: whatever a server gives for an index, equal places have equal keys."""
    return place if isinstance(place, (int, float, str)) else (repr(place),)


class GrowingCall:
    """One call so far. ``place`` and ``item_id`` are what the server tells it from others by, where it says either."""

    __slots__ = (
        "_compared",
        "arguments",
        "has_ended",
        "has_own_id",
        "id",
        "index",
        "is_custom",
        "item_id",
        "name",
        "place",
    )

    def __init__(self, index: int, place: Any, item_id: str = "") -> None:
        self.index = index
        self.place = place
        self.item_id = item_id
        self.id = f"call_{index}"
        self.has_own_id = False
        self.is_custom = False  # its input is text, which stands in the arguments as ``input``
        self.has_ended = False  # whether the end of that text was added
        self.name = ""
        self.arguments: list[str] = []
        self._compared = 0

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.arguments)

    @property
    def may_be_whole(self) -> bool:
        """Whether the arguments end as an object does."""
        return bool(self.arguments) and self.arguments[-1][-_BLANKS:].rstrip().endswith("}")

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete object; to look costs as much as they are long."""
        if not self.may_be_whole:
            return False
        text = self.text
        self.arguments = [text]
        try:
            check_json(text)
        except UNREADABLE:
            return False
        return text.lstrip().startswith("{")

    def identify(self, call_id: str, name: str) -> bool:
        """Set what a piece says, and return whether that is new. Some vendors repeat both in each piece: never join."""
        is_new = False
        if call_id and not self.has_own_id:
            self.id, self.has_own_id, is_new = call_id, True, True
        if name and name != self.name:
            self.name, is_new = name, True
        return is_new

    def moved(self, index: int) -> GrowingCall:
        """Return the same call at another index."""
        moved = GrowingCall(index, self.place, self.item_id)
        moved.identify(self.id if self.has_own_id else "", self.name)
        moved.arguments, moved.is_custom, moved.has_ended = self.arguments, self.is_custom, self.has_ended
        return moved

    def _is_same(self, whole: str, said: str) -> bool:
        """Whether two texts say the same arguments. Servers repeat them once or twice, and not in ever new forms."""
        self._compared += 1
        if self._compared > _MAX_COMPARED:
            return False
        weigh_arguments([whole, said])
        arguments = read_arguments(whole)
        return arguments is not None and arguments == read_arguments(said)

    def missing(self, whole: str) -> str:
        """Return what has not come yet of the whole arguments. What has come is never taken back.

        Raises ProviderFailedError where the whole says other arguments than its pieces.
        """
        self.arguments = [self.text]  # asked for again and again, they are put together once
        said = well_formed_text(self.arguments[0])
        if whole.startswith(said):
            return whole[len(said) :]
        if said.startswith(whole) or self._is_same(whole, said):
            return ""
        raise protocol_failure(f"the whole arguments of tool call {self.name!r} are others than their pieces were")
