"""Checks the body of a Messages request as Anthropic does, with its error texts: one check for each part. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from headrace.testing.anthropic.schema_rules import StrictSchemas
from headrace.testing.anthropic.turns import AnthropicRefusal, check_messages
from headrace.testing.shared.request_rules import is_of_type

VERSIONS = ("2023-06-01", "2026-10-21")

_FIELDS = """
    model messages max_tokens system tools tool_choice stop_sequences stream metadata thinking output_config cache_control
    container context_management diagnostics inference_geo mcp_servers service_tier speed user_profile_id
"""
_KNOWN_FIELDS = frozenset(_FIELDS.split())
_SAMPLING = ("temperature", "top_p", "top_k")
_TYPES: dict[str, tuple[str, type | tuple[type, ...]]] = {
    "max_tokens": ("integer", int),
    "messages": ("list", list),
    "metadata": ("dictionary", dict),
    "model": ("string", str),
    "output_config": ("dictionary", dict),
    "service_tier": ("string", str),
    "stop_sequences": ("list", list),
    "stream": ("boolean", bool),
    "system": ("string or list", (str, list)),
    "temperature": ("number", (int, float)),
    "thinking": ("dictionary", dict),
    "tool_choice": ("dictionary", dict),
    "tools": ("list", list),
    "top_k": ("integer", int),
    "top_p": ("number", (int, float)),
}
_EFFORTS = ("low", "medium", "high", "xhigh", "max")
_THINKING_TYPES = ("adaptive", "enabled", "disabled", "between_tools")
_LEAST_BUDGET = 1024
_MAX_USER_ID = 256
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_TOOL_FIELD_NAMES = """
    name description input_schema strict type cache_control allowed_callers defer_loading eager_input_streaming
    input_examples
