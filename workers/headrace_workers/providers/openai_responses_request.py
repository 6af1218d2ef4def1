"""The body of a Responses request from a run request. Never drops silently what the API cannot take: it refuses.

Nothing is kept at the provider (``store`` is false), so the conversation's reasoning goes along, encrypted: it is asked for
(``include``) from models that reason, since others refuse to be asked. ``custom_options`` override both.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from headrace.types import ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.request import RunRequest
from headrace_workers.providers.failures import request_failure
from headrace_workers.providers.openai_responses_events import Item, text_of
from headrace_workers.providers.openai_responses_message import API_NAME, arguments_in
from headrace_workers.providers.protocol import HttpRequest, ProviderSettings
from headrace_workers.providers.request_parts import as_json, bearer_headers, encoded, image_url, merged, word_for
from headrace_workers.providers.response_formats import read_response_format

_REASONS = re.compile(
    r"(^|[/.])(o\d|gpt-([5-9]|\d\d)(?!.*chat)|codex|computer-use|grok-([4-9]|\d\d)(?!.*non-reasoning))"
)
_READABLE = ("encrypted_content", "content", "signature")
"""Fields in which a reasoning item holds what the model needs of it."""
_MERGED = ("reasoning", "stream_options", "text")


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the request to send."""
    headers = bearer_headers(api_key, stream=request.stream)
    body = _body(request, is_openai=_is_openai(settings.base_url))
    return HttpRequest(settings.url("/responses"), headers, encoded(body))


def _is_openai(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _body(request: RunRequest, *, is_openai: bool) -> dict[str, Any]:
    if request.stop_sequences:
        raise request_failure("stop_sequences cannot be sent: the Responses API has none")
    body: dict[str, Any] = {"model": request.model, "input": _input(request.messages, is_openai=is_openai)}
    body["store"] = False
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


def _input(messages: list[Message], *, is_openai: bool) -> list[Item]:
    items: list[Item] = []
    custom_calls: set[str] = set()
    for message in messages:
        match message.role:
            case "assistant":
                own = _assistant_items(message, is_openai=is_openai)
                custom_calls.update(str(item["call_id"]) for item in own if item.get("type") == "custom_tool_call")
                items += own
            case "tool":
                items.append(_call_output(message, custom_calls))
            case _:
                items.append({"type": "message", "role": message.role, "content": _content(message)})
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


def _assistant_items(message: Message, *, is_openai: bool) -> list[Item]:
    if isinstance(message.content, str):
        return [_text_item(message.content, is_openai=is_openai)] if message.content else []
    # The API refuses a call or text under its own id without the reasoning that led to it, and reasoning that it cannot read.
    can_return = all(_is_readable(item) for part in message.content if (item := _own_item(part)) is not None)
    sent = [_assistant_item(part, can_return=can_return, is_openai=is_openai) for part in message.content]
    items = [item for item in sent if item is not None]
    while items and _led_to_nothing(items, is_openai=is_openai):
        items.pop()
    return items


def _led_to_nothing(items: list[Item], *, is_openai: bool) -> bool:
    """Whether the last item is reasoning that the API refuses, because what followed was cut or taken out.

    OpenRouter puts the signature of another vendor's model behind the answer, as reasoning with a ``format``; that belongs there.
    """
    last = items[-1]
    if last.get("type") != "reasoning":
        return False
    is_openais_own = is_openai and not (last.get("format") or last.get("signature"))
    return is_openais_own or all(item.get("type") == "reasoning" for item in items)


def _assistant_item(part: Part, *, can_return: bool, is_openai: bool) -> Item | None:
    own = _own_item(part) if can_return else None
    match part:
        case ImagePart():
            raise request_failure("a message with role assistant cannot hold an image")
        case ReasoningPart():
            return own
        case TextPart():
            if own is not None and text_of(own) == part.text:
                return own
            return _text_item(part.text, is_openai=is_openai) if part.text else None
        case ToolCallPart():
            return own if own is not None and _is_unchanged(part, own) else _call_item(part)


def _own_item(part: Part) -> Item | None:
    """Return the item that this API gave, to be sent back as it came; what other APIs gave stays behind."""
    said = None if isinstance(part, ImagePart) else part.provider_data
    item = said.get("item") if said is not None and said.get("api") == API_NAME else None
    return item if isinstance(item, dict) else None


def _is_readable(item: Item) -> bool:
    """Whether a reasoning item holds what the model needs of it, rather than an id of something that was not stored."""
    return item.get("type") != "reasoning" or any(map(item.get, _READABLE))


def _is_unchanged(part: ToolCallPart, item: Item) -> bool:
    is_same_call = part.id in (item.get("call_id"), item.get("id")) and part.name == item.get("name")
    return is_same_call and arguments_in(item) == part.arguments


def _text_item(text: str, *, is_openai: bool) -> Item:
    """Return text of the assistant. OpenAI has a str for text without an id; llama.cpp takes only what a model may have said."""
    content: str | list[dict[str, Any]] = text if is_openai else [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "content": content}


def _call_item(part: ToolCallPart) -> Item:
    arguments = as_json(part.arguments, f"the arguments of {part.name}").decode()
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
    form = read_response_format(wanted)
    return {"type": form.kind} | (form.for_openai() if form.kind == "json_schema" else {})
