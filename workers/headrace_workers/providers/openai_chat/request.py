"""Builds Chat Completions requests. What the API cannot take is refused, and never dropped silently. Pure."""

from __future__ import annotations

from typing import Any

from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCallPart,
)
from headrace.wire.run_request import OptionalFields, RunRequest, chosen_by
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.openai_chat.calls import API_NAME
from headrace_workers.providers.openai_chat.user_content import TEXT_FIELDS, image_of, user_content
from headrace_workers.providers.shared.extra_keys import ExtraKeys
from headrace_workers.providers.shared.fitted_requests import with_fitted_schemas
from headrace_workers.providers.shared.media import is_left_out, refused_in_answer, spoken_texts, with_files_as_text
from headrace_workers.providers.shared.openai_refusals import check_chat, check_plain_chat, is_openai
from headrace_workers.providers.shared.openai_schemas import openai_schemas
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.refused_arguments import refuse_given
from headrace_workers.providers.shared.request_parts import (
    as_json,
    bearer_headers,
    encoded,
    merged,
    parts_of,
    word_for,
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

REASONING_FIELDS = ("reasoning_content", "reasoning")
"""Keys under which compatible servers send reasoning, and take it back."""

_MAX_STOP_SEQUENCES = 4

_OPTION_NAMES = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "service_tier",
    "top_k",
)
"""Arguments that have the same name here."""
_OPTIONS = OptionalFields(*_OPTION_NAMES)
_FIELDS = OptionalFields(
    *_OPTION_NAMES,
    "tools",
    "tool_choice",
    "response_format",
    "stop_sequences",
    "max_output_tokens",
    "seed",
    "metadata",
)
"""All arguments that add a field to the body. Most requests have none of them."""
_REFUSED_BY_OPENAI = {"top_k": "use top_p"}
_NAME_OF_SEED = {"mistral": "random_seed"}
"""Servers that know ``seed`` by another name."""

_NESTED = ("stream_options",)
"""Fields of the body that are merged with those of ``custom_options``."""
_AZURE = "azure"
_ROLES_OF_TEXT = frozenset(("user", "system", "developer"))
_OPENAI_KEYS = ExtraKeys(
    "OpenAI",
    {
        "message": {"name"},
        "assistant message": {"annotations", "audio", "name", "refusal"},
        "text": {"prompt_cache_breakpoint"},
        "image": {"detail", "prompt_cache_breakpoint"},
        "audio": {"prompt_cache_breakpoint"},
        "file": {"prompt_cache_breakpoint"},
    },
    {"cache_control": "it caches by itself; custom_options takes prompt_cache_key and prompt_cache_options"},
)
_COMPATIBLE_KEYS = ExtraKeys(
    "the OpenAI Chat format of compatible servers",
    {
        "message": {"cache_control", "name"},
        "assistant message": {
            "annotations",
            "audio",
            "cache_control",
            "name",
            "partial",  # Moonshot and Alibaba: the message is the beginning of the answer
            "prefix",  # DeepSeek and Mistral: the same
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "refusal",
        },
        "tool message": {"cache_control", "name"},
        "text": {"cache_control", "prompt_cache_breakpoint"},
        "image": {"cache_control", "detail", "max_pixels", "min_pixels", "prompt_cache_breakpoint"},
        "image_url": {"format"},
        "audio": {"cache_control", "prompt_cache_breakpoint"},
        "file": {"cache_control", "prompt_cache_breakpoint"},
        "inner file": {"format"},
        # Google's compatible endpoint has its signatures in extra_content.
        "tool call": {"cache_control", "extra_content"},
        "tool": {"cache_control"},
        "function": {"cache_control"},
    },
)
"""Keys that OpenRouter, LiteLLM, Alibaba and others take in addition. Servers that do not know ``cache_control`` ignore
it."""


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
    headers = bearer_headers(api_key, request.stream)
    is_openais_own = is_openai(settings)
    url = settings.url("/chat/completions")
    if not _FIELDS.has_any(request):
        body = _plain_body(request, settings, is_openais_own=is_openais_own)
        return HttpRequest(url, headers, encoded(body))
    request = with_fitted_schemas(request, openai_schemas)
    has_openais_models = is_openais_own or settings.name == _AZURE
    body = _body(request, settings.name, is_openais_own=is_openais_own, has_openais_models=has_openais_models)
    # After the body: an error of the caller's own comes before a refusal of the API or of the model.
    if has_openais_models:
        refuse_given(request, "OpenAI", _REFUSED_BY_OPENAI)
    if is_openais_own:
        check_chat(request)
    return HttpRequest(url, headers, encoded(body))


def _plain_body(request: RunRequest, settings: ProviderSettings, *, is_openais_own: bool) -> dict[str, Any]:
    """Return the body of a request without any of ``_FIELDS``."""
    keys = _OPENAI_KEYS if is_openais_own or settings.name == _AZURE else _COMPATIBLE_KEYS
    body = {"model": request.model, "messages": _messages(request, keys, is_openais_own=is_openais_own)}
    if is_openais_own:
        check_plain_chat(request.model)
    if request.stream:
        _ask_for_stream(body, is_openais_own=is_openais_own)
    return merged(body, request.custom_options, _NESTED)


