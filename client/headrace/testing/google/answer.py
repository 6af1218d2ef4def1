"""Simulates Gemini's ``generateContent`` and ``streamGenerateContent``: errors and answers. Pure.

Google's paths have the API version, the model and the method, so ``simulation`` looks them up by :func:`endpoint`.
``reasoning`` of a script becomes thoughts, with a signature on the last part of the answer. ``refusal`` becomes text
with the finish reason SAFETY. Arguments that are no JSON object have the finish reason MALFORMED_FUNCTION_CALL, because
Google parses them itself. ``omit_done`` has no effect.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import msgspec

from headrace.testing.google.gemini_models import refusal_by
from headrace.testing.google.rules import camel, refusal_of, signature_of
from headrace.testing.shared import continuation
from headrace.testing.shared.reply import Frame, Reply, StreamParts, json_reply, reply_without_answer, streamed, whole
from headrace.testing.shared.script import Script
from headrace.testing.shared.scripted_answers import CallToMake, SimulatedAnswer, Situation, answer
from headrace.testing.shared.simulated_logprobs import SimulatedLogprob, logprobs_of
from headrace.testing.shared.simulated_media import SAMPLES, audio_pieces, audio_type, image_type

_PATH = re.compile(
    r"/(?P<version>v1|v1beta|v1alpha)/models/(?P<model>[^/:]+):(?P<method>generateContent|streamGenerateContent)"
)
_KEY = re.compile(r"sk-(?!invalid)")
_HEADERS = {
    "server-timing": "gfet4t7; dur=12",
    "vary": "Origin, X-Origin, Referer",
    "x-content-type-options": "nosniff",
}
_WORDS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_OVERLOADED = 503
_BLANK = b"\r\n\r\n"

_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def endpoint(path: str, query: str = "") -> Endpoint | None:
    """Return the endpoint at this path; None if the path is not Google's."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    is_stream = match["method"] == "streamGenerateContent"
    return Endpoint(match["version"], match["model"], is_stream=is_stream, has_events="alt=sse" in query.split("&"))


def error_body(message: str, status: int, word: str | None = None) -> dict[str, Any]:
    """Return the body of an error in Google's form."""
    word = word or _WORDS.get(status) or ("INTERNAL" if status >= 500 else "FAILED_PRECONDITION")  # noqa: PLR2004
    return {"error": {"code": status, "message": message, "status": word}}