"""
_TOOL_FIELDS = frozenset(_TOOL_FIELD_NAMES.split())


class _Model(msgspec.Struct, frozen=True):
    """What models take, by a pattern of their names. ``forced``: whether a tool choice may force a call."""

    pattern: str
    max_tokens: int = 128_000
    sampling: bool = False
    thinking: tuple[str, ...] = ("adaptive", "disabled")
    prefill: bool = False
    schemas: bool = True
    efforts: tuple[str, ...] = _EFFORTS
    forced: bool = True


_UP_TO_4_5: dict[str, Any] = {"sampling": True, "prefill": True}
_OLD: dict[str, Any] = _UP_TO_4_5 | {"schemas": False, "efforts": ()}
_ENABLED = ("enabled", "disabled")
_MODELS = (
    _Model(r"claude-(3-opus|3-haiku|3-sonnet|2|instant)", 4_096, thinking=("disabled",), **_OLD),
    _Model(r"claude-3-5", 8_192, thinking=("disabled",), **_OLD),
    _Model(r"opus-4(-0|-1)?(-\d{8})?$", 32_000, thinking=_ENABLED, **_OLD),
    _Model(r"claude-3-7|sonnet-4(-0)?(-\d{8})?$", 64_000, thinking=_ENABLED, **_OLD),
    _Model(r"opus-4-5", 64_000, thinking=_ENABLED, efforts=("low", "medium", "high"), **_UP_TO_4_5),
    _Model(r"-4-5", 64_000, thinking=_ENABLED, efforts=(), **_UP_TO_4_5),
    _Model(
        r"-4-6",
        sampling=True,
        thinking=("adaptive", "enabled", "disabled"),
        efforts=("low", "medium", "high", "max"),
    ),
    _Model(r"opus-5-5|fable-5|mythos-5", thinking=("adaptive",), forced=False),
    _Model(r"mythos-preview", forced=False),
    _Model(r"sonnet-5-5", thinking=("adaptive", "between_tools"), forced=False),
    _Model(r""),
)


def refusal_of(body: object, version: str | None) -> AnthropicRefusal | None:
    """Return why the real API would refuse this body with this version header; None if it would not."""
    try:
        _check_version(version)
        _check_body(body, takes_sampling=version == VERSIONS[0])
    except AnthropicRefusal as refusal:
        return refusal
    return None


def _check_version(version: str | None) -> None:
    if not version:
        raise AnthropicRefusal("anthropic-version: header is required")
    if version not in VERSIONS:
        raise AnthropicRefusal(f'anthropic-version: "{version}" is not a valid version')


def _check_body(body: object, *, takes_sampling: bool) -> None:
    if not isinstance(body, dict):
        raise AnthropicRefusal("The request body is not a JSON object")
    _check_fields(body, _KNOWN_FIELDS | set(_SAMPLING) if takes_sampling else _KNOWN_FIELDS)
    if body["model"] == "no-such-model":
        raise AnthropicRefusal(f"model: {body['model']}", 404)
    model = next(model for model in _MODELS if re.search(model.pattern, body["model"]))
    _check_figures(body, model)
    _check_stop(body.get("stop_sequences") or [])
    _check_system(body.get("system") or "")
    names = {_check_tool(f"tools.{index}", tool) for index, tool in enumerate(body.get("tools") or [])}
    thinks = _check_thinking(body, model)
    _check_tool_choice(body.get("tool_choice"), names, thinks=thinks)
    if not model.forced and (body.get("tool_choice") or {}).get("type") in {"any", "tool"}:
        raise AnthropicRefusal("tool_choice: forced tool use is not supported for this model.")
    _check_metadata(body.get("metadata") or {})
    if body.get("service_tier") not in {None, "auto", "standard_only"}:
        raise AnthropicRefusal("service_tier: Input should be 'auto' or 'standard_only'")
    has_format = _check_output_config(body.get("output_config") or {}, model)
    _check_schemas(body, model)
    if has_format and b'"citations":{"enabled":true' in msgspec.json.encode(body["messages"]):
        raise AnthropicRefusal("output_config.format: citations cannot be used together with structured outputs.")
    is_off = (body.get("thinking") or {}).get("type") == "disabled"
    check_messages(body["messages"], thinks=not is_off, may_prefill=model.prefill and not has_format)


def _check_fields(body: dict[str, Any], known: frozenset[str] | set[str]) -> None:
    for name in ("model", "max_tokens", "messages"):
        if body.get(name) in (None, ""):
            raise AnthropicRefusal(f"{name}: Field required")
    for name, value in body.items():
        if name not in known:
            raise AnthropicRefusal(f"{name}: Extra inputs are not permitted")
        if value is None or name not in _TYPES:
            continue
        word, kind = _TYPES[name]
        if not is_of_type(value, kind):
            raise AnthropicRefusal(f"{name}: Input should be a valid {word}")


def _check_figures(body: dict[str, Any], model: _Model) -> None:
    max_tokens = body["max_tokens"]
    if max_tokens < 1:
        raise AnthropicRefusal("max_tokens: Input should be greater than or equal to 1")
    if max_tokens > model.max_tokens:
        limit = f"{max_tokens} > {model.max_tokens}"
        raise AnthropicRefusal(
            f"max_tokens: {limit}, which is the maximum allowed number of output tokens for {body['model']}"
        )
    for name in _SAMPLING:
        value = body.get(name)
        if value is None:
            continue
        if not model.sampling:
            raise AnthropicRefusal(f"`{name}` is deprecated for this model.")
        if value < 0 or (value > 1 and name != "top_k"):
            raise AnthropicRefusal(f"{name}: range: 0..1")


def _check_metadata(metadata: dict[str, Any]) -> None:
    for name, value in metadata.items():
        if name != "user_id":
            raise AnthropicRefusal(f"metadata.{name}: Extra inputs are not permitted")
        if value is not None and not isinstance(value, str):
            raise AnthropicRefusal("metadata.user_id: Input should be a valid string")
        if value is not None and len(value) > _MAX_USER_ID:
            raise AnthropicRefusal(f"metadata.user_id: String should have at most {_MAX_USER_ID} characters")


def _check_stop(sequences: list[Any]) -> None:
    for index, text in enumerate(sequences):
        if not isinstance(text, str):
            raise AnthropicRefusal(f"stop_sequences.{index}: Input should be a valid string")
        if not text.strip():
            raise AnthropicRefusal("stop_sequences: each stop sequence must contain non-whitespace")


def _check_system(system: str | list[Any]) -> None:
    for index, block in enumerate([] if isinstance(system, str) else system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise AnthropicRefusal(f"system.{index}.type: Input should be 'text'")
        for name in block:
            if name not in {"type", "text", "cache_control", "citations"}:
                raise AnthropicRefusal(f"system.{index}.{name}: Extra inputs are not permitted")
        if not isinstance(block.get("text"), str) or not block["text"].strip():
            raise AnthropicRefusal("system: text content blocks must contain non-whitespace text")


def _check_tool(where: str, tool: Any) -> str:
    if isinstance(tool, dict) and tool.get("type") == "mcp_toolset":
        return str(tool.get("mcp_server_name"))
    if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
        raise AnthropicRefusal(f"{where}.name: Field required")
    name = str(tool["name"])
    if not _TOOL_NAME.fullmatch(name):
        raise AnthropicRefusal(f"{where}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if tool.get("type") not in {None, "custom"}:
        return name  # server tools of Anthropic have other fields
    for field in tool:
        if field not in _TOOL_FIELDS:
            raise AnthropicRefusal(f"{where}.custom.{field}: Extra inputs are not permitted")
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        raise AnthropicRefusal(f"{where}.custom.input_schema: Field required")
    if schema.get("type") != "object":
        raise AnthropicRefusal(f"{where}.custom.input_schema.type: Input should be 'object'")
    return name


def _check_thinking(body: dict[str, Any], model: _Model) -> bool:
    """Return whether the request turns thinking on."""
    thinking = body.get("thinking")
    if thinking is None:
        return False
    kind = thinking.get("type")
    if kind not in _THINKING_TYPES:
        raise AnthropicRefusal(
            f"thinking: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        )
    own = {"adaptive": {"display"}, "enabled": {"display", "budget_tokens"}}.get(kind, set())
    for name in thinking:
        if name not in own | {"type"}:
            raise AnthropicRefusal(f"thinking.{kind}.{name}: Extra inputs are not permitted")
    if kind not in model.thinking:
        instead = ' Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        hint = instead if "adaptive" in model.thinking else ""
        raise AnthropicRefusal(f'"thinking.type.{kind}" is not supported for this model.{hint}')
    if kind == "enabled":
        _check_budget(thinking.get("budget_tokens"), body["max_tokens"])
    thinks = kind in {"adaptive", "enabled"}
    if thinks and body.get("temperature") not in {None, 1}:
        raise AnthropicRefusal("`temperature` may only be set to 1 when thinking is enabled.")
    if thinks and body.get("top_k") is not None:
        raise AnthropicRefusal("`top_k` must be unset when thinking is enabled.")
    return thinks


def _check_budget(budget: Any, max_tokens: int) -> None:
    if not isinstance(budget, int):
        raise AnthropicRefusal("thinking.enabled.budget_tokens: Field required")
    if budget < _LEAST_BUDGET:
        raise AnthropicRefusal(
            f"thinking.enabled.budget_tokens: Input should be greater than or equal to {_LEAST_BUDGET}"
        )
    if budget >= max_tokens:
        raise AnthropicRefusal("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_tool_choice(choice: dict[str, Any] | None, names: set[str], *, thinks: bool) -> None:
    if choice is None:
        return
    kind = choice.get("type")
    if kind not in {"auto", "any", "tool", "none"}:
        raise AnthropicRefusal(
            f"tool_choice: Input tag '{kind}' found using 'type' does not match any of the expected tags"
        )
    if not names:
        raise AnthropicRefusal("tool_choice may only be specified while providing tools.")
    own = {"type"} | ({"name"} if kind == "tool" else set())
    own |= {"disable_parallel_tool_use"} if kind != "none" else set()
    if not isinstance(choice.get("disable_parallel_tool_use", False), bool):
        raise AnthropicRefusal(f"tool_choice.{kind}.disable_parallel_tool_use: Input should be a valid boolean")
    for name in choice:
        if name not in own:
            raise AnthropicRefusal(f"tool_choice.{kind}.{name}: Extra inputs are not permitted")
    if kind == "tool" and choice.get("name") not in names:
        raise AnthropicRefusal(f"Tool '{choice.get('name')}' not found in provided tools")
    if thinks and kind in {"any", "tool"}:
        raise AnthropicRefusal("Thinking may not be enabled when tool_choice forces tool use.")


def _check_schemas(body: dict[str, Any], model: _Model) -> None:
    schemas = StrictSchemas()
    for index, tool in enumerate(body.get("tools") or []):
        if tool.get("strict") and not model.schemas:
            raise AnthropicRefusal(f"tools.{index}.custom.strict: strict tools are not supported by this model.")
        if tool.get("strict") and isinstance(tool.get("input_schema"), dict):
            schemas.add_tool(f"tools.{index}.custom.input_schema", tool["input_schema"])
    wanted = (body.get("output_config") or {}).get("format")
    if wanted is not None:
        schemas.add("output_config.format.schema", wanted["schema"])


def _check_output_config(config: dict[str, Any], model: _Model) -> bool:
    """Return whether the request asks for a form of the answer."""
    for name in config:
        if name not in {"effort", "format", "task_budget"}:
            raise AnthropicRefusal(f"output_config.{name}: Extra inputs are not permitted")
    if config.get("effort") not in {None, *_EFFORTS}:
        raise AnthropicRefusal(f"output_config.effort: Input should be {', '.join(repr(word) for word in _EFFORTS)}")
    if config.get("effort") not in {None, *model.efforts}:
        levels = ", ".join(sorted(model.efforts)) or "none"
        message = f"This model does not support effort level '{config['effort']}'. Supported levels: {levels}."
        raise AnthropicRefusal(message)
    wanted = config.get("format")
    if wanted is None:
        return False
    if not model.schemas:
        raise AnthropicRefusal("output_config.format: structured outputs are not supported by this model.")
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        raise AnthropicRefusal("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(wanted.get("schema"), dict):
        raise AnthropicRefusal("output_config.format.schema: Field required")
    return True
