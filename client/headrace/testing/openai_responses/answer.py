"""Simulates OpenAI's Responses API: its errors, and its answers, whole or streamed. Pure.

The API has no ``[DONE]``, so ``omit_done`` has no effect. A scripted ``finish_reason`` other than ``completed`` becomes
the reason why the response is incomplete.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import msgspec

from headrace.testing.openai_responses.items import call_id, encrypted, item_id, kind_of, reasoning_id
from headrace.testing.openai_responses.rules import refusal_of
from headrace.testing.shared.openai_errors import error_body, error_of, headers, refused, refused_key, reply_to_refusal
from headrace.testing.shared.reply import Frame, Reply, StreamParts, reply_without_answer, streamed, whole
from headrace.testing.shared.script import Script
from headrace.testing.shared.scripted_answers import CallToMake, SimulatedAnswer, Situation, answer
from headrace.testing.shared.server_steps import ITEM_PREFIXES, sealed_item
from headrace.testing.shared.simulated_logprobs import logprobs_of
from headrace.testing.shared.simulated_media import image_type

__all__ = ["PATH", "headers", "refused", "refused_body", "refused_key", "reply", "response_head"]

PATH = "/v1/responses"

_LOGPROBS = "message.output_text.logprobs"
_ARGUMENTS_FRAGMENT = 6  # characters of a tool call's arguments in one chunk

Event = dict[str, Any]

_encode: Callable[[object], bytes] = msgspec.json.Encoder().encode


def refused_body(body: object, headers: dict[str, str]) -> Reply | None:  # noqa: ARG001 - as all formats
    """Return the error reply for a body that the real API would refuse; None for a valid body."""
    return reply_to_refusal(refusal_of(body))


def reply(body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
    """Return the reply to a valid request, as the script says."""
    if (other := reply_without_answer(script, error_of(script, script.status))) is not None:
        return other
    envelope = _Envelope(body, script, answer(script, _situation(body)), completion_id, created)
    if body.get("stream"):
        parts = StreamParts(
            envelope.opening(), envelope.chunks(), envelope.closing(), envelope.error(), usage=envelope.usage
        )
        return streamed(script, parts)
    return whole(script, envelope.response(), "".join(envelope.said.text), envelope.chunk_count, envelope.usage)


def response_head(
    body: dict[str, Any], response_id: str, created: int, status: str, reason: str | None = None
) -> dict[str, Any]:
    """Return a response without output and usage. ``reason``: why it is incomplete."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if status == "incomplete" else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": body["model"],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "previous_response_id": None,
        "reasoning": body.get("reasoning") or {"effort": None, "summary": None},
        "service_tier": "default",
        "store": body.get("store", True),
        "temperature": body.get("temperature", 1.0),
        "text": body.get("text") or {"format": {"type": "text"}},
        "tool_choice": body.get("tool_choice") or "auto",
        "tools": body.get("tools") or [],
        "top_logprobs": body.get("top_logprobs") or 0,
        "top_p": body.get("top_p", 1.0),
        "truncation": "disabled",
        "metadata": body.get("metadata") or {},
    }


def _situation(body: dict[str, Any]) -> Situation:
    sent = body["input"]
    items = [{"role": "user", "content": sent}] if isinstance(sent, str) else sent
    results: list[str] = []
    asked = ""
    for item in reversed(items):
        if item.get("role") == "user":
            asked = _text_of(item["content"])
            break
        if kind_of(item) == "function_call_output":
            results.insert(0, _text_of(item["output"]))
    tools = {tool["name"]: tool.get("parameters") or {} for tool in body.get("tools") or [] if "name" in tool}
    choice = body.get("tool_choice")
    demanded = choice.get("name") if isinstance(choice, dict) else None
    return Situation(
        last_user_text=asked,
        tool_results=results,
        tools=tools,
        may_call_tools=choice != "none",
        demanded_tool=next(iter(tools)) if choice == "required" else demanded,
        max_tokens=body.get("max_output_tokens"),
        schema=_schema_of((body.get("text") or {}).get("format") or {}),
    )