def _messages(request: RunRequest, keys: ExtraKeys, *, is_openais_own: bool) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    is_plain = True
    for message in request.messages:
        if _is_plain(message):
            messages.append({"role": message.role, "content": message.content})
        else:
            messages.append(_message(f"messages[{len(messages)}]", message, keys))
            is_plain = False
    if is_openais_own and not is_plain:
        _drop_reasoning(messages)
    return messages


def _ask_for_stream(body: dict[str, Any], *, is_openais_own: bool) -> None:
    body["stream"] = True
    body["stream_options"] = {"include_usage": True}
    if is_openais_own:
        # Without it, OpenAI pads each chunk to hide the length of its text, which doubles the bytes to read.
        body["stream_options"]["include_obfuscation"] = False


def _body(request: RunRequest, server: str, *, is_openais_own: bool, has_openais_models: bool) -> dict[str, Any]:
    keys = _OPENAI_KEYS if has_openais_models else _COMPATIBLE_KEYS
    messages = _messages(request, keys, is_openais_own=is_openais_own)
    body: dict[str, Any] = {"model": request.model, "messages": messages}
    if request.tools:
        body["tools"] = [_tool(f"tools[{index}]", tool, keys) for index, tool in enumerate(request.tools)]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice, request.tools)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if request.stop_sequences:
        body["stop"] = _stop(request.stop_sequences)
    if request.max_output_tokens is not None:
        # OpenAI's reasoning models refuse max_tokens. Most other servers know no other name.
        body["max_completion_tokens" if has_openais_models else "max_tokens"] = request.max_output_tokens
    body |= _options(request, server)
    if request.stream:
        _ask_for_stream(body, is_openais_own=is_openais_own)
    return merged(body, request.custom_options, _NESTED)


def _options(request: RunRequest, server: str) -> dict[str, Any]:
    """Return the fields for sampling, log probabilities, tier and metadata."""
    given = _OPTIONS.given(request)
    if request.seed is not None:
        given[_NAME_OF_SEED.get(server, "seed")] = request.seed
    if request.metadata:
        given["metadata"] = request.metadata
    return given


def _drop_reasoning(messages: list[dict[str, Any]]) -> None:
    """Remove reasoning of compatible servers from earlier turns: OpenAI itself refuses these fields."""
    for message in messages:
        if message["role"] == "assistant":
            for field in (*REASONING_FIELDS, "reasoning_details"):
                message.pop(field, None)


def _is_plain(message: Message) -> bool:
    """Return whether a message has a text and nothing else."""
    is_text = type(message.content) is str and message.extra is None and message.tool_name is None
    return is_text and message.role in _ROLES_OF_TEXT


def _message(where: str, message: Message, keys: ExtraKeys) -> dict[str, Any]:
    extra = keys.of_message(where, message)
    match message.role:
        case "assistant":
            return _assistant_message(where, message, keys) | extra
        case "tool":
            if not message.tool_call_id:
                raise request_failure(
                    "a message with role tool needs the id of the call that it answers", f"{where}.tool_call_id"
                )
            content = _text_content(where, message, keys)
            return {"role": "tool", "tool_call_id": message.tool_call_id, "content": content} | extra
        case "user":
            return {
                "role": "user",
                "content": user_content(where, message, keys, is_openai=keys is _OPENAI_KEYS),
            } | extra
        case _:
            return {"role": message.role, "content": _text_content(where, message, keys)} | extra


def _assistant_message(where: str, message: Message, keys: ExtraKeys) -> dict[str, Any]:
    parts = [] if isinstance(message.content, str) else message.content
    calls: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    sent: dict[str, Any] = {"role": "assistant", "content": None}
    spoken = spoken_texts(message) if any(map(_own_audio, parts)) else frozenset()
    for index, part in enumerate(parts):
        at = f"{where}.content[{index}]"
        match part:
            case ToolCallPart():
                calls.append(_tool_call(at, part, keys))
            case TextPart():
                extra = keys.of("text", at, part.extra)
                if part.text not in spoken:
                    texts.append({"type": "text", "text": part.text} | extra)
            case ReasoningPart():
                keys.of("reasoning", at, part.extra)
                _add_reasoning(sent, part)
            case ImagePart() | AudioPart() | FilePart():
                _add_media(sent, at, part, message, keys)
    if isinstance(message.content, str):
        sent["content"] = message.content
    elif any(len(text) > len(TEXT_FIELDS) for text in texts):
        sent["content"] = texts
    else:
        text = "".join([text["text"] for text in texts])
        sent["content"] = text or None if calls or "audio" in sent else text
    if calls:
        sent["tool_calls"] = calls
    return sent


