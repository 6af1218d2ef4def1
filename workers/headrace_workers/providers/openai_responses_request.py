"""The body of a Responses request from a run request. Never drops silently what the API cannot take: it refuses.

Nothing is kept at the provider (``store`` is false), so the conversation's reasoning goes along, encrypted: it is asked for
(``include``) from models that reason, since others refuse to be asked. ``custom_options`` override both.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.request import RunRequest
from headrace_workers.providers.failures import request_failure
from headrace_workers.providers.openai_responses_events import Item, text_of
from headrace_workers.providers.openai_responses_message import API_NAME, arguments_in
from headrace_workers.providers.protocol import HttpRequest, ProviderSettings
from headrace_workers.providers.request_parts import bearer_headers, image_url, merged, word_for

_REASONS = re.compile(
    r"(^|[/.])(o\d|gpt-([5-9]|\d\d)(?!.*chat)|codex|computer-use|grok-([4-9]|\d\d)(?!.*non-reasoning))"
)
_MERGED = ("reasoning", "stream_options", "text")


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the request to send."""
    headers = bearer_headers(api_key, stream=request.stream)
    body = _body(request, is_openai=_is_openai(settings.base_url))
    return HttpRequest(f"{settings.base_url}/responses", headers, msgspec.json.encode(body))


def _is_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _body(request: RunRequest, *, is_openai: bool) -> dict[str, Any]:
    if request.stop_sequences:
        raise request_failure("stop_sequences cannot be sent: the Responses API has none")
    body: dict[str, Any] = {"model": request.model, "input": _input(request.messages), "store": False}
    body |= _reasoning(request.model, request.reasoning_effort)
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["text"] = {"format": _format(request.response_format)}
    for name in ("temperature", "top_p", "max_output_tokens"):
        value = getattr(request, name)
        if value is not None:
            body[name] = value
    if request.stream:
        body["stream"] = True
        if is_openai:
            # Padding against guessing tokens by packet length; it doubles the bytes to read.
            body["stream_options"] = {"include_obfuscation": False}
    return merged(body, request.custom_options, _MERGED)


def _reasoning(model: str, effort: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if effort is not None:
        fields["reasoning"] = {"effort": effort, "summary": "auto"}
    if effort not in {None, "none"} or _REASONS.search(model):
        fields["include"] = ["reasoning.encrypted_content"]
    return fields


def _input(messages: list[Message]) -> list[Item]:
    items: list[Item] = []
    custom_calls: set[str] = set()
    for message in messages:
        match message.role:
            case "assistant":
                own = _assistant_items(message)
                custom_calls.update(str(item["call_id"]) for item in own if item.get("type") == "custom_tool_call")
                items += own
            case "tool":
                items.append(_call_output(message, custom_calls))
            case _:
                items.append({"role": message.role, "content": _content(message)})
    return items


def _call_output(message: Message, custom_calls: set[str]) -> Item:
    if not message.tool_call_id:
        raise request_failure("a message with role tool needs tool_call_id: the call that it answers")
    kind = "custom_tool_call_output" if message.tool_call_id in custom_calls else "function_call_output"
    return {"type": kind, "call_id": message.tool_call_id, "output": _content(message)}


def _content(message: Message) -> str | list[dict[str, Any]]:
    """Return text as a str where that is all: not every compatible server takes parts everywhere."""
    if isinstance(message.content, str):
        return message.content
    if all(isinstance(part, TextPart) for part in message.content) and len(message.content) < 2:  # noqa: PLR2004
        return message.text
    return [_input_part(part, message.role) for part in message.content]


def _input_part(part: Part, role: str) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "input_text", "text": part.text}
        case ImagePart() if role in {"user", "tool"}:
            return {"type": "input_image", "detail": "auto", "image_url": image_url(part)}
        case _:
            raise request_failure(f"a message with role {role} cannot hold {word_for(part)}")


def _assistant_items(message: Message) -> list[Item]:
    if isinstance(message.content, str):
        return [_text_item(message.content)] if message.content else []
    # The API refuses a call or text under its own id without the reasoning that led to it, and reasoning that it cannot read.
    can_return = all(_is_readable(item) for part in message.content if (item := _own_item(part)) is not None)
    items = [item for part in message.content if (item := _assistant_item(part, can_return=can_return)) is not None]
    while items and items[-1].get("type") == "reasoning":
        items.pop()  # nor does it take reasoning that led to nothing: what followed was cut, or taken out
    return items


def _assistant_item(part: Part, *, can_return: bool) -> Item | None:
    own = _own_item(part) if can_return else None
    match part:
        case ImagePart():
            raise request_failure("a message with role assistant cannot hold an image")
        case ReasoningPart():
            return own
        case TextPart():
            if own is not None and text_of(own) == part.text:
                return own
            return _text_item(part.text) if part.text else None
        case ToolCallPart():
            return own if own is not None and _is_unchanged(part, own) else _call_item(part)


def _own_item(part: Part) -> Item | None:
    """Return the item that this API gave, to be sent back as it came; what other APIs gave stays behind."""
    said = None if isinstance(part, ImagePart) else part.provider_data
    item = said.get("item") if said is not None and said.get("api") == API_NAME else None
    return item if isinstance(item, dict) else None


def _is_readable(item: Item) -> bool:
    """Whether a reasoning item holds what the model needs of it, rather than an id of something that was not stored."""
    return item.get("type") != "reasoning" or bool(item.get("encrypted_content") or item.get("content"))


def _is_unchanged(part: ToolCallPart, item: Item) -> bool:
    is_same_call = part.id in (item.get("call_id"), item.get("id")) and part.name == item.get("name")
    return is_same_call and arguments_in(item) == part.arguments


def _text_item(text: str) -> Item:
    return {"role": "assistant", "content": text}


def _call_item(part: ToolCallPart) -> Item:
    arguments = msgspec.json.encode(part.arguments).decode()
    return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}


def _tool(tool: Tool) -> dict[str, Any]:
    sent: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        sent["description"] = tool.description
    sent["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    # Left out, it would mean true here: schemas that every other API takes would be refused.
    sent["strict"] = bool(tool.strict)
    return sent


def _tool_choice(choice: str | dict[str, str]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    if "tool" not in choice:
        raise request_failure('tool_choice takes auto, none, required or {"tool": name}')
    return {"type": "function", "name": choice["tool"]}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON schema as the API takes it: bare, in its own form, or in that of Chat Completions."""
    kind = wanted.get("type")
    if kind == "json_schema":
        inner = wanted.get("json_schema")
        return {"type": "json_schema", **inner} if isinstance(inner, dict) else wanted
    if kind in {"json_object", "text"}:
        return wanted
    return {"type": "json_schema", "name": "response", "strict": True, "schema": wanted}
