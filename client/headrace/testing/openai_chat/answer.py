"""Simulates OpenAI's Chat Completions API: its errors, and its answers, whole or streamed. Pure.

Another wire format is a module with the same functions, entered in ``simulation.FORMAT_AT_PATH``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from headrace.testing.openai_chat.rules import refusal_of
from headrace.testing.shared.openai_errors import error_of, headers, refused, refused_key, reply_to_refusal
from headrace.testing.shared.reply import Frame, Reply, StreamParts, reply_without_answer, streamed, whole
from headrace.testing.shared.script import Script
from headrace.testing.shared.scripted_answers import CallToMake, SimulatedAnswer, Situation, answer
from headrace.testing.shared.simulated_logprobs import SimulatedLogprob, logprobs_of
from headrace.testing.shared.simulated_media import audio_pieces, image_type

__all__ = ["PATH", "headers", "refused", "refused_body", "refused_key", "reply"]

PATH = "/v1/chat/completions"

_FINGERPRINT = "fp_simulated"
_AUDIO_LIFE = 3600  # seconds that audio of an answer can be named by its id
_ARGUMENTS_FRAGMENT = 6  # characters of a tool call's arguments in one chunk
_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def refused_body(body: object, headers: dict[str, str]) -> Reply | None:  # noqa: ARG001 - as all formats
    """Return the error reply for a body that the real API would refuse; None for a valid body."""
    return reply_to_refusal(refusal_of(body))


def reply(body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
    """Return the reply to a valid request, as the script says."""
    if (other := reply_without_answer(script, error_of(script, script.status))) is not None:
        return other
    said = answer(script, _situation(body))
    envelope = _Envelope(body, script, said, completion_id, created)
    if body.get("stream"):
        parts = StreamParts(
            envelope.opening(),
            envelope.chunks(),
            envelope.closing(),
            _event(error_of(script, 500)),
            usage=envelope.usage,
        )
        return streamed(script, parts)
    return whole(script, envelope.completion(), "".join(said.text), envelope.chunk_count, envelope.usage)


def _situation(body: dict[str, Any]) -> Situation:
    results: list[str] = []
    asked = ""
    for message in reversed(body["messages"]):
        if message["role"] == "user":
            asked = _text_of(message)
            break
        if message["role"] == "tool":
            results.insert(0, _text_of(message))
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or []}
    choice = body.get("tool_choice")
    demanded = choice["function"]["name"] if isinstance(choice, dict) else None
    return Situation(
        last_user_text=asked,
        tool_results=results,
        tools=tools,
        may_call_tools=choice != "none",
        demanded_tool=next(iter(tools)) if choice == "required" else demanded,
        max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
        schema=_schema_of(body.get("response_format") or {}),
    )


def _schema_of(response_format: dict[str, Any]) -> dict[str, Any] | None:
    if response_format.get("type") == "json_object":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    inner = response_format.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else None
    return schema if isinstance(schema, dict) else None


def _text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _event(data: object) -> bytes:
    return b"data: " + _encode(data) + b"\n\n"


class _Envelope:
    """One completion in OpenAI's form: whole, or as the chunks of a stream."""

    def __init__(
        self, body: dict[str, Any], script: Script, said: SimulatedAnswer, completion_id: str, created: int
    ) -> None:
        self._body = body
        self._script = script
        self._said = said
        self._head = {"id": completion_id, "created": created, "model": body["model"]}
        options = body.get("stream_options") or {}
        self._has_usage = bool(options.get("include_usage"))
        self._is_padded = script.obfuscation and options.get("include_obfuscation", True)
        self._audio_pieces = [] if script.audio is None else audio_pieces(script.audio)
        self.chunk_count = len(said.text) + len(said.reasoning) + len(said.refusal)
        self.chunk_count += len(script.images) + len(self._audio_pieces)
        self._finish_reason = script.finish_reason or _finish_reason(said)

    def opening(self) -> list[Frame]:
        content = None if self._said.tool_calls and not self._said.text else ""
        return [(self._choice_event({"role": "assistant", "content": content, "refusal": None}), "", 0)]

    def chunks(self) -> Iterator[Frame]:
        yield from self._text_chunks("reasoning_content")
        yield from self._text_chunks("content") if self._script.audio is None else self._audio_chunks()
        yield from self._text_chunks("refusal")
        for place, image in enumerate(self._script.images):
            yield self._choice_event({"images": [_image(image, place)]}), "", 1
        for index, call in enumerate(self._said.tool_calls):
            for delta in self._call_deltas(index, call):
                yield self._choice_event({"tool_calls": [delta]}), "", 1

    def closing(self) -> list[Frame]:
        frames = [(self._choice_event({}, self._finish_reason), "", 0)]
        if self._has_usage and not self._script.omit_usage:
            head = self._head | {"object": "chat.completion.chunk", "service_tier": "default"}
            frames.append((_event(head | {"choices": [], "usage": self.usage()}), "", 0))
        if not self._script.omit_done:
            frames.append((b"data: [DONE]\n\n", "", 0))
        return frames

    def completion(self) -> dict[str, Any]:
        """Return the whole completion, for a request without ``stream``."""
        said = self._said
        text = "".join(said.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": None if (said.tool_calls or said.refusal) and not text else text,
            "refusal": "".join(said.refusal) or None,
            "annotations": [],
        }
        if self._script.audio is not None:
            message |= {"content": None, "audio": self._audio(data=self._script.audio, transcript=text)}
        if self._script.images:
            message["images"] = [_image(image, place) for place, image in enumerate(self._script.images)]
        if said.reasoning:
            message["reasoning_content"] = "".join(said.reasoning)
        if said.tool_calls:
            message["tool_calls"] = [self._whole_call(index, call) for index, call in enumerate(said.tool_calls)]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._finish_reason}
        if self._body.get("logprobs"):
            told = {
                field: self._logprobs(pieces) for field, pieces in (("content", said.text), ("refusal", said.refusal))
            }
            choice["logprobs"] = {
                field: [one.for_openai() for one in tokens] if tokens else None for field, tokens in told.items()
            }
        usage = {} if self._script.omit_usage else {"usage": self.usage()}
        tail = {"service_tier": "default", "system_fingerprint": _FINGERPRINT}
        return self._head | {"object": "chat.completion", "choices": [choice]} | usage | tail

    def _text_chunks(self, field: str) -> Iterator[Frame]:
        # The hot path of the benchmarks: everything but the text is encoded once per stream.
        before, _, after = self._choice_event({field: "\0"}, pad="").rpartition(b'"\\u0000"')
        is_content = field == "content"
        deltas = {"content": self._said.text, "reasoning_content": self._said.reasoning}.get(field, self._said.refusal)
        has_logprobs = bool(self._body.get("logprobs")) and field in {"content", "refusal"}
        tokens = self._logprobs(deltas) if has_logprobs else None
        if self._is_padded or tokens is not None:
            for number, delta in enumerate(deltas):
                pad = _padding(delta, number) if self._is_padded else ""
                told = (
                    None if tokens is None else {"content": None, "refusal": None, field: [tokens[number].for_openai()]}
                )
                yield self._choice_event({field: delta}, pad=pad, logprobs=told), delta if is_content else "", 1
            return
        for delta in deltas:
            yield before + _encode(delta) + after, delta if is_content else "", 1

    def _audio_chunks(self) -> Iterator[Frame]:
        """Yield audio as OpenAI does: its words, then its data."""
        for delta in self._said.text:
            yield self._choice_event({"audio": {"id": self._audio()["id"], "transcript": delta}}), delta, 1
        for piece in self._audio_pieces:
            yield self._choice_event({"audio": self._audio(data=piece)}), "", 1

    def _audio(self, **fields: str) -> dict[str, Any]:
        own_id = "audio_" + hashlib.sha256(str(self._head["id"]).encode()).hexdigest()[:24]
        return {"id": own_id, "expires_at": int(self._head["created"]) + _AUDIO_LIFE, **fields}

    def _logprobs(self, pieces: Sequence[str]) -> list[SimulatedLogprob]:
        return logprobs_of(self._script, pieces, self._body.get("top_logprobs") or 0)

    def _choice_event(
        self,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        pad: str | None = None,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        chunk = {
            "id": self._head["id"],
            "object": "chat.completion.chunk",
            "created": self._head["created"],
            "model": self._head["model"],
            "service_tier": "default",
            "system_fingerprint": _FINGERPRINT,
            "choices": [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}],
        }
        if self._has_usage:
            chunk["usage"] = None
        if self._is_padded and pad != "":
            chunk["obfuscation"] = pad or _padding("", 0)
        return _event(chunk)

    def _call_id(self, index: int, call: CallToMake) -> str:
        return call.id or "call_" + hashlib.sha256(f"{self._head['id']}{index}".encode()).hexdigest()[:24]

    def _call_deltas(self, index: int, call: CallToMake) -> Iterator[dict[str, Any]]:
        function = {"name": call.name, "arguments": ""}
        yield {"index": index, "id": self._call_id(index, call), "type": "function", "function": function}
        for start in range(0, len(call.arguments), _ARGUMENTS_FRAGMENT):
            yield {"index": index, "function": {"arguments": call.arguments[start : start + _ARGUMENTS_FRAGMENT]}}

    def _whole_call(self, index: int, call: CallToMake) -> dict[str, Any]:
        function = {"name": call.name, "arguments": call.arguments}
        return {"id": self._call_id(index, call), "type": "function", "function": function}

    def usage(self) -> dict[str, Any]:
        """Return the counted tokens, or those of the script."""
        if self._script.usage is not None:
            return self._script.usage
        prompt = max(len(_encode([self._body["messages"], self._body.get("tools")])) // 4, 1)
        arguments = sum(len(call.arguments) // 4 + 8 for call in self._said.tool_calls)
        output = self.chunk_count + arguments
        output_details = {"reasoning_tokens": len(self._said.reasoning), "audio_tokens": 0}
        output_details |= {"accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0}
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": output_details,
        }


def _image(data: str, place: int) -> dict[str, Any]:
    url = f"data:{image_type(data)};base64,{data}"
    return {"type": "image_url", "index": place, "image_url": {"url": url}}


def _finish_reason(said: SimulatedAnswer) -> str:
    if said.tool_calls:
        return "tool_calls"
    return "length" if said.is_shortened else "stop"


def _padding(delta: str, number: int) -> str:
    # OpenAI pads each chunk, so that its size does not show the length of its text.
    digest = hashlib.sha256(f"{number}{delta}".encode()).hexdigest()
    return digest[: max(16 - len(delta), 1)]
