"""Collects one choice of a Chat Completions response: text, reasoning, refusal, tool calls, in the forms of all vendors.

Content that cannot be read is an error. It is never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from headrace.types import ImagePart, Message, Part, ReasoningDelta, ReasoningPart, RefusalDelta, RunEvent, TextPart
from headrace_workers.providers.openai_chat.calls import API_NAME, ChatCalls
from headrace_workers.providers.openai_chat.chunks import ChatDelta
from headrace_workers.providers.openai_chat.made_media import ArrivingAudio, images_in
from headrace_workers.providers.openai_chat.request import REASONING_FIELDS
from headrace_workers.providers.shared.answer_limits import MAX_LOOKED_AT, MIB, check_parts, too_large
from headrace_workers.providers.shared.lenient_json import as_text
from headrace_workers.providers.shared.unread_content import elements_of, object_in, refuse_content, text_in

_TEXT_OF_DETAIL = {"reasoning.text": "text", "reasoning.summary": "summary"}
_PARTS: dict[str, tuple[Literal["text", "reasoning", "refusal"], str]] = {
    "text": ("text", "text"),
    "output_text": ("text", "text"),
    "input_text": ("text", "text"),
    "thinking": ("reasoning", "thinking"),
    "reasoning": ("reasoning", "reasoning"),
    "refusal": ("refusal", "refusal"),
}
"""Type of a content part → the kind of its words, and the key that they stand under."""


_MADE_WHEN_USED: Mapping[str, Callable[[], Any]] = {
    "_audio": ArrivingAudio, "_citations": list, "_detail_words": list, "_details": list, "_images": list, "calls": ChatCalls,
    "reasoning": list, "refusal": list,
}  # fmt: skip


class ChatAnswer:
    """One choice, as far as it has arrived. ``text``, ``reasoning`` and ``refusal`` are lists of pieces.

    Most answers are text. The other parts are made when they are used first: for 500 open streams they would be 0.5 MB.
    """

    __slots__ = (
        "_audio",
        "_citations",
        "_detail_words",
        "_details",
        "_field",
        "_images",
        "_looked_at",
        "calls",
        "has_end",
        "reasoning",
        "refusal",
        "text",
    )
    reasoning: list[str]
    refusal: list[str]
    calls: ChatCalls
    _details: list[dict[str, Any]]
    _detail_words: list[str]  # pieces of the last detail's text
    _citations: list[dict[str, Any]]
    _audio: ArrivingAudio
    _images: list[ImagePart]

    def __init__(self) -> None:
        self.text: list[str] = []
        self.has_end = False  # whether the choice has a finish reason
        self._field = ""  # the key that reasoning came under
        self._looked_at = 0  # characters that were searched for the words of whole messages

    def __getattr__(self, name: str) -> Any:
        """Make a part that is used for the first time."""
        if (make := _MADE_WHEN_USED.get(name)) is None:
            raise AttributeError(f"ChatAnswer has no {name}")
        made = make()
        setattr(self, name, made)
        return made

    @property
    def is_opaque(self) -> bool:
        """Whether the message has data that run events do not carry."""
        has_data = self._field or self._details or self._citations or self.calls.has_custom
        return bool(has_data or self._images or self._audio.has_come)

    def take(self, delta: ChatDelta, events: list[RunEvent], *, is_whole: bool = False) -> None:
        """Take a piece of a message, or a whole message (``is_whole``)."""
        has_reasoning = not (
            delta.reasoning_content is None
            and delta.reasoning is None
            and delta.thinking is None
            and delta.reasoning_details is None
        )
        if has_reasoning:
            self.take_reasoning(delta, events)
        self.take_content(delta.content, events)
        self.take_rest(delta, events, is_whole=is_whole)

    def take_content(self, content: Any, events: list[RunEvent]) -> None:
        """Take content: text, or a list of parts with text, thinking or a refusal."""
        if type(content) is str:
            self._say("text", content, events)
            return
        for part in content if isinstance(content, list) else [content]:
            if not isinstance(part, dict):
                self._say("text", text_in(part, "content"), events)
                continue
            said = _PARTS.get(as_text(part.get("type") or "text"))
            words = None if said is None else _words_of(part, said[1])
            if said is not None and words is not None:
                self._say(said[0], words, events)
            elif part.get("image_url"):
                self._take_images([part])
            else:
                refuse_content({"content": part}, "the message")

    def take_rest(self, delta: ChatDelta, events: list[RunEvent], *, is_whole: bool = False) -> None:
        """Take all fields of a message but content and reasoning."""
        if delta.refusal is not None:
            for piece in delta.refusal if isinstance(delta.refusal, list) else [delta.refusal]:
                words = text_in(piece.get("refusal") if isinstance(piece, dict) else piece, "refusal")
                self._say("refusal", words, events)
        if delta.audio:
            words = self._audio.take(object_in(delta.audio, "audio"))
            if not delta.content:
                self._say("text", words, events)
        if delta.images:
            self._take_images(delta.images)
        if delta.tool_calls is not None:
            for place, fragment in enumerate(_calls_in(delta.tool_calls)):
                self.calls.take(fragment, events, place if is_whole else None)
        if delta.function_call:
            self.calls.take_function(delta.function_call, events, beside=delta.tool_calls)
        if isinstance(delta.annotations, list):
            self._citations += [said for said in delta.annotations if isinstance(said, dict)]

    def _take_images(self, said: Any) -> None:
        self._images += images_in(said)
        check_parts(len(self._images))

    def add(self, other: ChatAnswer, events: list[RunEvent]) -> None:
        """Add the words and calls of another choice that belongs to the same answer."""
        self._say("reasoning", "".join(other.reasoning), events)
        self._say("text", "".join(other.text), events)
        self._say("refusal", "".join(other.refusal), events)
        self._field = self._field or other._field
        self._end_detail()
        other._end_detail()
        self._details += other._details
        self._citations += other._citations
        self._images += other._images
        self._audio = self._audio if self._audio.has_come else other._audio
        self.calls.add(other.calls, events)

    def rest_of(self, whole: ChatDelta, events: list[RunEvent], *, beside: ChatDelta | None) -> None:
        """Take a whole message that follows its pieces: add what the pieces did not have.

        If its words differ from the pieces, the response is an error. ``beside`` is the piece in the same event, if
        any: then the message may still lack words.
        """
        other = ChatAnswer()
        other.take(whole, [], is_whole=True)
        for kind in ("reasoning", "text", "refusal"):
            words = "".join(getattr(other, kind))
            if not words:
                continue
            said = _joined(getattr(self, kind))
            if words.startswith(said):
                self._say(kind, words[len(said) :], events)
            elif beside is None and not self._holds(said, words.strip()):
                refuse_content({"message": {"text": words}}, "the whole message after its pieces")
        self._citations = self._citations or other._citations
        self._images = self._images or other._images
        self._audio = self._audio if self._audio.has_come else other._audio
        if not self.calls:
            self.calls.add(other.calls, events)

    def _holds(self, said: str, words: str) -> bool:
        self._looked_at += len(said)
        if self._looked_at > MAX_LOOKED_AT:
            raise too_large(f"{MAX_LOOKED_AT // MIB} MiB of whole messages after their pieces")
        return words in said

    def message(self, *, is_cut: bool, audio_type: str) -> Message:
        """Return the answer as a message.

        ``is_cut``: the last tool call may be incomplete. ``audio_type``: the type of audio that was asked for.
        """
        parts: list[Part] = []
        opaque: dict[str, Any] = {}
        self._end_detail()
        if self._field:
            opaque["field"] = self._field
        if self._details:
            opaque["reasoning_details"] = self._details
        if self.reasoning or opaque:
            parts.append(ReasoningPart("".join(self.reasoning), opaque or None))
        text = "".join(self.text)
        if text:
            cited = {"api": API_NAME, "annotations": self._citations} if self._citations else None
            parts.append(TextPart(text, cited))
        parts += self._images
        if (audio := self._audio.part(audio_type)) is not None:
            parts.append(audio)
        if self.calls:
            parts += self.calls.parts(is_cut=is_cut)
        is_plain = not parts or (len(parts) == 1 and bool(text) and not self._citations)
        return Message("assistant", text if is_plain else parts)

    def _say(self, kind: str, words: str, events: list[RunEvent]) -> None:
        if not words:
            return
        if kind == "text":
            self.text.append(words)
            events.append(words)
        elif kind == "reasoning":
            self.reasoning.append(words)
            events.append(ReasoningDelta(words))
        else:
            self.refusal.append(words)
            events.append(RefusalDelta(words))

    def take_reasoning(self, delta: ChatDelta, events: list[RunEvent]) -> None:
        """Take reasoning, and the data that the next request must send back with it."""
        said: list[str] = []
        for field in (*REASONING_FIELDS, "thinking"):
            words = "".join(_reasoning_in(getattr(delta, field)))
            # A vendor that sends two of these fields repeats the same words.
            if words and words not in said:
                self._field = self._field or field
                said.append(words)
        self._say("reasoning", "".join(said), events)
        # Details are only sent back. Their words repeat the other fields.
        for detail in elements_of(delta.reasoning_details, "reasoning_details"):
            if object_in(detail, "an element of reasoning_details"):
                self._take_detail(detail)

    def _take_detail(self, detail: dict[str, Any]) -> None:
        """Add a piece of OpenRouter's ``reasoning_details``.

        Text that came in pieces must be sent back in one piece.
        """
        last = self._details[-1] if self._details else {}
        field = _TEXT_OF_DETAIL.get(as_text(detail.get("type")))
        same = all(last.get(key) == detail.get(key) for key in ("type", "index"))
        if not (last and field and same) or (last.get("id") and detail.get("id") not in (None, last["id"])):
            self._end_detail()
            self._details.append(detail)
            return
        # The pieces are joined at the end: to join them each time would take quadratic time.
        if not self._detail_words:
            self._detail_words.append(as_text(last.get(field)))
        self._detail_words.append(as_text(detail.get(field)))
        last.update({key: value for key, value in detail.items() if value is not None and key != field})

    def _end_detail(self) -> None:
        """Join the pieces of the last detail's text."""
        words, self._detail_words = self._detail_words, []
        if words:
            last = self._details[-1]
            last[_TEXT_OF_DETAIL[as_text(last.get("type"))]] = "".join(words)


def _joined(pieces: list[str]) -> str:
    """Join the pieces in place, so that the next call has no work. Return the text."""
    if len(pieces) > 1:
        pieces[:] = ["".join(pieces)]
    return pieces[0] if pieces else ""


def _words_of(part: dict[str, Any], key: str) -> str | None:
    """Return the text of a content part; None if it is not under the key that the part's type has."""
    value = part.get(key)
    if isinstance(value, list):
        words = [_words_of(piece, "text") if isinstance(piece, dict) else text_in(piece, "a part") for piece in value]
        return None if None in words else "".join(word for word in words if word)
    if value is None:
        return None
    return text_in(value, f"{key} in a part of the message")


def _reasoning_in(value: Any) -> Iterator[str]:
    for piece in value if isinstance(value, list) else [value]:
        if isinstance(piece, dict):
            words = _words_of(piece, "text")
            if words is None:
                refuse_content({"reasoning": piece}, "the message")
            yield words or ""
        else:
            yield text_in(piece, "reasoning")


def _calls_in(value: Any) -> list[Any]:
    """Return the elements of ``tool_calls``. Some servers send a single call without the list."""
    return [value] if isinstance(value, dict) and value else list(elements_of(value, "tool_calls"))
