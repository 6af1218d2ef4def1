"""Collects a Gemini answer: its parts in order, each with the signature that must be sent back with it. Pure.

A part with a signature is never joined with other parts: Google takes it back only unchanged.
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.answers.tool_arguments import read_arguments
from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    RunEvent,
    TextPart,
    ToolCallDelta,
    ToolCallPart,
)
from headrace.wire.messages import ToolCallText
from headrace_workers.providers.google.arguments import GrowingArguments
from headrace_workers.providers.google.chunks import Candidate, FunctionCall
from headrace_workers.providers.shared.answer_limits import check_calls, check_parts, weigh_arguments
from headrace_workers.providers.shared.lenient_json import as_text
from headrace_workers.providers.shared.media import joined_base64
from headrace_workers.providers.shared.unread_content import text_in

API_NAME = "google"
"""The value of ``api`` in ``provider_data`` that this format has made."""


class _Call:
    __slots__ = ("growing", "has_grown", "has_own_id", "id", "index", "name", "signature", "text")

    def __init__(self, index: int, said: FunctionCall, signature: str) -> None:
        own_id = as_text(said.id)
        self.index = index
        self.id = own_id or f"call_{index}"
        self.has_own_id = bool(own_id)
        self.name = text_in(said.name, "the name of a function")
        self.signature = signature
        self.text = ""
        self.growing: GrowingArguments | None = None
        self.has_grown = False  # whether its arguments came in pieces

    def goes_on_in(self, said: FunctionCall) -> bool:
        if said.id and self.has_own_id and said.id != self.id:
            return False
        return not said.name or (said.name == self.name and bool(said.partial_args))

    def part(self) -> ToolCallPart | None:
        """Return the call as a message part; None if its arguments are no JSON object: it cannot be sent back."""
        arguments = read_arguments(self.text)
        if arguments is None:
            return None
        return ToolCallPart(self.id, self.name, arguments, opaque(self.signature, self.id if self.has_own_id else ""))


def opaque(signature: str, call_id: str = "") -> dict[str, Any] | None:
    """Return the ``provider_data`` of a part: its signature and its id, for the next request."""
    kept = {"thoughtSignature": signature} if signature else {}
    if call_id:
        kept["id"] = call_id
    return {"api": API_NAME, **kept} if kept else None


class GeminiAnswer:
    """Collects the parts of one answer. ``is_opaque``: the message has data that run events do not carry."""

    __slots__ = ("_calls", "_is_thought", "_open", "_parts", "_run", "_sources", "is_opaque", "keeps_more")

    def __init__(self) -> None:
        self.is_opaque = False
        self.keeps_more = False  # whether something beside text was kept; the mapper sets it back to False
        self._sources: dict[str, Any] = {}
        self._parts: list[Part | _Call] = []
        self._run: list[str] = []  # pieces of text or thoughts without a signature, which become one part
        self._is_thought = False
        self._calls: list[_Call] = []
        self._open: _Call | None = None

    @property
    def has_calls(self) -> bool:
        """Whether the model called a function."""
        return bool(self._calls)

    @property
    def has_text(self) -> bool:
        """Whether the answer has text."""
        is_saying = bool(self._run) and not self._is_thought
        return is_saying or any(isinstance(part, TextPart) and part.text for part in self._parts)

    def say(self, text: str) -> None:
        """Add text."""
        if self._is_thought:
            self._end_run()
        self._run.append(text)

    def think(self, text: str) -> None:
        """Add thoughts."""
        if not self._is_thought:
            self._end_run()
            self._is_thought = True
        self._run.append(text)

    def sign(self, text: str, signature: str, *, is_thought: bool) -> None:
        """Add text or thoughts with a signature, as a part of their own. The text may be empty."""
        self._end_run()
        part = ReasoningPart if is_thought else TextPart
        self._parts.append(part(text, opaque(signature)))
        check_parts(len(self._parts))
        self.is_opaque = self.keeps_more = True

    def keep(self, whole: dict[str, Any]) -> None:
        """Add a part that is neither text nor a call: an image, audio, or data of a server tool."""
        self._end_run()
        check_parts(len(self._parts))
        self._parts.append(_media_of(whole) or ReasoningPart("", {"api": API_NAME, "part": whole}))
        self.is_opaque = self.keeps_more = True

    def cite(self, candidate: Candidate) -> None:
        """Keep the sources of the answer. Later sources replace earlier ones: each list is for the whole answer."""
        said = {
            "groundingMetadata": candidate.grounding_metadata,
            "urlContextMetadata": candidate.url_context_metadata,
            "citationMetadata": candidate.citation_metadata,
        }
        self._sources |= {
            name: value for name, value in said.items() if isinstance(value, dict) and any(value.values())
        }
        self.is_opaque = self.is_opaque or bool(self._sources)
        self.keeps_more = True

    def call(self, said: FunctionCall, signature: str, events: list[RunEvent]) -> None:
        """Add a whole function call, or a piece of one."""
        if self._open is not None:
            if self._open.goes_on_in(said):
                self._grow(self._open, said, events)
                return
            self.close_call(events)
        self.keeps_more = True
        if not (said.name or said.id or said.partial_args or _text(said.args)):
            return
        self._end_run()
        call = _Call(len(self._calls), said, signature)
        self._calls.append(call)
        check_calls(len(self._calls))
        self._parts.append(call)
        self.is_opaque = self.is_opaque or bool(signature) or call.has_own_id
        if said.will_continue or said.partial_args:
            call.growing = GrowingArguments(_text(said.args))
            self._open = call
            events.append(ToolCallDelta(call.index, call.id, call.name))
            self._grow(call, said, events)
            return
        call.text = _text(said.args) or "{}"
        events.append(ToolCallDelta(call.index, call.id, call.name, call.text))

    def close_call(self, events: list[RunEvent], *, is_cut: bool = False) -> None:
        """End the call that arrives in pieces. If it was cut (``is_cut``), its arguments are left without their end."""
        call, self._open = self._open, None
        if call is None or call.growing is None:
            return
        call.text = call.growing.text(is_cut=is_cut)
        call.growing = None
        call.has_grown = True
        events.append(ToolCallDelta(call.index, arguments=call.text))

    def tool_calls(self) -> list[ToolCallText]:
        """Return all function calls."""
        return [ToolCallText(call.id, call.name, call.text) for call in self._calls]

    def message(self, *, is_weighed: bool = False) -> Message:
        """Return the answer as a message.

        ``is_weighed``: all of it came in one body that was weighed already, with the arguments in it.
        """
        self._end_run()
        weigh_arguments([call.text for call in self._calls if call.has_grown or not is_weighed])
        parts: list[Part] = []
        for part in self._parts:
            kept = part.part() if isinstance(part, _Call) else part
            if kept is not None:
                parts.append(kept)
        parts = _joined_samples(parts)
        if self._sources:
            parts.append(ReasoningPart("", {"api": API_NAME, **self._sources}))
        match parts:
            case []:
                return Message("assistant", "")
            case [TextPart(provider_data=None) as only]:
                return Message("assistant", only.text)
            case _:
                return Message("assistant", parts)

    def _grow(self, call: _Call, said: FunctionCall, events: list[RunEvent]) -> None:
        if call.growing is not None:
            call.growing.take(said.partial_args)
        if not said.will_continue:
            self.close_call(events)

    def _end_run(self) -> None:
        if self._run:
            part = ReasoningPart if self._is_thought else TextPart
            self._parts.append(part("".join(self._run)))
            self._run = []
        self._is_thought = False


def _media_of(whole: dict[str, Any]) -> Part | None:
    """Return an image, audio or a file that the model made; None for other parts, and for drafts in its thoughts."""
    if whole.get("thought"):
        return None
    kept = opaque(as_text(whole.get("thoughtSignature")))
    inline, file = whole.get("inlineData"), whole.get("fileData")
    if isinstance(inline, dict) and isinstance(data := inline.get("data"), str) and data:
        media_type = as_text(inline.get("mimeType"))
        if media_type.startswith("image/"):
            return ImagePart(data=data, media_type=media_type, provider_data=kept)
        if media_type.startswith("audio/"):
            return AudioPart(data, media_type, provider_data=kept)
        return FilePart(media_type=media_type or "application/octet-stream", data=data, provider_data=kept)
    if isinstance(file, dict) and (url := as_text(file.get("fileUri"))):
        return FilePart(media_type=as_text(file.get("mimeType")) or None, url=url, provider_data=kept)
    return None


def _joined_samples(parts: list[Part]) -> list[Part]:
    """Return the parts with raw audio samples joined: speech arrives in many pieces of one recording."""
    joined: list[Part] = []
    pieces: list[AudioPart] = []
    for part in parts:
        if (
            isinstance(part, AudioPart)
            and _is_samples(part)
            and (not pieces or pieces[0].media_type == part.media_type)
        ):
            pieces.append(part)
            continue
        joined += _as_one(pieces)
        pieces = []
        joined.append(part)
    return joined + _as_one(pieces)


def _is_samples(part: AudioPart) -> bool:
    kind = (part.media_type or "").lower().partition(";")[0]
    return kind in {"audio/l16", "audio/pcm"} and part.provider_data is None


def _as_one(pieces: list[AudioPart]) -> list[Part]:
    if len(pieces) < 2:  # noqa: PLR2004 - one piece is whole already
        return list(pieces)
    data = joined_base64([piece.data or "" for piece in pieces])
    return [AudioPart(data, pieces[0].media_type)]


def _text(args: msgspec.Raw) -> str:
    text = bytes(args).decode("utf-8", "replace").strip()
    return "" if text == "null" else text
