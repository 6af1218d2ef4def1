"""Builds requests to ``streamGenerateContent``.

What the API cannot take is refused, and never dropped silently. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec

from headrace.types import Tool
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.google.contents import KEYS, contents_of, system_instruction_of
from headrace_workers.providers.google.models import AS_OF, BUDGETS, LEVELS, facts_of
from headrace_workers.providers.google.schemas import google_schemas
from headrace_workers.providers.shared.fitted_requests import with_fitted_schemas
from headrace_workers.providers.shared.provider_errors import model_failure, request_failure
from headrace_workers.providers.shared.refused_arguments import refuse_given
from headrace_workers.providers.shared.request_parts import encoded
from headrace_workers.providers.shared.response_formats import read_response_format
from headrace_workers.providers.shared.server_tools import camel_case, check_owner, chosen_tool, is_function
from headrace_workers.providers.shared.wire_format import ProviderSettings

API_VERSION = "v1beta"
"""A superset of ``v1``: preview models, ``VALIDATED`` function calls and JSON schemas work here first."""

_MAX_STOP_SEQUENCES = 5
_SEEDS = range(-(2**31), 2**31)
_TIERS = ("flex", "standard", "priority")
_MAX_LABEL = 63
_REFUSED = {"verbosity": "ask for a short or a long answer in a message"}
_TOOL_CHOICES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

_HAS_TOOLS_OR_JSON = re.compile(r"gemini-[12](?!\d)")
"""Models that take tools or a JSON answer, but not both in one request."""


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
    request = with_fitted_schemas(request, google_schemas)
    headers = [("content-type", "application/json")]
    if api_key:
        headers.append(("x-goog-api-key", api_key))
    model = request.model if request.model.startswith(("models/", "tunedModels/")) else f"models/{request.model}"
    url = settings.url(f"/{API_VERSION}/{quote(model, safe='/')}:streamGenerateContent?alt=sse")
    return HttpRequest(url, tuple(headers), encoded(_body(request)))


def continue_request(sent: HttpRequest, token: str) -> HttpRequest:
    """Return the same request with a continuation token."""
    body = msgspec.json.decode(sent.body)
    return msgspec.structs.replace(sent, body=msgspec.json.encode(body | {"continuationToken": token}))


def _body(request: RunRequest) -> dict[str, Any]:
    refuse_given(request, "Google", _REFUSED)
    contents = contents_of(request.messages, request.model)
    if not contents:
        raise request_failure("Google needs a message that is not a system message", "messages")
    _check_last_turn(request, contents)
    body: dict[str, Any] = {"contents": contents}
    system = system_instruction_of(request.messages)
    if system:
        body["systemInstruction"] = system
    if request.tools:
        body["tools"] = _tools(request.tools)
    calling = _function_calling(request)
    if calling:
        body["toolConfig"] = {"functionCallingConfig": calling}
    generation = _generation_config(request)
    if generation:
        body["generationConfig"] = generation
    body |= _tier_and_labels(request)
    return _merged(body, request.custom_options)


def _tier_and_labels(request: RunRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if (tier := request.service_tier) is not None:
        if tier not in _TIERS:
            raise request_failure(f"Google takes {', '.join(_TIERS)}, not {tier!r}", "service_tier")
        fields["serviceTier"] = tier
    if request.metadata:
        for key, text in request.metadata.items():
            if max(len(key), len(text)) > _MAX_LABEL or key != key.lower() or text != text.lower():
                reason = f"becomes a label of Google: at most {_MAX_LABEL} characters, and no capital letters"
                raise request_failure(reason, f"metadata.{key}")
        fields["labels"] = request.metadata
    return fields


def _tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return all functions as one tool, and each of Google's server tools as another."""
    functions: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for index, tool in enumerate(tools):
        if is_function(tool):
            functions.append(_function(tool) | KEYS.of("tool", f"tools[{index}]", tool.extra))
        else:
            own.append(_own_tool(f"tools[{index}]", tool))
    return [{"functionDeclarations": functions}, *own] if functions else own


def _own_tool(where: str, tool: Tool) -> dict[str, Any]:
    """Return a server tool of Google, given as ``{"google_search": {…}}`` or as ``{"type": "google_search", …}``."""
    check_owner(where, tool, "Google", KEYS.api)
    for key in ("name", "description", "parameters", "strict"):
        if getattr(tool, key):
            raise request_failure(f"Google's tool {tool.type} has none", f"{where}.{key}")
    return {camel_case(tool.type): tool.extra or {}}


