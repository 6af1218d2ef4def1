"""Builds the conversation of a Gemini request: alternating turns of user and model, and the system's text apart. Pure.

Data from Google is sent back unchanged: signatures, and ids of calls that had one. A call that another provider's model
made has no signature; Gemini 3 and later take a fixed word in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, ToolCallPart
from headrace_workers.providers.google.answer import API_NAME
from headrace_workers.providers.google.media_contents import media_part, result_part
from headrace_workers.providers.shared.extra_keys import ExtraKeys, Place
from headrace_workers.providers.shared.lenient_json import UNREADABLE
from headrace_workers.providers.shared.media import is_left_out, with_files_as_text
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.request_parts import parts_of, word_for

_RESOLUTION = ("mediaResolution", "media_resolution")
_VIDEO = ("videoMetadata", "video_metadata")
KEYS = ExtraKeys(
    "Google",
    {
        "audio": _RESOLUTION,
        "file": {*_RESOLUTION, *_VIDEO},
        "image": {"thoughtSignature", *_RESOLUTION, *_VIDEO},
        "tool": {"behavior", "response", "responseJsonSchema", "response_json_schema"},
        "function": {"behavior", "response", "responseJsonSchema", "response_json_schema"},
    },
    {
        "cache_control": "it caches by itself; for a cache of your own, custom_options takes cachedContent",
        "prompt_cache_breakpoint": "it caches by itself; for a cache of your own, custom_options takes cachedContent",
        "detail": "use mediaResolution instead",
    },
)
"""Extra keys that the API takes."""

FOREIGN_CALL_SIGNATURE = "skip_thought_signature_validator"
_WITHOUT_SIGNATURES = ("gemini-1", "gemini-2", "gemma")
_SYSTEM = ("system", "developer")


def system_instruction_of(messages: Sequence[Message]) -> dict[str, Any] | None:
    """Return the text of all system and developer messages; None if there is none."""
    parts: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        if message.role in _SYSTEM:
            KEYS.of_message(f"messages[{index}]", message)
            parts += [{"text": text} for text in _texts(f"messages[{index}]", message) if text]
    return {"parts": parts} if parts else None


def contents_of(messages: Sequence[Message], model: str) -> list[dict[str, Any]]:
    """Return all other messages as turns."""
    contents = _Contents(needs_signatures=not model.removeprefix("models/").startswith(_WITHOUT_SIGNATURES))
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        KEYS.of_message(where, message)
        match message.role:
            case "assistant":
                contents.model_said(where, message)
            case "tool":
                contents.tool_said(where, message)
            case "user":
                contents.user_said(where, message)
            case _:
                pass
    return contents.done()


class _Contents:
    """Builds the turns. Several messages of one side in a row become one turn."""

    def __init__(self, *, needs_signatures: bool) -> None:
        self._needs_signatures = needs_signatures
        self._turns: list[dict[str, Any]] = []
        self._calls: dict[str, ToolCallPart] = {}  # id → the latest call with this id
        self._asked: list[str] = []  # ids of the calls in the last turn, in their order
        self._results: list[tuple[int, dict[str, Any]]] = []

    def model_said(self, where: str, message: Message) -> None:
        self._flush_results()
        said = [(index, part) for index, part in enumerate(parts_of(message)) if not is_left_out(part, message)]
        sent = [_model_part(f"{where}.content[{index}]", part) for index, part in said]
        parts = [part for part in sent if part is not None]
        calls = [part for part in parts if "functionCall" in part]
        if calls and self._needs_signatures and not any(_is_google_s(call) for call in message.tool_calls):
            calls[0]["thoughtSignature"] = FOREIGN_CALL_SIGNATURE
        self._add("model", parts)
        self._asked = [call.id for call in message.tool_calls]
        self._calls |= {call.id: call for call in message.tool_calls}

    def user_said(self, where: str, message: Message) -> None:
        self._flush_results()
        parts = [_user_part(f"{where}.content[{index}]", part) for index, part in enumerate(parts_of(message))]
        self._add("user", [part for part in parts if part != {"text": ""}] or [{"text": ""}])

    def tool_said(self, where: str, message: Message) -> None:
        message = with_files_as_text(message)
        call_id = message.tool_call_id or ""
        call = self._calls.get(call_id)
        name = message.tool_name or (call.name if call else "")
        if not name:
            raise request_failure(
                "a message with role tool needs tool_name, or tool_call_id of a call that was made", where
            )
        media = _media_results(where, message, takes_media=self._needs_signatures)
        response: dict[str, Any] = {"name": name, "response": _result(message)}
        if media:
            response["parts"] = media
        own_id = _kept(call.provider_data, "id") if call else ""
        if own_id:
            response["id"] = own_id
        # Without ids, Google matches results with calls by their order.
        place = self._asked.index(call_id) if call_id in self._asked else len(self._asked)
        self._results.append((place, {"functionResponse": response}))

    def done(self) -> list[dict[str, Any]]:
        self._flush_results()
        return self._turns

    def _flush_results(self) -> None:
        results = sorted(self._results, key=lambda result: result[0])
        self._results = []
        self._add("user", [part for _, part in results])

    def _add(self, role: str, parts: list[dict[str, Any]]) -> None:
        if not parts:
            return
        if self._turns and self._turns[-1]["role"] == role:
            self._turns[-1]["parts"].extend(parts)
        else:
            self._turns.append({"role": role, "parts": parts})


def _texts(where: str, message: Message) -> list[str]:
    message = with_files_as_text(message)
    for index, part in enumerate(parts_of(message)):
        if not isinstance(part, TextPart):
            raise request_failure(f"a message with role {message.role} can hold only text", f"{where}.content[{index}]")
        KEYS.of("text", f"{where}.content[{index}]", part.extra)
    return [part.text for part in parts_of(message) if isinstance(part, TextPart)]


def _model_part(where: str, part: Part) -> dict[str, Any] | None:
    """Return a part of the model's turn; None for a part that Google has no use for."""
    match part:
        case TextPart():
            KEYS.of("text", where, part.extra)
            signed = _signed({"text": part.text}, part.provider_data)
            return None if signed == {"text": ""} else signed
        case ReasoningPart():
            KEYS.of("reasoning", where, part.extra)
            if own := _whole_part(part):
                return own
            # Google has no use for thoughts without its signature. Thoughts of other models are not sent to Google.
            if not _kept(part.provider_data, "thoughtSignature"):
                return None
            return _signed({"text": part.text, "thought": True}, part.provider_data)
        case ToolCallPart():
            KEYS.of("tool call", where, part.extra)
            call: dict[str, Any] = {"name": part.name, "args": part.arguments}
            own_id = _kept(part.provider_data, "id")
            if own_id:
                call["id"] = own_id
            return _signed({"functionCall": call}, part.provider_data)
        case ImagePart() | AudioPart() | FilePart():
            return _signed(_media(where, part), part.provider_data)


