"""Simulates Anthropic's Messages API: its errors, and its answers, whole or streamed. Pure.

``reasoning`` of a script becomes a signed thinking block. ``refusal`` becomes the explanation of the stop reason
``refusal``. ``error_code`` becomes the error's type if Anthropic has such a type, else the ``error_code`` in its
details. ``omit_done`` leaves out ``message_stop``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from headrace.testing.anthropic.rules import refusal_of
from headrace.testing.anthropic.turns import signature_of, thought_mark, turns_of
from headrace.testing.shared.reply import Frame, Reply, StreamParts, json_reply, reply_without_answer, streamed, whole
from headrace.testing.shared.script import Script
from headrace.testing.shared.scripted_answers import CallToMake, SimulatedAnswer, Situation, answer
from headrace.testing.shared.server_steps import sealed_block

PATH = "/v1/messages"

_INPUT_FRAGMENT = 6  # characters of a tool call's input in one chunk
_PADDING = 16  # the largest number of spaces that hide the length of a chunk's text
_HEADERS = {"anthropic-organization-id": "simulated"}
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_OVERLOADED = 529
_DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
    "server_tool_use": ("input_json_delta", "partial_json"),
    "mcp_tool_use": ("input_json_delta", "partial_json"),
}

_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def error_body(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """Return the body of an error in Anthropic's form."""
    details = None if code is None else {"error_code": code}
    return {"type": "error", "error": {"type": kind, "message": message, "details": details}}


def headers(request_id: str) -> dict[str, str]:
    """Return the headers of each response."""
    return _HEADERS | {"request-id": request_id}


def refused_key(headers: dict[str, str]) -> Reply | None:
    """Return the 401 reply for a missing or wrong API key; None for a valid key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    key = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
    if not key:
        return json_reply(error_body("x-api-key header is required", "authentication_error"), 401)
    if not key.startswith("sk-") or key.startswith("sk-invalid"):
        return json_reply(error_body("invalid x-api-key", "authentication_error"), 401)
    return None


def refused(status: int, message: str, param: str | None = None, code: str | None = None) -> Reply:  # noqa: ARG001
    """Return an error reply for a request that no API takes: wrong method, JSON or ``simulate`` field."""
    return json_reply(error_body(message, _ERROR_TYPES.get(status, "invalid_request_error"), code), status)


def refused_body(body: object, headers: dict[str, str]) -> Reply | None:
    """Return the error reply for a body that the real API would refuse; None for a valid body."""
    refusal = refusal_of(body, headers.get("anthropic-version"))
    if refusal is not None:
        return refused(refusal.status, refusal.message)
    asks_mcp = isinstance(body, dict) and body.get("mcp_servers")
    if asks_mcp and "mcp-client-" not in headers.get("anthropic-beta", ""):
        return refused(400, "mcp_servers: Extra inputs are not permitted")
    return None


def reply(body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:  # noqa: ARG001 - as all formats
    """Return the reply to a valid request, as the script says."""
    if (other := reply_without_answer(script, _error_of(script, script.status))) is not None:
        return other
    said = answer(script, _situation(body))
    envelope = _Envelope(body, script, said, f"msg_01{hashlib.sha256(completion_id.encode()).hexdigest()[:22]}")
    if body.get("stream"):
        failing = _event("error", _error_of(script, _OVERLOADED))
        parts = StreamParts(envelope.opening(), envelope.chunks(), envelope.closing(), failing, usage=envelope.usage)
        return streamed(script, parts)
    return whole(script, envelope.message(), "".join(said.text), envelope.chunk_count, envelope.usage)


def _error_of(script: Script, status: int) -> dict[str, Any]:
    kind = _ERROR_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")  # noqa: PLR2004
    code = script.error_code
    if code in _ERROR_TYPES.values():
        kind, code = str(code), None
    message = script.error_message or ("Overloaded" if kind == "overloaded_error" else f"Simulated {kind}.")
    return script.error_body or error_body(message, kind, code)


def _situation(body: dict[str, Any]) -> Situation:
    results: list[str] = []
    asked = ""
    for role, blocks in reversed(turns_of(body["messages"])):
        if role == "user":
            asked = "".join(block["text"] for block in blocks if block["type"] == "text")
            if asked:
                break
            results[:0] = [_result_of(block) for block in blocks if block["type"] == "tool_result"]
    choice = body.get("tool_choice") or {}
    tools = {tool.get("name", ""): tool.get("input_schema") or {} for tool in body.get("tools") or []}
    demanded = choice.get("name")
    if choice.get("type") == "any":
        called = _called_tools(body["messages"])
        demanded = next((name for name in tools if name not in called), next(iter(tools)))
        if demanded not in called:
            results = []  # the model has to call a tool, with a result as without one
    return Situation(
        last_user_text=asked,
        tool_results=results,
        tools=tools,
        may_call_tools=choice.get("type") != "none",
        demanded_tool=demanded,
        max_tokens=body["max_tokens"],
        schema=_required_first(((body.get("output_config") or {}).get("format") or {}).get("schema")),
    )


def _required_first(schema: Any) -> Any:
    """Return a schema with the properties of each object in the order of Anthropic's answers: required ones first."""
    if isinstance(schema, list):
        return [_required_first(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {word: _required_first(part) for word, part in schema.items()}
    if isinstance(found.get("properties"), dict):
        required = found.get("required", [])
        found["properties"] = dict(sorted(found["properties"].items(), key=lambda item: item[0] not in required))
    return found


def _called_tools(messages: list[dict[str, Any]]) -> set[str]:
    blocks = [block for role, blocks in turns_of(messages) if role == "assistant" for block in blocks]
    return {block["name"] for block in blocks if block["type"] == "tool_use"}


def _result_of(block: dict[str, Any]) -> str:
    content = block.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))


