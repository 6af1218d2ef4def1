"""Makes the answer of the simulated model, from a script or from the request; the same for all wire formats. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from headrace.testing.shared.schema_instances import NoInstanceError, instance_of
from headrace.testing.shared.script import Script

_SHORT = """\
The river came down from the hills before dawn, quiet and cold, and the miller opened the sluice by one hand's width. \
Water found the old channel, turned the wheel, and the stones began to speak. By breakfast there was flour on every sill, \
and the baker's boy was already waiting at the gate with his cart and his two patient dogs."""

_LONG = (
    _SHORT
    + """

Nobody in the village could say who had dug the channel. It was there when the first houses were built, straight as a ruled \
line through the meadow, and it carried exactly as much water as the wheel could use. When the spring floods came, the \
surplus ran over a low stone lip and back to the river; when the summer was dry, the miller walked the bank with a spade \
and a sandwich, clearing weed, and the wheel kept turning.

One year a young engineer came to measure it. She stayed a week, filled a notebook, and on the last evening sat on the \
lip with her boots in the stream. "It is not the wheel that is clever," she told the miller. "It is the channel. It takes \
what the river gives, holds back what the wheel cannot use, and never lets the one wait for the other." The miller nodded. \
He had known that all along, but it was pleasant to hear it said."""
)

_JSON_PIECE = 8  # characters of a JSON answer in one chunk
_WORD = re.compile(r"\s*\S+\s*?(?=\s|$)|\s+$")


class CallToMake(msgspec.Struct, frozen=True):
    """A tool call of the answer. ``arguments`` is the text to stream."""

    name: str
    arguments: str
    id: str | None = None


class SimulatedAnswer(msgspec.Struct, frozen=True):
    """An answer, as pieces. ``is_shortened``: it was cut at the limit of tokens."""

    text: Sequence[str] = ()
    reasoning: Sequence[str] = ()
    refusal: Sequence[str] = ()
    tool_calls: Sequence[CallToMake] = ()
    is_shortened: bool = False


class Situation(msgspec.Struct, frozen=True):
    """The facts of a request that an answer depends on, in no wire format.

    ``tools``: name → JSON schema. ``demanded_tool`` is the tool that must be called. ``tool_results`` are the results
    since the last user message. ``schema`` is the JSON schema that the answer must fit.
    """

    last_user_text: str = ""
    tool_results: Sequence[str] = ()
    tools: dict[str, dict[str, Any]] = {}
    may_call_tools: bool = True
    demanded_tool: str | None = None
    max_tokens: int | None = None
    schema: dict[str, Any] | None = None


def words(text: str) -> list[str]:
    """Split text into words, whose join is the same text."""
    return _WORD.findall(text)


@lru_cache(maxsize=8)
def numbered(count: int) -> tuple[str, ...]:
    """Return ``count`` different pieces: ``"0 "``, ``"1 "``, and so on."""
    return tuple(f"{number} " for number in range(count))


def answer(script: Script, situation: Situation) -> SimulatedAnswer:
    """Return the answer to a request."""
    calls = _scripted_calls(script) if script.calls_again or not situation.tool_results else ()
    reasoning, refusal = words(script.reasoning), words(script.refusal)
    text = _scripted_text(script)
    if text is None and not calls and not refusal and not script.images and script.audio is None:
        return msgspec.structs.replace(_unscripted(situation), reasoning=reasoning)
    return SimulatedAnswer(text=text or (), reasoning=reasoning, refusal=refusal, tool_calls=calls)


def _scripted_text(script: Script) -> Sequence[str] | None:
    if script.chunks is not None:
        return script.chunks
    if script.repeat is not None:
        return numbered(script.repeat)
    return None if script.text is None else words(script.text)


def _scripted_calls(script: Script) -> tuple[CallToMake, ...]:
    return tuple(
        CallToMake(
            call.name,
            call.arguments if isinstance(call.arguments, str) else msgspec.json.encode(call.arguments).decode(),
            call.id,
        )
        for call in script.tool_calls
    )


def _unscripted(situation: Situation) -> SimulatedAnswer:
    if not situation.tool_results and (name := _tool_to_call(situation)) is not None:
        arguments = msgspec.json.encode(_arguments_for(situation.tools[name])).decode()
        return SimulatedAnswer(tool_calls=(CallToMake(name, arguments),))
    if situation.schema is not None and (text := _json_text(situation.schema)) is not None:
        pieces = [text[start : start + _JSON_PIECE] for start in range(0, len(text), _JSON_PIECE)]
        return _cut_at_limit(pieces, situation)
    if situation.tool_results:
        return _shortened(f"The tool answered: {'; '.join(situation.tool_results)}. That is all I know.", situation)
    wants_long = re.search("essay|story", situation.last_user_text, re.IGNORECASE)
    return _shortened(_LONG if wants_long else _SHORT, situation)


def _tool_to_call(situation: Situation) -> str | None:
    if situation.demanded_tool is not None:
        return situation.demanded_tool
    if not situation.may_call_tools or "weather" not in situation.last_user_text.lower():
        return None
    return next((name for name, schema in situation.tools.items() if _has_location(schema)), None)


def _arguments_for(schema: dict[str, Any]) -> dict[str, Any]:
    """Return arguments for a tool: Tokyo for ``location``, and what is required."""
    try:
        value = instance_of(schema)
    except NoInstanceError:
        value = None
    required = schema.get("required", [])
    arguments = {key: part for key, part in value.items() if key in required} if isinstance(value, dict) else {}
    return arguments | {"location": "Tokyo"} if _has_location(schema) else arguments


def _json_text(schema: dict[str, Any]) -> str | None:
    """Return an instance of the schema as JSON; None if none was found: then the answer is a usual text."""
    try:
        return msgspec.json.encode(instance_of(schema)).decode()
    except NoInstanceError:
        return None


def _has_location(schema: dict[str, Any]) -> bool:
    properties = schema.get("properties")
    return isinstance(properties, dict) and "location" in properties


def _shortened(text: str, situation: Situation) -> SimulatedAnswer:
    return _cut_at_limit(words(text), situation)


def _cut_at_limit(deltas: list[str], situation: Situation) -> SimulatedAnswer:
    limit = situation.max_tokens
    if limit is None or len(deltas) <= limit:
        return SimulatedAnswer(text=deltas)
    return SimulatedAnswer(text=deltas[:limit], is_shortened=True)
