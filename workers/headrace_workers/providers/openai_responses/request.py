"""Builds Responses requests. What the API cannot take is refused, and never dropped silently. Pure.

The provider stores nothing (``store`` is false). So each request sends the reasoning of earlier turns, encrypted. The
reasoning is asked for (``include``) only from models that reason, because others refuse this. ``custom_options``
override both. Words in their ``include`` are added to it; an empty list asks for nothing.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

from headrace.types import AudioPart, FilePart, ImagePart, Message, Part, ReasoningPart, TextPart, Tool, ToolCallPart
from headrace.wire.run_request import RunRequest, chosen_by
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.openai_responses.events import Item, text_of
from headrace_workers.providers.openai_responses.input_content import input_part
from headrace_workers.providers.openai_responses.message import API_NAME, arguments_in, image_item
from headrace_workers.providers.openai_responses.results import FORMS, call_ids, result_item
from headrace_workers.providers.shared.extra_keys import ExtraKeys
from headrace_workers.providers.shared.fitted_requests import with_fitted_schemas
from headrace_workers.providers.shared.media import is_left_out, refused_in_answer
from headrace_workers.providers.shared.openai_refusals import check_on_both, is_openai
from headrace_workers.providers.shared.openai_schemas import openai_schemas
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.refused_arguments import refuse_given
from headrace_workers.providers.shared.request_parts import (
    LOGPROBS_OF_RESPONSES,
    as_json,
    bearer_headers,
    encoded,
    merged,
)
from headrace_workers.providers.shared.response_formats import read_response_format
from headrace_workers.providers.shared.server_tools import (
    as_given_by_caller,
    check_owner,
    chosen_tool,
    custom_input,
    is_function,
)
from headrace_workers.providers.shared.wire_format import ProviderSettings

_REASONS = re.compile(
    r"(^|[/.])(o\d|gpt-([5-9]|\d\d)(?!.*chat)|codex|computer-use|grok-([4-9]|\d\d)(?!.*non-reasoning))"
)
_READABLE = ("encrypted_content", "content", "signature")
"""Fields of a reasoning item that the model can read. One of them is needed."""

_TOOL_KEYS = ("allowed_callers", "async", "defer_loading", "output_schema")
_OPENAI_KEYS = ExtraKeys(
    "OpenAI Responses",
    {
        "assistant message": {"phase"},
        "tool message": {"caller", "namespace"},
        "text": {"prompt_cache_breakpoint"},
        "image": {"detail", "prompt_cache_breakpoint"},
        "file": {"detail", "prompt_cache_breakpoint"},
        "tool call": {"caller", "namespace"},
        "tool": _TOOL_KEYS,
        "function": _TOOL_KEYS,
    },
    {"cache_control": "it caches by itself; custom_options takes prompt_cache_key and prompt_cache_options"},
)
_COMPATIBLE_KEYS = ExtraKeys(
    "the OpenAI Responses format of compatible servers",
    {
        "message": {"cache_control"},
        "assistant message": {"cache_control", "phase"},
        "tool message": {"cache_control", "caller", "namespace"},
        "text": {"cache_control", "prompt_cache_breakpoint"},
        "image": {"cache_control", "detail", "prompt_cache_breakpoint"},
        "file": {"cache_control", "detail", "prompt_cache_breakpoint"},
        "tool call": {"cache_control", "caller", "namespace"},
        "tool": {*_TOOL_KEYS, "cache_control"},
        "function": {*_TOOL_KEYS, "cache_control"},
    },
)
"""Keys that OpenRouter and LiteLLM take in addition."""
_MERGED = ("reasoning", "stream_options", "text")

_OPTIONS = ("temperature", "top_p", "max_output_tokens", "top_logprobs", "parallel_tool_calls", "service_tier")
"""Arguments that have the same name here."""
_ON_CHAT = "Chat Completions does (the provider openai-chat)"
_REFUSED = {
    "stop_sequences": _ON_CHAT,
    "seed": _ON_CHAT,
    "frequency_penalty": _ON_CHAT,
    "presence_penalty": _ON_CHAT,
    "top_k": "use top_p",
}


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
    request = with_fitted_schemas(request, openai_schemas)
    headers = bearer_headers(api_key, request.stream)
    body = _body(request, settings)
    return HttpRequest(settings.url("/responses"), headers, encoded(body))


def _is_openais_host(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _body(request: RunRequest, settings: ProviderSettings) -> dict[str, Any]:
    is_openais_own = is_openai(settings)
    is_openais_host = _is_openais_host(settings.base_url)
    keys = _OPENAI_KEYS if is_openais_host or is_openais_own else _COMPATIBLE_KEYS
    body: dict[str, Any] = {
        "model": request.model,
        "input": _input(request.messages, _Items(keys, is_openai=is_openais_host)),
    }
    body["store"] = False
    body |= _reasoning(request.model, request.reasoning_effort)
    if request.logprobs:
        body["include"] = [*body.get("include", []), LOGPROBS_OF_RESPONSES]
    if request.tools:
        body["tools"] = [_tool(f"tools[{index}]", tool, keys) for index, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, request.tools)
    body |= _text_options(request)
    body |= {name: value for name in _OPTIONS if (value := getattr(request, name)) is not None}
    if request.metadata:
        body["metadata"] = request.metadata
    if request.stream:
        body["stream"] = True
        if is_openais_host:
            # Without it, OpenAI pads each chunk to hide the length of its text, which doubles the bytes to read.
            body["stream_options"] = {"include_obfuscation": False}
    # Last: an error of the caller's own comes before a refusal of the API.
    refuse_given(request, "the Responses API", _REFUSED)
    if is_openais_own:
        check_on_both(request, is_chat=False)
    result = merged(body, request.custom_options, _MERGED)
    if (asked := request.custom_options.get("include")) and isinstance(asked, list) and "include" in body:
        # The reasoning is always needed for the next turn, and the log probabilities were asked for.
        # What the caller includes comes in addition.
        result["include"] = [*asked, *(word for word in body["include"] if word not in asked)]
    return result


def _text_options(request: RunRequest) -> dict[str, Any]:
    text: dict[str, Any] = {}
    if request.response_format is not None:
        text["format"] = _format(request.response_format)
    if request.verbosity is not None:
        text["verbosity"] = request.verbosity
    return {"text": text} if text else {}


def _reasoning(model: str, effort: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if effort is not None:
        fields["reasoning"] = {"effort": effort, "summary": "auto"}
    if effort not in {None, "none"} or _REASONS.search(model):
        fields["include"] = ["reasoning.encrypted_content"]
    return fields


def _input(messages: list[Message], items: _Items) -> list[Item]:
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        match message.role:
            case "assistant":
                items.add_answer(where, message)
            case "tool":
                items.add_result(where, message)
            case _:
                items.add_message(where, message)
    return items.all


class _Items:
    """Builds the items of the conversation, message by message."""

    def __init__(self, keys: ExtraKeys, *, is_openai: bool) -> None:
        self.all: list[Item] = []
        self._keys = keys
        self._is_openai = is_openai
        self._calls: dict[str, str] = {}  # id under which an item is answered → type of the item

    def add_message(self, where: str, message: Message) -> None:
        extra = self._keys.of_message(where, message)
        content = self._content(where, message)
        self.all.append({"type": "message", "role": message.role, "content": content} | extra)

    def add_result(self, where: str, message: Message) -> None:
        if not message.tool_call_id:
            raise request_failure(
                "a message with role tool needs the id of the call that it answers", f"{where}.tool_call_id"
            )
        form = FORMS.get(self._calls.get(message.tool_call_id, ""), FORMS["function_call"])
        extra = self._keys.of_message(where, message, form.keys)
        content = self._content(where, message)
        if content and "output" in extra:
            raise request_failure("cannot be given together with content: give one of the two", f"{where}.output")
        self.all.append(result_item(form, message, content, extra))

    def add_answer(self, where: str, message: Message) -> None:
        extra = self._keys.of_message(where, message)
        if isinstance(message.content, str) and message.content:
            self.all.append(_text_item(message.content, {}, is_openai=self._is_openai) | extra)
            return
        parts = message.content if isinstance(message.content, list) else []
        # The API refuses an item with its id but without the reasoning before it, and reasoning that it cannot read.
        can_return = all(_is_readable(item) for part in parts if (item := _own_item(part)) is not None)
        items: list[Item] = []
        for index, part in enumerate(parts):
            if is_left_out(part, message):
                continue
            item = self._answer_item(f"{where}.content[{index}]", part, can_return=can_return)
            if item is not None:
                items.append(item | extra if item.get("type") == "message" else item)
        if extra and not any(item.get("type") == "message" for item in items):
            raise request_failure("the message has no text to send it with", f"{where}.{next(iter(extra))}")
        while items and _led_to_nothing(items, is_openai=self._is_openai):
            items.pop()
        self._calls |= {own_id: str(item.get("type")) for item in items for own_id in call_ids(item)}
        self.all += items

    def _answer_item(self, where: str, part: Part, *, can_return: bool) -> Item | None:
        own = _own_item(part) if can_return else None
        match part:
            case ImagePart() | AudioPart() | FilePart():
                if isinstance(part, ImagePart) and own is not None:
                    return image_item(part, own)
                raise refused_in_answer(where, part)
            case ReasoningPart():
                self._keys.of("reasoning", where, part.extra)
                return own
            case TextPart():
                extra = self._keys.of("text", where, part.extra)
                if own is not None and text_of(own) == part.text and not extra:
                    return own
                if extra and not part.text:
                    raise request_failure("the part has no text to send it with", f"{where}.{next(iter(extra))}")
                return _text_item(part.text, extra, is_openai=self._is_openai) if part.text else None
            case ToolCallPart():
                extra = self._keys.of("tool call", where, part.extra)
                return (own if own is not None and _is_unchanged(part, own) else _call_item(where, part)) | extra

    def _content(self, where: str, message: Message) -> str | list[dict[str, Any]]:
        """Return the content; as a str if it is only text, because some servers take no list of parts."""
        if isinstance(message.content, str):
            return message.content
        sent = [
            input_part(
                f"{where}.content[{index}]", part, message.role, self._keys, is_openai=self._keys is _OPENAI_KEYS
            )
            for index, part in enumerate(message.content)
        ]
        if not sent or (len(sent) == 1 and sent[0].keys() == {"type", "text"}):
            return message.text
        return sent


def _led_to_nothing(items: list[Item], *, is_openai: bool) -> bool:
    """Whether the last item is reasoning that the API refuses, because the item after it was cut or removed.

    OpenRouter sends the signature of another vendor's model after the answer, as reasoning with a ``format``: it stays
    there.
    """
    last = items[-1]
    if last.get("type") != "reasoning":
        return False
    is_openais_own = is_openai and not (last.get("format") or last.get("signature"))
    return is_openais_own or all(item.get("type") == "reasoning" for item in items)


def _own_item(part: Part) -> Item | None:
    """Return the item of this API that a part came from; None for a part of another API."""
    said = part.provider_data
    item = said.get("item") if said is not None and said.get("api") == API_NAME else None
    return item if isinstance(item, dict) else None


def _is_readable(item: Item) -> bool:
    """Whether the model can read a reasoning item.

    An item with only an id cannot be read: the provider has not stored it.
    """
    return item.get("type") != "reasoning" or any(map(item.get, _READABLE))


def _is_unchanged(part: ToolCallPart, item: Item) -> bool:
    is_same_call = part.id in (item.get("call_id"), item.get("id")) and part.name == item.get("name")
    return is_same_call and arguments_in(item) == part.arguments


def _text_item(text: str, extra: dict[str, Any], *, is_openai: bool) -> Item:
    """Return the assistant's text as an item.

    OpenAI takes a str for text without an id; llama.cpp takes only output parts.
    """
    parts = [{"type": "output_text", "text": text} | extra]
    return {"type": "message", "role": "assistant", "content": text if is_openai and not extra else parts}


def _call_item(where: str, part: ToolCallPart) -> Item:
    if (text := custom_input(part)) is not None:
        return {"type": "custom_tool_call", "call_id": part.id, "name": part.name, "input": text}
    arguments = as_json(part.arguments, f"{where}.arguments").decode()
    return {"type": "function_call", "call_id": part.id, "name": part.name, "arguments": arguments}


def _tool(where: str, tool: Tool, keys: ExtraKeys) -> dict[str, Any]:
    if not is_function(tool, may_be_custom=False):
        check_owner(where, tool, "OpenAI", keys.api)
        own = as_given_by_caller(tool)
        # In the form of Chat Completions, a custom tool has its fields in an inner object, and a grammar has one too.
        own |= own.pop("custom") if isinstance(own.get("custom"), dict) else {}
        form = own.get("format")
        if tool.type == "custom" and isinstance(form, dict) and isinstance(form.get("grammar"), dict):
            own["format"] = {"type": form.get("type")} | form["grammar"]
        return own
    sent: dict[str, Any] = {"type": "function", "name": tool.name}
    if tool.description:
        sent["description"] = tool.description
    sent["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    # The default here is true: the API would refuse schemas that every other API takes.
    sent["strict"] = bool(tool.strict)
    return sent | keys.of("tool", where, tool.extra)


def _tool_choice(choice: str | dict[str, str], tools: list[Tool]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    tool = chosen_tool(choice, tools)
    if is_function(tool, may_be_custom=False):
        return {"type": "function", "name": tool.name}
    if tool.type == "custom":
        return {"type": "custom", "name": chosen_by(tool)}
    label = (tool.extra or {}).get("server_label")
    return {"type": tool.type, "server_label": label} if tool.type == "mcp" and label else {"type": tool.type}


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    form = read_response_format(wanted)
    return {"type": form.kind} | (form.for_openai() if form.kind == "json_schema" else {})
