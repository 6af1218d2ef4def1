"""Asks Claude for an answer that fits a JSON schema, and refuses what the API does not take together with it. Pure.

Models before Claude 4.5 take no schema. They get a tool with the schema, and must call it; ``MessageMapper`` turns the
input of the call into the text of the answer.
"""

from __future__ import annotations

from typing import Any

from headrace.wire.run_request import RunRequest
from headrace_workers.providers.anthropic.models import facts_of
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.response_formats import ResponseFormat, read_response_format

_DESCRIPTION = "Gives the final answer. Call it once, with the whole answer."


def answer_tool_of(request: RunRequest) -> str | None:
    """Return the name of the tool whose input is the answer; None if the answer is a text."""
    if request.response_format is None or facts_of(request.model).schemas:
        return None
    form = read_response_format(request.response_format)
    if form.kind != "json_schema":
        return None
    name = form.name
    while any(tool.name == name for tool in request.tools):
        name = f"{name[:62]}_2"
    return name


def with_answer_form(body: dict[str, Any], request: RunRequest) -> dict[str, Any]:
    """Return the body with what asks for the form of the answer."""
    form = None if request.response_format is None else read_response_format(request.response_format)
    if form is None or form.kind == "text":
        return body
    where = "response_type" if request.fits_schemas else "response_format"
    if form.kind == "json_object":
        raise request_failure(
            "Anthropic does not take json_object: give a JSON schema, or a type as response_type", "response_format"
        )
    _check_messages(body["messages"], len(request.messages) - 1)
    name = answer_tool_of(request)
    if name is not None:
        return _with_answer_tool(body, request, form, name, where)
    wanted = {"type": "json_schema", "schema": form.schema}
    return body | {"output_config": body.get("output_config", {}) | {"format": wanted}}


def _with_answer_tool(
    body: dict[str, Any], request: RunRequest, form: ResponseFormat, name: str, where: str
) -> dict[str, Any]:
    """Return the body with the tool that the model must call. It may call another tool before."""
    if form.schema.get("type") != "object":
        raise request_failure(f"{request.model} answers only with an object: give a schema of type object", where)
    if request.tool_choice not in (None, "auto", "none"):
        raise request_failure(
            f"cannot force a call beside response_format: {request.model} gives an answer with a schema by a call of its own",
            "tool_choice",
        )
    if (body.get("thinking") or {}).get("type") in {"enabled", "adaptive"}:
        raise request_failure(
            f"{request.model} does not think while it answers with a schema: leave it out, or use Claude 4.5 or later",
            "reasoning_effort",
        )
    tool = {"name": name, "description": form.description or _DESCRIPTION, "input_schema": form.schema}
    may_call_others = request.tools and request.tool_choice != "none"
    choice: dict[str, Any] = {"type": "any"} if may_call_others else {"type": "tool", "name": name}
    return body | {
        "tools": [*body.get("tools", ()), tool],
        "tool_choice": choice | {"disable_parallel_tool_use": True},
    }


def _check_messages(messages: list[dict[str, Any]], last: int) -> None:
    """Refuse the beginning of an answer, and citations. ``last`` is the index of the caller's last message."""
    content = messages[-1]["content"] if messages else ""
    if messages and messages[-1]["role"] == "assistant" and (isinstance(content, str) or _ends_in_text(content)):
        raise request_failure(
            "a message of the assistant at the end begins the answer; Anthropic does not take it together with a schema",
            f"messages[{last}]",
        )
    if _has_citations(messages):
        raise request_failure(
            "a document asks for citations; Anthropic does not take them together with a schema: leave out one of them",
            "messages",
        )


def _ends_in_text(blocks: list[dict[str, Any]]) -> bool:
    """Whether the last block is a text. A paused turn of server tools, which ends otherwise, is sent back as it is."""
    return bool(blocks) and blocks[-1].get("type") == "text"


def _has_citations(value: Any) -> bool:
    if isinstance(value, list):
        return any(_has_citations(part) for part in value)
    if not isinstance(value, dict):
        return False
    citations = value.get("citations")
    is_asked = isinstance(citations, dict) and citations.get("enabled") is True
    return is_asked or _has_citations(value.get("content"))