class Endpoint:
    """The wire format at the path of one model, whole or streamed. Without ``alt=sse`` a stream is one JSON array."""

    def __init__(self, version: str, model: str, *, is_stream: bool, has_events: bool) -> None:
        self._version = version
        self._model = model
        self._is_stream = is_stream
        self._has_events = has_events

    def headers(self, request_id: str) -> dict[str, str]:  # noqa: ARG002 - Google names no request
        """Return the headers of each response."""
        return _HEADERS

    def refused_key(self, headers: dict[str, str]) -> Reply | None:
        """Return the error reply for a missing or wrong API key; None for a valid key."""
        key = headers.get("x-goog-api-key", "").strip()
        if not key:
            message = "Method doesn't allow unregistered callers (callers without established identity). Please use API Key or other form of API identity to call this API."
            return self.refused(403, message)
        if not _KEY.match(key):
            body = error_body("API key not valid. Please pass a valid API key.", 400)
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            body["error"]["details"] = [info | {"domain": "googleapis.com"}]
            return json_reply(body, 400)
        return None

    def refused(self, status: int, message: str, param: str | None = None, code: str | None = None) -> Reply:  # noqa: ARG002
        """Return an error reply for a request that no API takes: wrong method, JSON or ``simulate`` field."""
        return json_reply(error_body(message, status, code if code and code.isupper() else None), status)

    def refused_body(self, body: object, headers: dict[str, str]) -> Reply | None:  # noqa: ARG002 - as all formats
        """Return the error reply for a body that the real API would refuse; None for a valid body."""
        if self._model == "no-such-model":
            message = f"models/{self._model} is not found for API version {self._version}, or is not supported for generateContent. Call ListModels to see the list of available models and their supported methods."
            return self.refused(404, message)
        refusal = refusal_of(body, self._model)
        if refusal is None and isinstance(body, dict):
            refusal = refusal_by(self._model, body)
        return None if refusal is None else self.refused(refusal.status, refusal.message, code=refusal.word)

    def reply(self, body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:  # noqa: ARG002
        """Return the reply to a valid request, as the script says."""
        if (other := reply_without_answer(script, _error_of(script, script.status))) is not None:
            return other
        body = camel(body)
        response = _Response(self._model, body, script, answer(script, _situation(body)), completion_id)
        if not self._is_stream:
            return whole(script, response.whole(), response.text, response.chunk_count, response.usage)
        if not self._has_events:
            return whole(script, response.array(), response.text, response.chunk_count, response.usage)
        # In a stream, Google sends an error as lines of JSON, and not as an event.
        failing = msgspec.json.format(_encode(_error_of(script, _OVERLOADED))).replace(b"\n", b"\r\n") + b"\r\n"
        garbage, comment = b"data: {not json" + _BLANK, b": keep-alive" + _BLANK
        parts = StreamParts([], response.chunks(), response.closing(), failing, garbage, comment, response.usage)
        return streamed(script, parts)


def _error_of(script: Script, status: int) -> dict[str, Any]:
    message = script.error_message or f"Simulated error with status {status}."
    return script.error_body or error_body(message, status, script.error_code)


def _situation(body: dict[str, Any]) -> Situation:
    results: list[str] = []
    asked = ""
    for content in reversed(body["contents"]):
        parts = [camel(part, "contents.parts") for part in content["parts"]]
        if content.get("role") == "model":
            continue
        results[:0] = [_result_of(part["functionResponse"]) for part in parts if "functionResponse" in part]
        asked = "".join(part.get("text", "") for part in parts)
        if asked:
            break
    calling = camel(body.get("toolConfig", {}), "tool_config").get("functionCallingConfig", {})
    calling = camel(calling, "function_calling_config")
    tools = _tools(body)
    allowed = calling.get("allowedFunctionNames") or list(tools)
    generation = camel(body.get("generationConfig", {}), "generation_config")
    return Situation(
        last_user_text=asked,
        tool_results=results,
        tools=tools,
        may_call_tools=calling.get("mode") != "NONE",
        demanded_tool=allowed[0] if calling.get("mode") == "ANY" else None,
        max_tokens=generation.get("maxOutputTokens"),
        schema=_schema_of(generation),
    )


def _schema_of(generation: dict[str, Any]) -> dict[str, Any] | None:
    schema = generation.get("responseJsonSchema") or _lower_case(generation.get("responseSchema"))
    if isinstance(schema, dict) and schema:
        return schema
    is_json = generation.get("responseMimeType") == "application/json"
    return {"type": "object", "additionalProperties": {"type": "string"}} if is_json else None


def _lower_case(schema: Any) -> Any:
    """Return a schema in Google's subset of OpenAPI as a JSON schema: its types are upper case, with ``nullable``."""
    if isinstance(schema, list):
        return [_lower_case(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {word: _lower_case(value) for word, value in schema.items() if word != "nullable"}
    if isinstance(schema.get("type"), str):
        kind = schema["type"].lower()
        changed["type"] = [kind, "null"] if schema.get("nullable") else kind
    return changed


def _tools(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    declarations = [
        camel(declaration, "function_declarations")
        for tool in body.get("tools") or []
        for declaration in camel(tool, "tools").get("functionDeclarations", [])
    ]
    return {one["name"]: one.get("parametersJsonSchema") or one.get("parameters") or {} for one in declarations}


def _result_of(response: dict[str, Any]) -> str:
    said = response.get("response") or {}
    text = said.get("result", said.get("output"))
    return text if isinstance(text, str) else _encode(said).decode()


class _Response:
    """One answer in Google's form, or the part of it between two continuations."""

    def __init__(
        self, model: str, body: dict[str, Any], script: Script, said: SimulatedAnswer, completion_id: str
    ) -> None:
        self._script = script
        self._said = said
        self._tail = {
            "modelVersion": model,
            "responseId": hashlib.sha256(completion_id.encode()).hexdigest()[:22],
        }
        self._start = continuation.position_of(body.get("continuationToken"))
        prompt = [body["contents"], body.get("systemInstruction"), body.get("tools")]
        self._prompt_tokens = max(len(_encode(prompt)) // 4, 1)
        generation = camel(body.get("generationConfig", {}), "generation_config")
        self._top_logprobs: int | None = generation.get("logprobs", 0) if generation.get("responseLogprobs") else None
        self._calls, self._is_malformed = _calls(said)
        self._media = _media_parts(script)
        self._spoken = len(said.reasoning) + len(said.text) + len(said.refusal) + len(self._media)
        self._pieces = self._spoken + len(self._calls)
        stop = None if script.continue_after is None else self._start + script.continue_after
        self._stop = self._pieces if stop is None else min(stop, self._pieces)
        self.chunk_count = max(self._stop - self._start, 0)

    @property
    def text(self) -> str:
        """The text of this part of the answer."""
        return "".join(text for _, text, _ in self.chunks())

    def chunks(self) -> Iterator[Frame]:
        return islice(self._all_chunks(), self._start, self._stop)

    def closing(self) -> list[Frame]:
        return [(_event(self._closing()), "", 0)]

    def array(self) -> list[msgspec.Raw]:
        """Return the responses of the stream as one array."""
        frames = [*self.chunks(), *self.closing()]
        return [msgspec.Raw(data.removeprefix(b"data: ")) for data, _, _ in frames]

    def whole(self) -> dict[str, Any]:
        """Return the reply of ``generateContent``: one response, with all text in one part and all thoughts in another."""
        parts: list[dict[str, Any]] = []
        told: dict[str, list[Any]] = {"chosenCandidates": [], "topCandidates": []}
        closing = self._closing()
        candidate = closing["candidates"][0]
        for data, _, _ in self.chunks():
            piece = msgspec.json.decode(data.removeprefix(b"data: "))["candidates"][0]
            for name, tokens in piece.get("logprobsResult", {}).items():
                told[name] += tokens
            (part,) = piece["content"]["parts"]
            last = parts[-1] if parts else {}
            if "text" in part and "text" in last and part.get("thought") == last.get("thought"):
                last["text"] += part["text"]
            else:
                parts.append(part)
        parts += [part for part in candidate["content"]["parts"] if part != {"text": ""} or not parts]
        candidate["content"] = {"parts": parts, "role": "model"}
        if self._top_logprobs is not None:
            candidate["logprobsResult"] = told
        return closing

    def _all_chunks(self) -> Iterator[Frame]:
        said = self._said
        yield from self._text_chunks(said.reasoning, 0, is_thought=True)
        yield from self._text_chunks([*said.text, *said.refusal], len(said.reasoning))
        count = self._spoken
        for place, media in enumerate(self._media):
            yield _event(self._response([media], count - len(self._media) + place + 1)), "", 1
        for place, (call, args) in enumerate(self._calls):
            function = {"name": call.name, "args": args} | ({"id": call.id} if call.id else {})
            part: dict[str, Any] = {"functionCall": function}
            if not place:
                part["thoughtSignature"] = signature_of(call.name, args)
            yield _event(self._response([part], count + place + 1)), "", 1

    def _text_chunks(self, deltas: Sequence[str], before: int, *, is_thought: bool = False) -> Iterator[Frame]:
        if self._top_logprobs is not None and not is_thought:
            for count, one in enumerate(logprobs_of(self._script, deltas, self._top_logprobs), before + 1):
                delta = deltas[count - before - 1]
                yield _event(self._response([{"text": delta}], count, logprobsResult=_logprobs_result(one))), delta, 1
            return
        # The hot path of the benchmarks: everything but the text and the usage is encoded once per stream.
        part = {"text": "\0", "thought": True} if is_thought else {"text": "\0"}
        usage = {} if self._script.omit_usage else {"usageMetadata": "\1"}
        candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
        head, _, rest = _event({"candidates": [candidate]} | usage | self._tail).partition(b'"\\u0000"')
        middle, _, tail = rest.partition(b'"\\u0001"')
        for count, delta in enumerate(deltas, before + 1):
            figures = b"" if self._script.omit_usage else _encode(self._usage(count))
            yield head + _encode(delta) + middle + figures + tail, "" if is_thought else delta, 1

    def _response(self, parts: list[dict[str, Any]], count: int, **candidate: Any) -> dict[str, Any]:
        said = {"content": {"parts": parts, "role": "model"}, **candidate, "index": 0}
        usage = {} if self._script.omit_usage else {"usageMetadata": self._usage(count)}
        return {"candidates": [said]} | usage | self._tail

    def _closing(self) -> dict[str, Any]:
        if self._stop < self._pieces:
            token = continuation.token(self._script, self._stop)
            last = self._response([{"text": ""}], self._stop, finishReason="CONTINUATION", continuationToken=token)
        else:
            part = {"text": ""}
            if self._said.reasoning and not self._calls:
                part["thoughtSignature"] = signature_of("text", "")
            last = self._response([part], self._stop, finishReason=self._script.finish_reason or self._finish_reason())
            if self._script.usage is not None and not self._script.omit_usage:
                last["usageMetadata"] = self._script.usage
        return last

    def _finish_reason(self) -> str:
        if self._is_malformed:
            return "MALFORMED_FUNCTION_CALL"
        if self._said.refusal:
            return "SAFETY"
        return "MAX_TOKENS" if self._said.is_shortened else "STOP"

    def usage(self) -> dict[str, Any]:
        """Return the counted tokens, or those of the script."""
        return self._usage(self._stop) if self._script.usage is None else self._script.usage

    def _usage(self, count: int) -> dict[str, Any]:
        """Return the usage after ``count`` pieces of the whole answer. Pieces of earlier requests are not counted."""
        thoughts = len(self._said.reasoning)
        thought = max(min(count, thoughts) - self._start, 0)
        output = max(count - max(self._start, thoughts), 0)
        usage = {"promptTokenCount": self._prompt_tokens}
        if output:
            usage["candidatesTokenCount"] = output
        usage["totalTokenCount"] = self._prompt_tokens + thought + output
        if thought:
            usage["thoughtsTokenCount"] = thought
        return usage


def _media_parts(script: Script) -> list[dict[str, Any]]:
    """Return the images, each with its signature, and the audio, samples in several pieces."""
    parts: list[dict[str, Any]] = [
        {
            "inlineData": {"mimeType": image_type(image), "data": image},
            "thoughtSignature": signature_of("media", image),
        }
        for image in script.images
    ]
    if script.audio is not None:
        kind = audio_type(script.audio)
        pieces = audio_pieces(script.audio) if kind == SAMPLES else [script.audio]
        parts += [{"inlineData": {"mimeType": kind, "data": piece}} for piece in pieces]
    return parts


def _logprobs_result(one: SimulatedLogprob) -> dict[str, Any]:
    top = [_candidate(token, logprob) for token, logprob in one.top]
    chosen = _candidate(one.token, one.logprob)
    return {"chosenCandidates": [chosen], "topCandidates": [{"candidates": top}] if top else [{}]}


def _candidate(token: str, logprob: float) -> dict[str, Any]:
    """Return a token in Google's form. As in all JSON for protocol buffers, a zero is left out."""
    return {"token": token, "tokenId": len(token)} | ({"logProbability": logprob} if logprob else {})


def _calls(said: SimulatedAnswer) -> tuple[list[tuple[CallToMake, dict[str, Any]]], bool]:
    """Return the calls before the first malformed call, with their arguments; and whether there is a malformed call."""
    calls: list[tuple[CallToMake, dict[str, Any]]] = []
    for call in said.tool_calls:
        try:
            calls.append((call, msgspec.json.decode(call.arguments, type=dict[str, Any])))
        except msgspec.DecodeError:
            return calls, True
    return calls, False


def _event(data: object) -> bytes:
    return b"data: " + _encode(data) + _BLANK