def _schema_of(text_format: dict[str, Any]) -> dict[str, Any] | None:
    if text_format.get("type") == "json_object":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    schema = text_format.get("schema")
    return schema if isinstance(schema, dict) else None


def _text_of(content: str | list[dict[str, Any]]) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class _Section(msgspec.Struct, frozen=True, kw_only=True):
    """Deltas of one kind, with the events before and after them.

    ``logprobs`` has one element for each delta, or none. ``number`` is the sequence number of the first event.
    """

    number: int
    opening: list[Event]
    delta: Event
    deltas: Sequence[str]
    logprobs: Sequence[dict[str, Any]] = ()
    closing: list[Event]
    is_text: bool = False
    is_call: bool = False

    @property
    def end(self) -> int:
        return self.number + len(self.opening) + len(self.deltas) + len(self.closing)

    @property
    def is_silent(self) -> bool:
        """Whether no event of the section counts as a chunk."""
        return not self.deltas and not self.is_call


class _Envelope:
    """One response in the form of the Responses API: whole, or as the events of a stream."""

    def __init__(
        self, body: dict[str, Any], script: Script, said: SimulatedAnswer, completion_id: str, created: int
    ) -> None:
        self.said = said
        self._body = body
        self._script = script
        self._seed = completion_id
        self._created = created
        self._reason = _incomplete_reason(script, said)
        self._reasoning = "".join(said.reasoning)
        has_logprobs = _LOGPROBS in (body.get("include") or ())
        top = body.get("top_logprobs") or 0
        self._logprobs = logprobs_of(script, said.text, top) if has_logprobs else []
        options = body.get("stream_options") or {}
        self._is_padded = script.obfuscation and options.get("include_obfuscation", True)
        self.chunk_count = len(said.text) + len(said.reasoning) + len(said.refusal)
        self._items = self._all_items()
        self._sections = self._all_sections()

    def opening(self) -> list[Frame]:
        head = self._head("in_progress") | {"output": [], "usage": None}
        events = [{"type": f"response.{kind}", "response": head} for kind in ("created", "in_progress")]
        return [(_framed(events, 0), "", 0)]

    def chunks(self) -> Iterator[Frame]:
        pending = b""
        for section in self._sections:
            pending += _framed(section.opening, section.number)
            if section.is_call:
                yield pending, "", 1
                pending = b""
            for data, text in self._deltas(section):
                yield pending + data, text, 1
                pending = b""
            pending += _framed(section.closing, section.end - len(section.closing))

    def closing(self) -> list[Frame]:
        silent = list(takewhile(lambda section: section.is_silent, reversed(self._sections)))[::-1]
        spoken = self._sections[: len(self._sections) - len(silent)]
        frame = _framed(spoken[-1].closing, spoken[-1].end - len(spoken[-1].closing)) if spoken else b""
        for section in silent:
            frame += _framed(section.opening, section.number)
            frame += _framed(section.closing, section.end - len(section.closing))
        last = self._sections[-1]
        kind = "response.incomplete" if self._reason else "response.completed"
        return [(frame + _framed([{"type": kind, "response": self.response()}], last.end), "", 0)]

    def error(self) -> bytes:
        """Return the events that end a stream with an error: the error, and the response as failed."""
        code = self._script.error_code or "server_error"
        message = self._script.error_message or "The model produced invalid content."
        body = self._script.error_body or error_body(message, code, code=code)
        failed = self._head("failed") | {"error": {"code": code, "message": message}, "output": [], "usage": None}
        events: list[Event] = [{"type": "error", **body}, {"type": "response.failed", "response": failed}]
        return _framed(events, self._sections[-1].end)

    def response(self) -> dict[str, Any]:
        """Return the whole response."""
        status = "incomplete" if self._reason else "completed"
        usage = None if self._script.omit_usage else self.usage()
        return self._head(status) | {"output": self._items, "usage": usage}

    def _head(self, status: str) -> dict[str, Any]:
        return response_head(self._body, f"resp_{_digest(self._seed)}", self._created, status, self._reason)

    def _all_items(self) -> list[dict[str, Any]]:
        said, items = self.said, []
        if said.reasoning:
            items.append(
                {
                    "id": reasoning_id(self._reasoning),
                    "type": "reasoning",
                    "encrypted_content": encrypted(self._reasoning),
                    "summary": [{"type": "summary_text", "text": self._reasoning}],
                }
            )
        items += [sealed_item(step) for step in self._script.server_steps]
        items += [sealed_item(_image_step(image)) for image in self._script.images]
        if said.text or said.refusal or not (said.tool_calls or self._script.images):
            items.append(self._message())
        items += [self._call(index, call) for index, call in enumerate(said.tool_calls)]
        return items

    def _message(self) -> dict[str, Any]:
        said, content = self.said, []
        if said.text or not said.refusal:
            logprobs = [one.for_openai() for one in self._logprobs]
            content.append({"type": "output_text", "annotations": [], "logprobs": logprobs, "text": "".join(said.text)})
        if said.refusal:
            content.append({"type": "refusal", "refusal": "".join(said.refusal)})
        status = "incomplete" if self._reason else "completed"
        own_id = item_id("msg", self._reasoning, self._seed)
        return {"id": own_id, "type": "message", "status": status, "content": content, "role": "assistant"}

    def _call(self, index: int, call: CallToMake) -> dict[str, Any]:
        seed = f"{self._seed}{index}"
        return {
            "id": item_id("fc", self._reasoning, seed),
            "type": "function_call",
            "status": "incomplete" if self._reason else "completed",
            "arguments": call.arguments,
            "call_id": call.id or call_id(self._reasoning, seed),
            "name": call.name,
        }

    def _all_sections(self) -> list[_Section]:
        sections: list[_Section] = []
        number = 2  # after the events created and in_progress
        for place, item in enumerate(self._items):
            for section in self._sections_of(item, place, number):
                sections.append(section)
                number = section.end
        return sections

    def _sections_of(self, item: dict[str, Any], place: int, number: int) -> Iterator[_Section]:
        begun: list[Event] = [_event("output_item.added", output_index=place, item=_begun(item))]
        done: list[Event] = [_event("output_item.done", output_index=place, item=item)]
        at = {"item_id": item["id"], "output_index": place}
        match item["type"]:
            case "reasoning":
                part = item["summary"][0]
                yield self._part_section("reasoning_summary", {**at, "summary_index": 0}, part, number, begun, done)
            case "message":
                last = len(item["content"]) - 1
                for index, part in enumerate(item["content"]):
                    where = {**at, "content_index": index}
                    opening, closing = begun if index == 0 else [], done if index == last else []
                    section = self._part_section("content", where, part, number, opening, closing)
                    number = section.end
                    yield section
            case kind if kind in ITEM_PREFIXES:
                steps: list[Event] = [_event(f"{kind}.{word}", **at) for word in ("in_progress", "completed")]
                never = _event(f"{kind}.delta")
                yield _Section(number=number, opening=begun, delta=never, deltas=(), closing=[*steps, *done])
            case _:
                arguments = item["arguments"]
                starts = range(0, len(arguments), _ARGUMENTS_FRAGMENT)
                yield _Section(
                    number=number,
                    opening=begun,
                    delta=_event("function_call_arguments.delta", **at),
                    deltas=[arguments[start : start + _ARGUMENTS_FRAGMENT] for start in starts],
                    closing=[_event("function_call_arguments.done", **at, arguments=arguments), *done],
                    is_call=True,
                )

    def _part_section(
        self, kind: str, at: Event, part: Event, number: int, begun: list[Event], done: list[Event]
    ) -> _Section:
        is_text, is_refusal = part["type"] == "output_text", part["type"] == "refusal"
        word = {"output_text": "output_text", "refusal": "refusal"}.get(part["type"], "reasoning_summary_text")
        field = "refusal" if is_refusal else "text"
        logprobs = [one.for_openai(has_bytes=False) for one in self._logprobs] if is_text else []
        more: Event = {"logprobs": []} if is_text else {}
        return _Section(
            number=number,
            opening=[*begun, _event(f"{kind}_part.added", **at, part=part | {field: ""} | more)],
            delta=_event(f"{word}.delta", **at, **more),
            deltas=self.said.text if is_text else self.said.refusal if is_refusal else self.said.reasoning,
            logprobs=logprobs,
            closing=[
                _event(f"{word}.done", **at, **(more and {"logprobs": logprobs}), **{field: part[field]}),
                _event(f"{kind}_part.done", **at, part=part),
                *done,
            ],
            is_text=is_text,
        )

    def _deltas(self, section: _Section) -> Iterator[tuple[bytes, str]]:
        if section.logprobs:
            yield from self._deltas_with_logprobs(section)
            return
        # The hot path of the benchmarks: everything but the text and the number is encoded once per section.
        before, _, after = _framed([section.delta | {"delta": "\0"}], None).rpartition(b'"\\u0000"')
        after = after.removesuffix(b"}\n\n")
        for number, delta in enumerate(section.deltas, section.number + len(section.opening)):
            pad = b',"obfuscation":' + _encode(_padding(delta, number)) if self._is_padded else b""
            data = b'%b%b%b%b,"sequence_number":%d}\n\n' % (before, _encode(delta), after, pad, number)
            yield data, delta if section.is_text else ""

    def _deltas_with_logprobs(self, section: _Section) -> Iterator[tuple[bytes, str]]:
        start = section.number + len(section.opening)
        for number, (delta, logprob) in enumerate(zip(section.deltas, section.logprobs, strict=True), start):
            event = section.delta | {"delta": delta, "logprobs": [logprob]}
            if self._is_padded:
                event["obfuscation"] = _padding(delta, number)
            yield _framed([event], number), delta

    def usage(self) -> dict[str, Any]:
        """Return the counted tokens, or those of the script."""
        if self._script.usage is not None:
            return self._script.usage
        prompt = max(len(_encode([self._body["input"], self._body.get("tools")])) // 4, 1)
        output = self.chunk_count + sum(len(call.arguments) // 4 + 8 for call in self.said.tool_calls)
        return {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": output,
            "output_tokens_details": {"reasoning_tokens": len(self.said.reasoning)},
            "total_tokens": prompt + output,
        }


def _incomplete_reason(script: Script, said: SimulatedAnswer) -> str | None:
    if script.finish_reason is not None:
        return None if script.finish_reason == "completed" else script.finish_reason
    return "max_output_tokens" if said.is_shortened else None


def _image_step(data: str) -> dict[str, Any]:
    word = image_type(data).removeprefix("image/")
    return {"type": "image_generation_call", "status": "completed", "output_format": word, "result": data}


def _begun(item: dict[str, Any]) -> dict[str, Any]:
    """Return an item as it is at its start, before its first delta."""
    empty: dict[str, Event] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "reasoning": {"summary": []},
        "image_generation_call": {"result": None},
    }
    status: Event = {"status": "in_progress"} if "status" in item else {}
    return item | empty.get(item["type"], {}) | status


def _event(kind: str, **fields: Any) -> Event:
    return {"type": f"response.{kind}", **fields}


def _framed(events: list[Event], number: int | None) -> bytes:
    """Return events as bytes of a stream, with sequence numbers from ``number`` on."""
    frames: list[bytes] = []
    for place, event in enumerate(events):
        numbered = event if number is None else event | {"sequence_number": number + place}
        frames.append(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(numbered)))
    return b"".join(frames)


def _digest(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:48]


def _padding(delta: str, number: int) -> str:
    # OpenAI pads each delta, so that its size does not show the length of its text.
    return _digest(f"{number}{delta}")[: max(16 - len(delta), 1)]