def _function(tool: Tool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    if tool.parameters:
        # ``parameters`` would take only Google's subset of OpenAPI.
        function["parametersJsonSchema"] = tool.parameters
    return function


def _function_calling(request: RunRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if request.parallel_tool_calls is False and choice != "none":
        raise request_failure("Google cannot turn it off: leave it out, and answer all calls", "parallel_tool_calls")
    if isinstance(choice, dict):
        tool = chosen_tool(choice, request.tools)
        if not is_function(tool):
            raise request_failure(
                f"Google decides itself when it uses {tool.type}: only functions can be demanded", "tool_choice"
            )
        return {"mode": "ANY", "allowedFunctionNames": [tool.name]}
    if choice is not None and choice not in _TOOL_CHOICES:
        raise request_failure('takes auto, none, required or {"tool": name}', "tool_choice")
    is_strict = any(tool.strict for tool in request.tools)
    if is_strict and choice in {None, "auto"}:
        # Strictness is a setting for all functions here.
        return {"mode": "VALIDATED"}
    return {} if choice is None else {"mode": _TOOL_CHOICES[choice]}


def _generation_config(request: RunRequest) -> dict[str, Any]:
    if len(request.stop_sequences) > _MAX_STOP_SEQUENCES:
        sequences = len(request.stop_sequences)
        raise request_failure(f"Google takes at most {_MAX_STOP_SEQUENCES}, not {sequences}", "stop_sequences")
    config: dict[str, Any] = {
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "frequencyPenalty": request.frequency_penalty,
        "presencePenalty": request.presence_penalty,
        "seed": _seed(request.seed),
        "responseLogprobs": request.logprobs or None,
        "logprobs": request.top_logprobs,
        "maxOutputTokens": request.max_output_tokens,
        "stopSequences": request.stop_sequences or None,
    }
    config = {name: value for name, value in config.items() if value is not None}
    if request.response_format is not None:
        config |= _response_format(request)
    if request.reasoning_effort is not None:
        config["thinkingConfig"] = _thinking(request.model, request.reasoning_effort)
    return config


def _seed(seed: int | None) -> int | None:
    if seed is not None and seed not in _SEEDS:
        raise request_failure(f"Google takes 32 bits, from {_SEEDS[0]} to {_SEEDS[-1]}, not {seed}", "seed")
    return seed


def _response_format(request: RunRequest) -> dict[str, Any]:
    """Return the fields for ``response_format``. The API has no name and no strictness for a schema."""
    form = read_response_format(request.response_format or {})
    if form.kind != "text" and request.tools and _HAS_TOOLS_OR_JSON.search(request.model):
        raise request_failure(
            f"{request.model} does not answer in JSON while it has tools: use Gemini 3 or later, or leave one of them out",
            "response_type" if request.fits_schemas else "response_format",
        )
    match form.kind:
        case "text":
            return {}
        case "json_object":
            return {"responseMimeType": "application/json"}
        case "json_schema":
            return {"responseMimeType": "application/json", "responseJsonSchema": form.schema}


def _thinking(model: str, effort: str) -> dict[str, Any]:
    facts = facts_of(model)
    levels = LEVELS if facts is None else facts.efforts
    if not levels:
        raise request_failure(f"{model} does not take it", "reasoning_effort")
    if effort not in levels:
        reason = f"{model} takes {', '.join(levels)}, not {effort}"
        if facts is None or facts.has_budget or effort not in LEVELS:
            raise request_failure(reason, "reasoning_effort")
        level = {"generationConfig": {"thinkingConfig": {"thinkingLevel": effort.upper()}}}
        raise model_failure(reason, "reasoning_effort", AS_OF, level)
    if facts is not None and facts.has_budget:
        return {"includeThoughts": effort != "none", "thinkingBudget": BUDGETS[effort]}
    return {"includeThoughts": True, "thinkingLevel": effort.upper()}


def _check_last_turn(request: RunRequest, contents: list[dict[str, Any]]) -> None:
    """Refuse a last turn of the model, if the model does not go on from it. A call without its result is no such turn."""
    facts = facts_of(request.model)
    last = contents[-1]
    if facts is None or facts.prefill or last["role"] != "model" or "functionCall" in last["parts"][-1]:
        return
    raise request_failure(
        f"{request.model} does not go on from a message of the assistant (as of {AS_OF}): end with a message of the "
        "user; custom_options={'contents': […]} is sent unchecked",
        f"messages[{len(request.messages) - 1}]",
    )


def _merged(mine: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    """Merge the caller's options into the body, object by object. Lists of tools are joined."""
    merged = dict(mine)
    for name, value in options.items():
        own = mine.get(name)
        if isinstance(own, dict) and isinstance(value, dict):
            merged[name] = _merged(own, value)
        elif name == "tools" and isinstance(own, list) and isinstance(value, list):
            merged[name] = own + value
        else:
            merged[name] = value
    return merged
