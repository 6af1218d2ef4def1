"""Writes a result as the body of OpenAI's Responses API, whatever provider it came from. Pure.

Items that came from this API are written as they came, with their ids and their encrypted reasoning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from headrace.batch.records.chat_completion import calls_of, logprobs_of
from headrace.types import ImagePart, Part, RunLocalResult, Usage

_API = "openai-responses"
_INCOMPLETE = {"max_tokens": "max_output_tokens", "content_filter": "content_filter", "error": "content_filter"}
_ECHOED = ("max_output_tokens", "metadata", "service_tier", "temperature", "top_p", "top_logprobs")
"""Arguments of the row that the API repeats in its answer, under the same names."""


class ResponseTokens(msgspec.Struct, frozen=True, gc=False):
    """OpenAI's ``usage`` of a response."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """OpenAI's ``response``."""

    id: str
    object: str
    created_at: int
    status: str
    error: None = None
    incomplete_details: dict[str, str] | None
    instructions: str | None = None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    tool_choice: Any
    tools: Any
    usage: ResponseTokens | None
    max_output_tokens: Any = None
    metadata: Any = None
    service_tier: str | UnsetType = UNSET
    temperature: Any = None
    top_p: Any = None
    top_logprobs: int | UnsetType = UNSET


def response_of(result: RunLocalResult, arguments: Mapping[str, Any], now: float) -> ResponseBody:
    """Return the response of a result. ``arguments``: the row's. ``now``: seconds since the epoch."""
    reason = _INCOMPLETE.get(result.finish_reason or "")
    is_whole = reason is None
    return ResponseBody(
        id=f"resp_{result.span_id[3:]}",
        object="response",
        created_at=int(now),
        status="completed" if is_whole else "incomplete",
        incomplete_details=None if reason is None else {"reason": reason},
        model=result.model,
        output=_output(result, "completed" if is_whole else "incomplete"),
        parallel_tool_calls=arguments.get("parallel_tool_calls") is not False,
        tool_choice=_tool_choice(arguments),
        tools=arguments.get("tools") or [],
        usage=_usage(result.usage),
        **{name: value for name in _ECHOED if (value := arguments.get(name)) is not None},
    )


def _tool_choice(arguments: Mapping[str, Any]) -> Any:
    options = arguments.get("custom_options") or {}
    choice = options.get("tool_choice", arguments.get("tool_choice", "auto"))
    if not isinstance(choice, Mapping) or "tool" not in choice:
        return choice
    tools = arguments.get("tools") or []
    kinds = {tool.get("name"): tool.get("type") for tool in tools if isinstance(tool, Mapping)}
    kind = kinds.get(choice["tool"], "function" if choice["tool"] in kinds else choice["tool"])
    return {"type": kind, "name": choice["tool"]} if kind in {"function", "custom"} else {"type": kind}


def _output(result: RunLocalResult, status: str) -> list[dict[str, Any]]:
    content = result.message.content
    own = [] if isinstance(content, str) else [item for part in content if (item := _own_item(part)) is not None]
    if own:
        return own + _cut_calls(result, len(own))
    name = result.span_id[3:]
    output: list[dict[str, Any]] = []
    if result.reasoning:
        summary = [{"type": "summary_text", "text": result.reasoning}]
        output.append({"type": "reasoning", "id": f"rs_{name}", "summary": summary})
    output += _images(result)
    if texts := _texts(result):
        output.append(
            {
                "type": "message",
                "id": f"msg_{name}",
                "role": "assistant",
                "status": status,
                "content": texts,
            }
        )
    for place, call in enumerate(calls_of(result)):
        is_cut = place >= len(result.tool_calls)
        output.append(
            {
                "type": "function_call",
                "id": f"fc_{name}_{place}",
                "call_id": call.id,
                "name": call.function.name,
                "arguments": call.function.arguments,
                "status": "incomplete" if is_cut else "completed",
            }
        )
    return output


def _texts(result: RunLocalResult) -> list[dict[str, Any]]:
    texts: list[dict[str, Any]] = []
    if result.text or not (result.refusal or result.tool_calls or result.incomplete_tool_calls or result.images):
        texts.append({"type": "output_text", "text": result.text, "annotations": []})
    if result.refusal:
        texts.append({"type": "refusal", "refusal": result.refusal})
    if texts and result.logprobs is not None:
        texts[-1]["logprobs"] = [_with_bytes(token) for token in logprobs_of(result.logprobs)]
    return texts


def _with_bytes(token: dict[str, Any]) -> dict[str, Any]:
    """Return a token with its bytes: this API always has them."""
    tops = [top | {"bytes": _bytes(top)} for top in token["top_logprobs"]]
    return token | {"bytes": _bytes(token), "top_logprobs": tops}


def _bytes(token: dict[str, Any]) -> list[int]:
    return list(str(token["token"]).encode(errors="replace")) if token["bytes"] is None else token["bytes"]


def _own_item(part: Part) -> dict[str, Any] | None:
    said = part.provider_data or {}
    item = said.get("item") if said.get("api") == _API else None
    if not isinstance(item, dict):
        return None
    return item | {"result": part.data} if isinstance(part, ImagePart) and part.data else item


def _cut_calls(result: RunLocalResult, place: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "function_call",
            "id": f"fc_{result.span_id[3:]}_{place}",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
            "status": "incomplete",
        }
        for call in result.incomplete_tool_calls
    ]


def _images(result: RunLocalResult) -> list[dict[str, Any]]:
    return [
        {
            "type": "image_generation_call",
            "id": f"ig_{result.span_id[3:]}_{place}",
            "status": "completed",
            "result": image.data,
        }
        for place, image in enumerate(result.images)
        if image.data
    ]


def _usage(usage: Usage) -> ResponseTokens | None:
    if usage.source == "none":
        return None
    read = {"cached_tokens": usage.cached_input_tokens, "cache_write_tokens": usage.cache_write_tokens}
    written = {"reasoning_tokens": usage.reasoning_tokens}
    return ResponseTokens(usage.input_tokens, read, usage.output_tokens, written, usage.total_tokens)
