"""Checks the body of a Responses request as OpenAI does, with its error texts: one check for each part. Pure.

``items.py`` checks the conversation.
"""

from __future__ import annotations

from typing import Any

from headrace.testing.openai_responses.items import check_input
from headrace.testing.shared.request_rules import (
    OpenAIRefusal,
    check_choice,
    check_fields,
    check_function_name,
    check_metadata,
    check_object,
    check_ranges,
    first_refusal,
)
from headrace.testing.shared.simulated_models import check_on_responses
from headrace.testing.shared.strict_schema_rules import check_strict_schema

_FIELDS = """
    access_programs background background_options context_management conversation image include input instructions
    max_output_tokens max_tool_calls metadata model moderation parallel_tool_calls previous_response_id prompt
    prompt_cache_key prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream
    stream_options temperature text tool_choice tools top_logprobs top_p truncation user
"""
_KNOWN_FIELDS = frozenset(_FIELDS.split())
_TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "background": ("boolean", bool),
    "background_options": ("object", dict),
    "include": ("array of strings", list),
    "input": ("string or array of objects", (str, list)),
    "instructions": ("string", str),
    "max_output_tokens": ("integer", int),
    "metadata": ("object", dict),
    "model": ("string", str),
    "parallel_tool_calls": ("boolean", bool),
    "reasoning": ("object", dict),
    "store": ("boolean", bool),
    "stream": ("boolean", bool),
    "stream_options": ("object", dict),
    "temperature": ("decimal", (int, float)),
    "text": ("object", dict),
    "tool_choice": ("string or object", (str, dict)),
    "tools": ("array of objects", list),
    "service_tier": ("string", str),
    "top_logprobs": ("integer", int),
    "top_p": ("decimal", (int, float)),
    "user": ("string", str),
}
_RANGES: dict[str, tuple[float, float]] = {
    "max_output_tokens": (16, 1_000_000),
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
}
_TIERS = ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast")
_INCLUDES = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def refusal_of(body: object) -> OpenAIRefusal | None:
    """Return why the real API would refuse this body; None if it would not."""
    return first_refusal(_check_body, body)


def _check_body(body: object) -> None:
    if not isinstance(body, dict):
        raise OpenAIRefusal("We could not parse the JSON body of your request: it is not an object.")
    _check_fields(body)
    if body["model"] == "no-such-model":
        message = "The requested model 'no-such-model' does not exist."
        raise OpenAIRefusal(message, "model", "model_not_found")
    check_ranges(body, _RANGES)
    _check_options(body)
    _check_text(body.get("text") or {})
    names = {_check_tool(f"tools[{index}]", tool) for index, tool in enumerate(body.get("tools") or [])}
    _check_tool_choice(body.get("tool_choice"), names)
    check_on_responses(body)
    check_input(body["input"])


def _check_fields(body: dict[str, Any]) -> None:
    for name in body:
        if name not in _KNOWN_FIELDS:
            hint = {"messages": "'input'", "response_format": "'text.format'", "max_tokens": "'max_output_tokens'"}
            moved = f" In the Responses API, it has moved to {hint[name]}." if name in hint else ""
            message = f"Unsupported parameter: '{name}'.{moved}" if moved else f"Unknown parameter: '{name}'."
            raise OpenAIRefusal(message, name, "unsupported_parameter" if moved else "unknown_parameter")
    check_fields(body, ("model", "input"), _TYPES)


def _check_options(body: dict[str, Any]) -> None:
    for index, name in enumerate(body.get("include") or []):
        check_choice(f"include[{index}]", name, _INCLUDES)
    check_choice("service_tier", body.get("service_tier"), _TIERS)
    check_metadata(body.get("metadata"))
    reasoning = body.get("reasoning") or {}
    check_object("reasoning", reasoning, known={"effort", "summary", "generate_summary", "context"}, required=None)
    check_choice("reasoning.effort", reasoning.get("effort"), _EFFORTS)
    check_choice("reasoning.summary", reasoning.get("summary"), ("auto", "concise", "detailed"))
    _check_background(body)
    options = body.get("stream_options")
    if options is None:
        return
    if not body.get("stream"):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise OpenAIRefusal(message, "stream_options")
    check_object("stream_options", options, known={"include_obfuscation"}, required=None)


def _check_background(body: dict[str, Any]) -> None:
    if body.get("background") and body.get("store") is False:
        raise OpenAIRefusal("The 'background' parameter needs 'store' to be true.", "background")
    options = body.get("background_options")
    if options is None:
        return
    check_object("background_options", options, known={"completion_window", "continuation_id"}, required=None)
    window = options.get("completion_window")
    check_choice("background_options.completion_window", window, ("soonest", "2h", "8h"))
    if window in {"2h", "8h"} and (not body.get("background") or body.get("stream")):
        message = f"The completion window '{window}' needs 'background' to be true, and no 'stream'."
        raise OpenAIRefusal(message, "background_options.completion_window")


def _check_text(text: dict[str, Any]) -> None:
    check_object("text", text, known={"format", "verbosity"}, required=None)
    check_choice("text.verbosity", text.get("verbosity"), ("low", "medium", "high"))
    if text.get("format") is None:
        return
    known = {"type", "name", "schema", "strict", "description"}
    format_ = check_object("text.format", text["format"], known=known, required="type")
    check_choice("text.format.type", format_["type"], ("text", "json_object", "json_schema"))
    if format_["type"] == "json_schema":
        for name in ("name", "schema"):
            if format_.get(name) is None:
                where = f"text.format.{name}"
                raise OpenAIRefusal(f"Missing required parameter: '{where}'.", where, "missing_required_parameter")
        check_function_name("text.format.name", format_["name"])
        if format_.get("strict"):
            subject = f"response_format '{format_['name']}'"
            check_strict_schema(format_["schema"], subject, "text.format.schema", "invalid_json_schema")


def _check_tool(where: str, tool: object) -> str:
    known = {"type", "name", "description", "parameters", "strict"}
    if isinstance(tool, dict) and tool.get("type") not in {"function", None}:
        return str(tool["type"])  # server tools are accepted, and never used
    if isinstance(tool, dict) and "name" not in tool:
        raise OpenAIRefusal(
            f"Missing required parameter: '{where}.name'.", f"{where}.name", "missing_required_parameter"
        )
    tool = check_object(where, tool, known=known, required="type")
    check_function_name(f"{where}.name", tool["name"])
    schema_type = (tool.get("parameters") or {"type": "object"}).get("type")
    if schema_type != "object":
        message = f"Invalid schema for function '{tool['name']}': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema_type}\"'."
        raise OpenAIRefusal(message, f"{where}.parameters", "invalid_function_parameters")
    if tool.get("strict"):
        schema = tool.get("parameters") or {"type": "object", "properties": {}}
        subject = f"function '{tool['name']}'"
        check_strict_schema(schema, subject, f"{where}.parameters", "invalid_function_parameters")
    return str(tool["name"])


def _check_tool_choice(choice: object, names: set[str]) -> None:
    if choice is None or choice == "auto":
        return
    if isinstance(choice, str):
        check_choice("tool_choice", choice, ("none", "auto", "required"))
        if choice == "required" and not names:
            raise OpenAIRefusal("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return
    choice = check_object("tool_choice", choice, known={"type", "name"}, required="type")
    if choice["type"] == "function" and choice.get("name") not in names:
        message = f"Tool choice 'function' with name '{choice.get('name')}' not found in 'tools' parameter."
        raise OpenAIRefusal(message, "tool_choice")
