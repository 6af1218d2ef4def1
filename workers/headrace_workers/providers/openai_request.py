"""The body of a Chat Completions request from a run request. Never drops silently what the API cannot take: it refuses."""

from __future__ import annotations

from typing import Any

from headrace.types import ImagePart, Message, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.request import RunRequest
from headrace_workers.providers.failures import request_failure
from headrace_workers.providers.protocol import HttpRequest, ProviderSettings
from headrace_workers.providers.request_parts import as_json, bearer_headers, encoded, image_url, merged, word_for
from headrace_workers.providers.response_formats import read_response_format

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Under which names compatible servers send reasoning, and take it back."""

_LIMIT_COMPLETIONS = ("openai", "azure")
"""Their reasoning models refuse the old name of the limit; most compatible servers do not know the new one."""

_MAX_STOP_SEQUENCES = 4


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the request to send."""
    headers = bearer_headers(api_key, stream=request.stream)
    body = encoded(_body(request, settings.name))
    return HttpRequest(settings.url("/chat/completions"), headers, body)


def _body(request: RunRequest, server: str) -> dict[str, Any]:
    is_openai = server == "openai"
    messages = [_message(message) for message in request.messages]
    if is_openai:
        _drop_reasoning(messages)
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.stop_sequences:
        body["stop"] = _stop(request.stop_sequences)
    if request.max_output_tokens is not None:
        body["max_completion_tokens" if server in _LIMIT_COMPLETIONS else "max_tokens"] = request.max_output_tokens
    sampling = {name: getattr(request, name) for name in ("temperature", "top_p", "reasoning_effort")}
    body |= {name: value for name, value in sampling.items() if value is not None}
    if request.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
        if is_openai:
            # Padding against guessing tokens by packet length; it doubles the bytes to read.
            body["stream_options"]["include_obfuscation"] = False
    return merged(body, request.custom_options, ("stream_options",))


def _drop_reasoning(messages: list[dict[str, Any]]) -> None:
    """OpenAI itself refuses the fields in which its compatibles give reasoning; a turn may come from one of them."""
    for message in messages:
        for field in (*REASONING_FIELDS, "reasoning_details"):
            message.pop(field, None)


def _message(message: Message) -> dict[str, Any]:
    match message.role:
        case "assistant":
            return _assistant_message(message)
        case "tool":
            if not message.tool_call_id:
                raise request_failure("a message with role tool needs tool_call_id: the call that it answers")
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": _text(message)}
        case "user":
            return {"role": "user", "content": _user_content(message)}
        case _:
            return {"role": message.role, "content": _text(message)}


def _assistant_message(message: Message) -> dict[str, Any]:
    parts = [] if isinstance(message.content, str) else message.content
    calls = [_tool_call(part) for part in parts if isinstance(part, ToolCallPart)]
    if any(isinstance(part, ImagePart) for part in parts):
        raise request_failure("a message with role assistant cannot hold an image")
    sent: dict[str, Any] = {"role": "assistant", "content": message.text or None if calls else message.text}
    for part in parts:
        if isinstance(part, ReasoningPart):
            _add_reasoning(sent, part)
    if calls:
        sent["tool_calls"] = calls
    return sent


def _add_reasoning(sent: dict[str, Any], part: ReasoningPart) -> None:
    """Give reasoning back where this API's server said it; that of other providers stays behind."""
    said = part.provider_data or {}
    field, details = said.get("field"), said.get("reasoning_details")
    if field in REASONING_FIELDS:
        sent[field] = sent.get(field, "") + part.text
    if isinstance(details, list):
        sent["reasoning_details"] = sent.get("reasoning_details", []) + details


def _text(message: Message) -> str:
    """Return the content of a message that holds text alone, as a str: not every compatible server takes parts."""
    if isinstance(message.content, str):
        return message.content
    for part in message.content:
        if not isinstance(part, TextPart):
            raise request_failure(f"a message with role {message.role} cannot hold {word_for(part)}")
    return message.text


def _user_content(message: Message) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    if len(message.content) == 1 and isinstance(message.content[0], TextPart):
        return message.content[0].text
    return [_user_part(part) for part in message.content]


def _user_part(part: TextPart | ImagePart | ToolCallPart | ReasoningPart) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "image_url", "image_url": {"url": image_url(part)}}
        case _:
            raise request_failure(f"a message with role user cannot hold {word_for(part)}")


def _tool_call(part: ToolCallPart) -> dict[str, Any]:
    arguments = as_json(part.arguments, f"the arguments of {part.name}").decode()
    return {"id": part.id, "type": "function", "function": {"name": part.name, "arguments": arguments}}


def _tool(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, str]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    if "tool" not in choice:
        raise request_failure('tool_choice takes auto, none, required or {"tool": name}')
    return {"type": "function", "function": {"name": choice["tool"]}}


def _response_format(wanted: dict[str, Any]) -> dict[str, Any]:
    form = read_response_format(wanted)
    return {"type": form.kind} | ({"json_schema": form.for_openai()} if form.kind == "json_schema" else {})


def _stop(sequences: list[str]) -> list[str]:
    if len(sequences) > _MAX_STOP_SEQUENCES:
        raise request_failure(f"stop_sequences takes at most {_MAX_STOP_SEQUENCES} here, got {len(sequences)}")
    return sequences
