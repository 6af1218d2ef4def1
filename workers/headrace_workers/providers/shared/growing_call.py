"""A tool call that arrives in pieces, for both wire formats of OpenAI. Its arguments stay text: they are not parsed."""

from __future__ import annotations

from typing import Any

from headrace.answers.tool_arguments import read_arguments, well_formed_text
from headrace_workers.providers.shared.answer_limits import weigh_arguments
from headrace_workers.providers.shared.lenient_json import UNREADABLE, check_json
from headrace_workers.providers.shared.provider_errors import protocol_failure

_MAX_COMPARED = 4
_BLANKS = 1024
"""Characters at the end of the arguments in which the closing brace is looked for."""


def arguments_or_none(text: str, *, is_cut: bool) -> str:
    """Return the arguments of a finished call: ``{}`` where it has none or ``null``.

    Where the output was cut (``is_cut``), missing arguments stay empty: they may only not have arrived.
    """
    said = text.strip()
    if said == "null" or not (said or is_cut):
        return "{}"
    return text


def key_of(place: Any) -> Any:
    """Return a dict key for a place. A server may give anything as an index, also a list, which is not hashable."""
    return place if isinstance(place, (int, float, str)) else (repr(place),)


class GrowingCall:
    """One call as far as it has arrived.

    ``place`` (its index) and ``item_id`` tell it from other calls, if the server sends them.
    """

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
        self.is_custom = False  # a custom tool: its input is text, which becomes the argument ``input``
        self.has_ended = False  # whether the closing quote and brace of ``input`` were added
        self.name = ""
        self.arguments: list[str] = []
        self._compared = 0

    @property
    def text(self) -> str:
        """The arguments so far."""
        return "".join(self.arguments)

    @property
    def may_be_whole(self) -> bool:
        """Whether the arguments end with a closing brace."""
        return bool(self.arguments) and self.arguments[-1][-_BLANKS:].rstrip().endswith("}")

    @property
    def is_whole(self) -> bool:
        """Whether the arguments are a complete JSON object. Takes time in proportion to their length."""
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
        """Take the id and the name from a piece; return whether one of them is new.

        Some vendors repeat both in each piece, so pieces of names are never joined here.
        """
        is_new = False
        if call_id and not self.has_own_id:
            self.id, self.has_own_id, is_new = call_id, True, True
        if name and name != self.name:
            self.name, is_new = name, True
        return is_new

    def moved(self, index: int) -> GrowingCall:
        """Return a copy of the call at another index."""
        moved = GrowingCall(index, self.place, self.item_id)
        moved.identify(self.id if self.has_own_id else "", self.name)
        moved.arguments, moved.is_custom, moved.has_ended = self.arguments, self.is_custom, self.has_ended
        return moved

    def _is_same(self, whole: str, said: str) -> bool:
        """Whether two JSON texts have the same value. After four comparisons the answer is False, to bound the time."""
        self._compared += 1
        if self._compared > _MAX_COMPARED:
            return False
        weigh_arguments([whole, said])
        arguments = read_arguments(whole)
        return arguments is not None and arguments == read_arguments(said)

    def missing(self, whole: str) -> str:
        """Return the rest of the whole arguments, after the pieces that have arrived.

        Raises ProviderFailedError where the whole differs from its pieces: a piece that was sent on cannot be taken
        back.
        """
        self.arguments = [self.text]  # joined once, for many calls of this method
        said = well_formed_text(self.arguments[0])
        if whole.startswith(said):
            return whole[len(said) :]
        if said.startswith(whole) or self._is_same(whole, said):
            return ""
        raise protocol_failure(f"the whole arguments of tool call {self.name!r} differ from their pieces")
