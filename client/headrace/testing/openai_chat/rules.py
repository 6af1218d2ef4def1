"""Checks the body of a Chat Completions request as OpenAI does, with its error texts: one check for each part. Pure."""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.openai_chat.media_rules import check_audio_output, check_media, check_own_audio
from headrace.testing.shared.request_rules import (
    OpenAIRefusal,
    check_choice,
    check_fields,
    check_function_name,
    check_metadata,
    check_object,
    check_ranges,
    check_type,
    first_refusal,
)
from headrace.testing.shared.simulated_models import check_on_chat
from headrace.testing.shared.strict_schema_rules import check_strict_schema

_FIELDS = """
    messages model audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens
    metadata modalities moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key prompt_cache_options
    prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store stream
    stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
_KNOWN_FIELDS = frozenset(_FIELDS.split())
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "frequency_penalty": ("decimal", (int, float)),
    "logit_bias": ("object", dict),
    "logprobs": ("boolean", bool),
    "max_completion_tokens": ("integer", int),
    "max_tokens": ("integer", int),
    "messages": ("array of objects", list),
    "metadata": ("object", dict),
    "model": ("string", str),
    "n": ("integer", int),
    "parallel_tool_calls": ("boolean", bool),
    "presence_penalty": ("decimal", (int, float)),
    "prompt_cache_key": ("string", str),
    "reasoning_effort": ("string", str),
    "response_format": ("object", dict),
    "safety_identifier": ("string", str),
    "seed": ("integer", int),
    "service_tier": ("string", str),
    "stop": ("string or array of strings", (str, list)),
    "store": ("boolean", bool),
    "stream": ("boolean", bool),
    "stream_options": ("object", dict),
    "temperature": ("decimal", (int, float)),
    "tool_choice": ("string or object", (str, dict)),
    "tools": ("array of objects", list),
    "top_logprobs": ("integer", int),
    "top_p": ("decimal", (int, float)),
    "user": ("string", str),
    "verbosity": ("string", str),
}
_RANGES: dict[str, tuple[float, float]] = {
    "frequency_penalty": (-2, 2),
    "presence_penalty": (-2, 2),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "max_completion_tokens": (1, 1_000_000),
    "max_tokens": (1, 1_000_000),
    "n": (1, 1),  # more choices are not simulated
}
_CHOICES = {
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "service_tier": ("auto", "default", "flex", "scale", "priority", "fast"),
    "verbosity": ("low", "medium", "high"),
}
_REASONING_MODEL = re.compile(r"o\d|gpt-[56]")
_MAX_STOPS = 4


def refusal_of(body: object) -> OpenAIRefusal | None:
    """Return why the real API would refuse this body; None if it would not."""
    return first_refusal(_check_body, body)


def _check_body(body: object) -> None:
    if not isinstance(body, dict):
        raise OpenAIRefusal("We could not parse the JSON body of your request: it is not an object.")
    _check_fields(body)
    _check_model(body)
    _check_figures(body)
    _check_stop(body.get("stop"))
    if body.get("stream_options") is not None:
        _check_stream_options(body["stream_options"], streams=bool(body.get("stream")))
    names = _check_tools(body.get("tools"))
    _check_tool_choice(body.get("tool_choice"), names)
    check_on_chat(body)
    if body.get("response_format") is not None:
        _check_response_format(body["response_format"])
    check_audio_output(body)
    _check_messages(body["messages"])


def _check_fields(body: dict[str, Any]) -> None:
    for name in body:
        if name not in _KNOWN_FIELDS:
            raise OpenAIRefusal(f"Unrecognized request argument supplied: {name}", name, "unknown_parameter")
    check_fields(body, ("model", "messages"), _TYPES)


def _check_model(body: dict[str, Any]) -> None:
    model = body["model"]
    if model == "no-such-model":
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise OpenAIRefusal(message, None, "model_not_found", 404)
    if body.get("max_tokens") is not None and _REASONING_MODEL.match(model):
        message = (
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        )
        raise OpenAIRefusal(message, "max_tokens", "unsupported_parameter")


def _check_figures(body: dict[str, Any]) -> None:
    check_ranges(body, _RANGES)
    for name, known in _CHOICES.items():
        check_choice(name, body.get(name), known)
    check_metadata(body.get("metadata"))
    if body.get("top_logprobs") is not None and not body.get("logprobs"):
        message = "Invalid value for 'top_logprobs': 'top_logprobs' is only allowed when 'logprobs' is enabled."
        raise OpenAIRefusal(message, "top_logprobs", "invalid_value")
    if body.get("parallel_tool_calls") is not None and not body.get("tools"):
        message = (
            "Invalid value for 'parallel_tool_calls': 'parallel_tool_calls' is only allowed when 'tools' are specified."
        )
        raise OpenAIRefusal(message, "parallel_tool_calls")


def _check_stop(stop: object) -> None:
    if not isinstance(stop, list):
        return
    if len(stop) > _MAX_STOPS:
        message = f"Invalid 'stop': array too long. Expected an array with maximum length {_MAX_STOPS}, but got an array with length {len(stop)} instead."
        raise OpenAIRefusal(message, "stop", "array_above_max_length")
    for index, text in enumerate(stop):
        check_type(f"stop[{index}]", text, "string", str)


def _check_stream_options(options: dict[str, Any], *, streams: bool) -> None:
    if not streams:
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise OpenAIRefusal(message, "stream_options")
    for name, value in options.items():
        where = f"stream_options.{name}"
        if name not in {"include_usage", "include_obfuscation"}:
            raise OpenAIRefusal(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
        check_type(where, value, "boolean", bool)


def _check_tools(tools: list[Any] | None) -> set[str] | None:
    if tools is None:
        return None
    if not tools:
        message = (
            "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead."
        )
        raise OpenAIRefusal(message, "tools", "empty_array")
    return {_check_tool(f"tools[{index}]", tool) for index, tool in enumerate(tools)}


def _check_tool(where: str, tool: object) -> str:
    tool = check_object(where, tool, known={"type", "function"}, required="type")
    check_choice(f"{where}.type", tool["type"], ("function",))
    inner = f"{where}.function"
    function = check_object(
        inner, tool.get("function"), known={"name", "description", "parameters", "strict"}, required="name"
    )
    check_function_name(f"{inner}.name", function["name"])
    for name, word, kind in (
        ("description", "string", str),
        ("parameters", "object", dict),
        ("strict", "boolean", bool),
    ):
        if function.get(name) is not None:
            check_type(f"{inner}.{name}", function[name], word, kind)
    schema_type = (function.get("parameters") or {"type": "object"}).get("type")
    if schema_type != "object":
        message = f"Invalid schema for function '{function['name']}': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema_type}\"'."
        raise OpenAIRefusal(message, f"{inner}.parameters", "invalid_function_parameters")
    if function.get("strict"):
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        subject = f"function '{function['name']}'"
        check_strict_schema(schema, subject, f"{inner}.parameters", "invalid_function_parameters")
    return str(function["name"])


def _check_response_format(wanted: dict[str, Any]) -> None:
    known = {"type", "json_schema"} if wanted.get("type") == "json_schema" else {"type"}
    check_object("response_format", wanted, known=known, required="type")
    check_choice("response_format.type", wanted["type"], ("text", "json_object", "json_schema"))
    if wanted["type"] != "json_schema":
        return
    where = "response_format.json_schema"
    known = {"name", "description", "schema", "strict"}
    inner = check_object(where, wanted.get("json_schema"), known=known, required="name")
    check_function_name(f"{where}.name", inner["name"])
    check_type(f"{where}.schema", inner.get("schema") or {}, "object", dict)
    if inner.get("strict"):
        check_strict_schema(
            inner.get("schema"), f"response_format '{inner['name']}'", "response_format", "invalid_json_schema"
        )


def _check_tool_choice(choice: object, names: set[str] | None) -> None:
    if choice is None:
        return
    if names is None:
        raise OpenAIRefusal(
            "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified.", "tool_choice"
        )
    if isinstance(choice, str):
        check_choice("tool_choice", choice, ("none", "auto", "required"))
        return
    choice = check_object("tool_choice", choice, known={"type", "function"}, required="type")
    check_choice("tool_choice.type", choice["type"], ("function",))
    function = check_object("tool_choice.function", choice.get("function"), known={"name"}, required="name")
    if function["name"] not in names:
        message = f"Invalid value for 'tool_choice': tool '{function['name']}' not found in 'tools'."
        raise OpenAIRefusal(message, "tool_choice")


def _check_messages(messages: list[Any]) -> None:
    unanswered: list[str] = []
    for index, message in enumerate(messages):
        where = f"messages.[{index}]"
        _check_message(where, message)
        if message["role"] == "tool":
            _check_is_answer(where, message["tool_call_id"], unanswered)
            unanswered.remove(message["tool_call_id"])
            continue
        _check_all_answered(unanswered, f"{where}.role")
        unanswered = [call["id"] for call in message.get("tool_calls") or []]
    _check_all_answered(unanswered, "messages")


def _check_is_answer(where: str, call_id: str, unanswered: list[str]) -> None:
    if call_id not in unanswered:
        message = (
            "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'."
        )
        raise OpenAIRefusal(message, f"{where}.role")


def _check_all_answered(unanswered: list[str], where: str) -> None:
    if unanswered:
        ids = ", ".join(unanswered)
        message = f"An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The following tool_call_ids did not have response messages: {ids}"
        raise OpenAIRefusal(message, where)


# OpenAI does not know "images". OpenRouter does, and a script's images are OpenRouter's.
_MESSAGE_FIELD_NAMES = "role content name tool_calls tool_call_id refusal annotations audio function_call images"
_MESSAGE_FIELDS: set[str] = set(_MESSAGE_FIELD_NAMES.split())


def _check_message(where: str, value: object) -> None:
    message = check_object(where, value, known=_MESSAGE_FIELDS, required="role")
    role = message["role"]
    check_choice(f"{where}.role", role if isinstance(role, str) else repr(role), _ROLES)
    if message.get("tool_calls") is not None:
        _check_tool_calls(where, role, message["tool_calls"])
    if role == "tool":
        check_type(f"{where}.tool_call_id", message.get("tool_call_id"), "string", str)
    elif "tool_call_id" in message:
        raise OpenAIRefusal(f"Unknown parameter: '{where}.tool_call_id'.", f"{where}.tool_call_id", "unknown_parameter")
    check_own_audio(f"{where}.audio", message.get("audio"))
    _check_content(where, message)


def _check_tool_calls(where: str, role: str, calls: object) -> None:
    where = f"{where}.tool_calls"
    if role != "assistant":
        raise OpenAIRefusal(f"Unknown parameter: '{where}'.", where, "unknown_parameter")
    check_type(where, calls, "array of objects", list)
    if not isinstance(calls, list) or not calls:
        raise OpenAIRefusal(f"Invalid '{where}': empty array.", where, "empty_array")
    for index, value in enumerate(calls):
        at = f"{where}[{index}]"
        call = check_object(at, value, known={"id", "type", "function"}, required="id")
        check_type(f"{at}.id", call["id"], "string", str)
        check_choice(f"{at}.type", call.get("type", ""), ("function",))
        function = check_object(f"{at}.function", call.get("function"), known={"name", "arguments"}, required="name")
        check_function_name(f"{at}.function.name", function["name"])
        check_type(f"{at}.function.arguments", function.get("arguments"), "string", str)


def _check_content(where: str, message: dict[str, Any]) -> None:
    content, where = message.get("content"), f"{where}.content"
    may_be_null = message["role"] == "assistant" and any(map(message.get, ("tool_calls", "refusal", "audio", "images")))
    if content is None:
        if not may_be_null:
            raise OpenAIRefusal(
                f"Invalid value for 'content': expected a string, got null. ({where})", where, "invalid_value"
            )
        return
    check_type(where, content, "one of a string or array of objects", (str, list))
    if isinstance(content, str):
        return
    if not content:
        raise OpenAIRefusal(f"Invalid '{where}': empty array.", where, "empty_array")
    for index, part in enumerate(content):
        _check_part(f"{where}[{index}]", part, message["role"])


def _check_part(where: str, value: object, role: str) -> None:
    known = {"type", "text", "image_url", "input_audio", "file", "refusal"}
    part = check_object(where, value, known=known, required="type")
    own = {"user": ("text", "image_url", "input_audio", "file"), "assistant": ("text", "refusal")}.get(role, ("text",))
    check_choice(f"{where}.type", part["type"], own)
    kind = part["type"]
    if kind in {"text", "refusal"}:
        check_type(f"{where}.{kind}", part.get(kind), "string", str)
        return
    check_media(f"{where}.{kind}", kind, part.get(kind))