class _Envelope:
    """One message in Anthropic's form: whole, or as the events of a stream.

    Each frame of :meth:`chunks` is one chunk, so the events that open and close a block are in the frames next to them.
    """

    def __init__(self, body: dict[str, Any], script: Script, said: SimulatedAnswer, message_id: str) -> None:
        self._body = body
        self._script = script
        self._said = said
        self._id = message_id
        self.chunk_count = len(said.text) + len(said.reasoning)
        is_omitted = (body.get("thinking") or {}).get("display") == "omitted"
        self._thinking = [] if is_omitted else said.reasoning
        self._signature = signature_of("".join(self._thinking)) if said.reasoning else ""
        self._stop_reason = script.finish_reason or _stop_reason(said)
        self._steps = [sealed_block(step) for step in script.server_steps]
        self._blocks = list(self._plan())
        self._citations = self._citations_by_block()

    def _plan(self) -> Iterator[tuple[dict[str, Any], Sequence[str]]]:
        """Yield each block as it is at its start, with its pieces."""
        if self._said.reasoning:
            yield {"type": "thinking", "thinking": "", "signature": ""}, self._thinking
        for step in self._steps:
            yield _begun(step), _pieces_of(step)
        if self._said.text:
            yield {"type": "text", "text": ""}, self._said.text
        for index, call in enumerate(self._said.tool_calls):
            block = {"type": "tool_use", "id": self._call_id(index, call), "name": call.name, "input": {}}
            yield block, _fragments(call.arguments)

    def _citations_by_block(self) -> dict[int, list[dict[str, Any]]]:
        first = 1 if self._said.reasoning else 0
        return {first + place: step.get("citations") or [] for place, step in enumerate(self._steps)}

    def opening(self) -> list[Frame]:
        usage = {} if self._script.omit_usage else {"usage": self.usage() | {"output_tokens": 1}}
        empty = self._head() | {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
        start = _event("message_start", {"type": "message_start", "message": empty | usage})
        return [(start + _event("ping", {"type": "ping"}), "", 0)]

    def chunks(self) -> Iterator[Frame]:
        for index, (block, pieces) in enumerate(self._blocks):
            start = {"type": "content_block_start", "index": index, "content_block": block}
            before = self._stop(index - 1) + _event("content_block_start", start)
            yield from self._pieces(index, before, block["type"], pieces)

    def closing(self) -> list[Frame]:
        delta = self._ending()
        usage = {} if self._script.omit_usage else {"usage": self.usage()}
        end = self._stop(len(self._blocks) - 1) + _event(
            "message_delta", {"type": "message_delta", "delta": delta} | usage
        )
        frames = [(end, "", 0)]
        if not self._script.omit_done:
            frames.append((_event("message_stop", {"type": "message_stop"}), "", 0))
        return frames

    def message(self) -> dict[str, Any]:
        """Return the whole message, for a request without ``stream``."""
        content: list[dict[str, Any]] = []
        if self._said.reasoning:
            text = "".join(self._thinking)
            content.append({"type": "thinking", "thinking": text, "signature": self._signature})
        content += self._steps
        if self._said.text:
            content.append({"type": "text", "text": "".join(self._said.text)})
        for index, call in enumerate(self._said.tool_calls):
            block = {"type": "tool_use", "id": self._call_id(index, call), "name": call.name}
            content.append(block | {"input": _decoded(call.arguments)})
        usage = {} if self._script.omit_usage else {"usage": self.usage()}
        return self._head() | {"content": content} | self._ending() | usage

    def _ending(self) -> dict[str, Any]:
        """Return the fields that a message has at its end."""
        end = {"stop_reason": self._stop_reason, "stop_sequence": None, "stop_details": self._stop_details()}
        if self._script.container is not None:
            end["container"] = {"id": self._script.container, "expires_at": "2026-12-31T00:00:00Z"}
        return end

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._body["model"]}

    def _stop(self, index: int) -> bytes:
        """Return the events that close a block."""
        if index < 0:
            return b""
        signature = {"type": "signature_delta", "signature": self._signature}
        signed = self._delta(signature, index) if self._blocks[index][0]["type"] == "thinking" else b""
        for citation in self._citations.get(index, ()):
            signed += self._delta({"type": "citations_delta", "citation": citation}, index)
        return signed + _event("content_block_stop", {"type": "content_block_stop", "index": index})

    def _delta(self, delta: dict[str, Any], index: int) -> bytes:
        return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})

    def _pieces(self, index: int, opening: bytes, kind: str, pieces: Sequence[str]) -> Iterator[Frame]:
        if kind not in _DELTAS:
            yield opening, "", 1
            return
        # The hot path of the benchmarks: everything but the text is encoded once per block.
        delta_kind, field = _DELTAS[kind]
        delta = self._delta({"type": delta_kind, field: "\0"}, index)
        before, _, after = delta.rpartition(b'"\\u0000"')
        is_text, is_padded = kind == "text", self._script.obfuscation
        for piece in pieces:
            tail = _padded(after, piece) if is_padded else after
            yield opening + before + _encode(piece) + tail, piece if is_text else "", 1
            opening = b""
        if not pieces:
            yield opening, "", 1

    def _call_id(self, index: int, call: CallToMake) -> str:
        if call.id:
            return call.id
        own = hashlib.sha256(f"{self._id}{index}".encode()).hexdigest()[:12]
        return f"toolu_{thought_mark(self._signature)}{own}" if self._signature else f"toolu_01{own}"

    def _stop_details(self) -> dict[str, Any] | None:
        if self._stop_reason != "refusal":
            return None
        return {"type": "refusal", "category": None, "explanation": "".join(self._said.refusal) or None}

    def usage(self) -> dict[str, Any]:
        """Return the counted tokens, or those of the script."""
        if self._script.usage is not None:
            return self._script.usage
        prompt = max(len(_encode([self._body["messages"], self._body.get("tools")])) // 4, 1)
        arguments = sum(len(call.arguments) // 4 + 8 for call in self._said.tool_calls)
        searches = sum(step.get("name") == "web_search" for step in self._steps)
        own = {"server_tool_use": {"web_search_requests": searches}} if self._steps else {}
        return own | {
            "input_tokens": prompt,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": self.chunk_count + arguments,
            "output_tokens_details": {"thinking_tokens": len(self._said.reasoning)},
        }


def _stop_reason(said: SimulatedAnswer) -> str:
    if said.refusal:
        return "refusal"
    if said.tool_calls:
        return "tool_use"
    return "max_tokens" if said.is_shortened else "end_turn"


def _begun(step: dict[str, Any]) -> dict[str, Any]:
    """Return a server step as its block is at its start: empty if its content comes in pieces, else whole."""
    if step["type"] == "text":
        return step | {"text": "", "citations": []}
    return step | {"input": {}} if step["type"] in _DELTAS else step


def _pieces_of(step: dict[str, Any]) -> Sequence[str]:
    if step["type"] == "text":
        return [step["text"]]
    return _fragments(_encode(step["input"]).decode()) if step["type"] in _DELTAS else []


def _fragments(arguments: str) -> list[str]:
    starts = range(0, len(arguments), _INPUT_FRAGMENT)
    return ["", *(arguments[at : at + _INPUT_FRAGMENT] for at in starts)]


def _decoded(arguments: str) -> Any:
    """Return a call's input for a whole message. Text that is no JSON stays text."""
    try:
        return msgspec.json.decode(arguments)
    except msgspec.DecodeError:
        return arguments


def _padded(after: bytes, piece: str) -> bytes:
    # Anthropic puts spaces into the JSON, so that the size of a chunk does not show the length of its text.
    head, brace, tail = after.rpartition(b"}")
    return head + b" " * max(_PADDING - len(piece), 1) + brace + tail