def _own_audio(part: Part) -> dict[str, Any] | None:
    """Return the reference to audio that OpenAI made in this wire format; None for all other parts."""
    said = (part.provider_data or {}) if isinstance(part, AudioPart) else {}
    audio = said.get("audio") if said.get("api") == API_NAME else None
    return {"id": audio["id"]} if isinstance(audio, dict) and audio.get("id") else None


def _add_media(
    sent: dict[str, Any], where: str, part: ImagePart | AudioPart | FilePart, message: Message, keys: ExtraKeys
) -> None:
    """Add what the model made: audio by its id, images on servers that make them. All else is refused."""
    if (audio := _own_audio(part)) is not None:
        sent["audio"] = audio
    elif isinstance(part, ImagePart) and keys is _COMPATIBLE_KEYS:
        sent.setdefault("images", []).append(image_of(where, part, keys, is_openai=False))
    elif not is_left_out(part, message):
        raise refused_in_answer(where, part)


def _add_reasoning(sent: dict[str, Any], part: ReasoningPart) -> None:
    """Add reasoning to the message if it came in this wire format. Reasoning of other formats is left out."""
    said = part.provider_data or {}
    field, details = said.get("field"), said.get("reasoning_details")
    if field in REASONING_FIELDS:
        sent[field] = sent.get(field, "") + part.text
    if isinstance(details, list):
        sent["reasoning_details"] = sent.get("reasoning_details", []) + details


def _text_content(where: str, message: Message, keys: ExtraKeys) -> str | list[dict[str, Any]]:
    """Return the content of a message with text only; as a str if possible, because some servers take no list of parts."""
    if isinstance(message.content, str):
        return message.content
    sent: list[dict[str, Any]] = []
    message = with_files_as_text(message)
    for index, part in enumerate(parts_of(message)):
        if not isinstance(part, TextPart):
            at = f"{where}.content[{index}]"
            raise request_failure(f"a message with role {message.role} cannot hold {word_for(part)}", at)
        sent.append({"type": "text", "text": part.text} | keys.of("text", f"{where}.content[{index}]", part.extra))
    return sent if any(len(text) > len(TEXT_FIELDS) for text in sent) else message.text


def _tool_call(where: str, part: ToolCallPart, keys: ExtraKeys) -> dict[str, Any]:
    extra, inner = keys.of_both("tool call", where, part.extra)
    if (text := custom_input(part)) is not None:
        return {"id": part.id, "type": "custom", "custom": {"name": part.name, "input": text} | inner} | extra
    arguments = as_json(part.arguments, f"{where}.arguments").decode()
    function = {"name": part.name, "arguments": arguments} | inner
    return {"id": part.id, "type": "function", "function": function} | extra


def _tool(where: str, tool: Tool, keys: ExtraKeys) -> dict[str, Any]:
    if not is_function(tool, may_be_custom=False):
        return _own_tool(where, tool, keys)
    extra, inner = keys.of_both("tool", where, tool.extra)
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    function["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function | inner} | extra


def _own_tool(where: str, tool: Tool, keys: ExtraKeys) -> dict[str, Any]:
    """Return a tool that is no function. OpenAI takes custom tools only; compatible servers may have server tools."""
    if tool.type == "custom" and "custom" not in (tool.extra or {}):
        flat = {key: value for key, value in as_given_by_caller(tool).items() if key != "type"}
        if isinstance(form := flat.get("format"), dict) and "syntax" in form:  # as the Responses API has it
            flat["format"] = {"type": form.get("type"), "grammar": {k: v for k, v in form.items() if k != "type"}}
        return {"type": "custom", "custom": flat}
    if tool.type != "custom" and keys is _OPENAI_KEYS:
        check_owner(where, tool, "OpenAI", keys.api)
        raise request_failure(
            f"Chat Completions has no tool {tool.type!r} of its own: use the provider openai-responses, or for searches "
            "custom_options={'web_search_options': {}}",
            f"{where}.type",
        )
    return as_given_by_caller(tool)


def _tool_choice(choice: str | dict[str, str], tools: list[Tool]) -> str | dict[str, Any]:
    if isinstance(choice, str):
        return choice
    tool = chosen_tool(choice, tools)
    if is_function(tool, may_be_custom=False):
        return {"type": "function", "function": {"name": tool.name}}
    if tool.type == "custom":
        return {"type": "custom", "custom": {"name": chosen_by(tool)}}
    return {"type": tool.type}


def _response_format(wanted: dict[str, Any]) -> dict[str, Any]:
    form = read_response_format(wanted)
    return {"type": form.kind} | ({"json_schema": form.for_openai()} if form.kind == "json_schema" else {})


def _stop(sequences: list[str]) -> list[str]:
    if len(sequences) > _MAX_STOP_SEQUENCES:
        raise request_failure(
            f"Chat Completions takes at most {_MAX_STOP_SEQUENCES}, not {len(sequences)}", "stop_sequences"
        )
    return sequences