def _whole_part(part: ReasoningPart) -> dict[str, Any] | None:
    """Return a part that was kept as it arrived, such as code that Google ran; None for other parts."""
    said = part.provider_data or {}
    whole = said.get("part") if said.get("api") == API_NAME else None
    return dict(whole) if isinstance(whole, dict) else None


def _is_google_s(call: ToolCallPart) -> bool:
    return (call.provider_data or {}).get("api") == API_NAME


def _user_part(where: str, part: Part) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"text": part.text} | KEYS.of("text", where, part.extra)
        case ImagePart() | AudioPart() | FilePart():
            return _media(where, part)
        case _:
            raise request_failure(f"a message with role user cannot hold {word_for(part)}", where)


def _media(where: str, part: ImagePart | AudioPart | FilePart) -> dict[str, Any]:
    place: Place = "image" if isinstance(part, ImagePart) else "audio" if isinstance(part, AudioPart) else "file"
    return media_part(where, part) | KEYS.of(place, where, part.extra)


def _signed(sent: dict[str, Any], provider_data: dict[str, Any] | None) -> dict[str, Any]:
    signature = _kept(provider_data, "thoughtSignature")
    return sent | {"thoughtSignature": signature} if signature else sent


def _kept(provider_data: dict[str, Any] | None, key: str) -> str:
    """Return a text from a part's ``provider_data``, if it came from Google; else an empty text."""
    if not provider_data or provider_data.get("api") != API_NAME:
        return ""
    value = provider_data.get(key)
    return value if isinstance(value, str) else ""


def _media_results(where: str, message: Message, *, takes_media: bool) -> list[dict[str, Any]]:
    """Return the images and files of a tool's result, which Gemini 3 and later take beside the text."""
    media: list[dict[str, Any]] = []
    for index, part in enumerate(parts_of(message)):
        at = f"{where}.content[{index}]"
        match part:
            case TextPart():
                KEYS.of("text", at, part.extra)
            case ImagePart() | AudioPart() | FilePart():
                media.append(result_part(at, part, takes_media=takes_media))
            case _:
                raise request_failure(f"a message with role tool cannot hold {word_for(part)}", at)
    return media


def _result(message: Message) -> dict[str, Any]:
    """Return the result of a tool as an object, which Google needs.

    Text that is no JSON object is put under ``result``.
    """
    parts = parts_of(message)
    texts = [part.text for part in parts if isinstance(part, TextPart)]
    if parts and not texts:
        return {}
    text = "".join(texts)
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        return {"result": text}
