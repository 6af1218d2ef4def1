"""Builds Messages requests. What the API cannot take is refused, and never dropped silently. Pure.

``reasoning_effort`` becomes ``output_config.effort`` with adaptive, summarised thinking on models 4.6 and later, and a
thinking budget on older models. ``none`` turns thinking off; ``minimal`` is the model's lowest effort. If
``tool_choice`` forces a call, only the effort is sent, because the API refuses thinking with a forced call.
"""

from __future__ import annotations

from typing import Any

from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.anthropic.conversation_blocks import conversation_of, system_of
from headrace_workers.providers.anthropic.json_answers import with_answer_form
from headrace_workers.providers.anthropic.media_blocks import checked_size
from headrace_workers.providers.anthropic.models import AS_OF, ModelFacts, facts_of
from headrace_workers.providers.anthropic.schemas import anthropic_schemas
from headrace_workers.providers.anthropic.tools import betas_of, container_of, tool_of
from headrace_workers.providers.shared.fitted_requests import with_fitted_schemas
from headrace_workers.providers.shared.provider_errors import model_failure, request_failure
from headrace_workers.providers.shared.refused_arguments import refuse_given
from headrace_workers.providers.shared.request_parts import accept_headers, encoded, merged
from headrace_workers.providers.shared.wire_format import ProviderSettings

_VERSION = "2026-10-21"
_VERSION_WITH_SAMPLING = "2023-06-01"
"""The last API version that takes temperature, top_p and top_k."""
_SAMPLING = ("temperature", "top_p", "top_k")

_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_BUDGETS = {"minimal": 1_024, "low": 2_048, "medium": 8_192, "high": 16_384, "xhigh": 24_576, "max": 30_000}
_LEAST_BUDGET = 1_024
_TIERS = ("auto", "standard_only")
_REFUSED = {
    "seed": "leave it out",
    "frequency_penalty": "leave it out",
    "presence_penalty": "leave it out",
    "logprobs": "leave it out",
    "verbosity": "ask for a short or a long answer in a message",
}


def build_request(request: RunRequest, settings: ProviderSettings, api_key: str | None) -> HttpRequest:
    """Return the HTTP request. Raises ProviderFailedError (``invalid_request``) for what the API cannot do."""
    request = with_fitted_schemas(request, anthropic_schemas, has_answer_schema=facts_of(request.model).schemas)
    body = _body(request)
    headers = [
        *accept_headers(stream=request.stream),
        ("anthropic-version", _VERSION_WITH_SAMPLING if any(name in body for name in _SAMPLING) else _VERSION),
    ]
    if betas := betas_of(request.tools, request.custom_options):
        headers.append(("anthropic-beta", ",".join(betas)))
    if api_key:
        headers.append(("x-api-key", api_key))
    return HttpRequest(settings.url("/v1/messages"), tuple(headers), checked_size(encoded(body)))


def _body(request: RunRequest) -> dict[str, Any]:
    refuse_given(request, "Anthropic", _REFUSED)
    facts = facts_of(request.model)
    max_tokens = request.max_output_tokens or facts.max_tokens
    body: dict[str, Any] = {"model": request.model, "max_tokens": max_tokens}
    if system := system_of(request.messages):
        body["system"] = system
    body["messages"] = conversation = conversation_of(request.messages)
    if not conversation:
        raise request_failure("Anthropic needs a message that is not a system message", "messages")
    if request.tools:
        body["tools"] = [tool_of(f"tools[{index}]", tool) for index, tool in enumerate(request.tools)]
    if container := container_of(request.messages, request.tools):
        body["container"] = container
    if (choice := _tool_choice(request)) is not None:
        body["tool_choice"] = choice
    _check_forced(request, facts, choice)
    _check_last_message(request, facts, conversation)
    body |= _tier_and_metadata(request)
    body |= _sampling(request, facts)
    if request.stop_sequences:
        body["stop_sequences"] = _stop(request.stop_sequences)
    if request.reasoning_effort is not None:
        body |= _reasoning(request, facts, max_tokens)
    body = with_answer_form(body, request)
    if request.stream:
        body["stream"] = True
    options = {name: value for name, value in request.custom_options.items() if name != "betas"}
    return merged(body, options, ("output_config",))


def _sampling(request: RunRequest, facts: ModelFacts) -> dict[str, float]:
    said = {name: getattr(request, name) for name in _SAMPLING}
    given = {name: value for name, value in said.items() if value is not None}
    if given and not facts.sampling:
        reason = f"{request.model} does not take {' or '.join(given)}"
        raise model_failure(reason, next(iter(given)), AS_OF, given)
    if given.get("temperature", 0) > 1:
        raise request_failure(f"Anthropic takes 0 to 1, not {given['temperature']}", "temperature")
    return given


def _reasoning(request: RunRequest, facts: ModelFacts, max_tokens: int) -> dict[str, Any]:
    """Return the fields for ``reasoning_effort``.

    A ``thinking`` in the caller's ``custom_options`` replaces them later.
    """
    effort = request.reasoning_effort
    if effort not in _EFFORTS:
        raise request_failure(f"Anthropic takes {', '.join(_EFFORTS)}, not {effort!r}", "reasoning_effort")
    if effort == "none":
        return _without_thinking(request.model, facts)
    if facts.thinking == "none":
        raise request_failure(f"{request.model} takes only none, because it does not reason", "reasoning_effort")
    is_forced = isinstance(request.tool_choice, dict) or request.tool_choice == "required"
    if facts.thinking == "adaptive":
        asked: dict[str, Any] = {"output_config": {"effort": _level(request.model, effort, facts)}}
        if not is_forced:
            asked["thinking"] = {"type": "adaptive", "display": "summarized"}
    elif is_forced:
        raise request_failure(
            f"{request.model} does not think when tool_choice forces a call: leave it out", "reasoning_effort"
        )
    else:
        asked = {"thinking": {"type": "enabled", "budget_tokens": _budget(effort, max_tokens)}}
    if "thinking" in asked and request.temperature not in {None, 1}:
        raise request_failure(f"{request.model} takes only 1 with reasoning_effort", "temperature")
    if "thinking" in asked and request.top_k is not None:
        raise request_failure(f"{request.model} does not take it with reasoning_effort", "top_k")
    return asked


def _without_thinking(model: str, facts: ModelFacts) -> dict[str, Any]:
    if facts.thinking == "none":
        return {}
    if facts.off == "never":
        off = {"thinking": {"type": "disabled"}}
        raise model_failure(f"{model} always thinks, so it takes no none: use low", "reasoning_effort", AS_OF, off)
    return {"thinking": {"type": facts.off}}


def _level(model: str, effort: str, facts: ModelFacts) -> str:
    level = "low" if effort == "minimal" else effort
    if facts.efforts is not None and level not in facts.efforts:
        reason = f"{model} takes none, minimal, {', '.join(facts.efforts)}, not {level}"
        raise model_failure(reason, "reasoning_effort", AS_OF, {"output_config": {"effort": level}})
    return level


def _check_forced(request: RunRequest, facts: ModelFacts, choice: dict[str, Any] | None) -> None:
    if choice is not None and choice["type"] in {"any", "tool"} and not facts.forced_tools:
        reason = f"{request.model} cannot be forced to call a tool: leave it out, or ask for the call in a message"
        raise model_failure(reason, "tool_choice", AS_OF, {"tool_choice": choice})


def _check_last_message(request: RunRequest, facts: ModelFacts, conversation: list[dict[str, Any]]) -> None:
    """Refuse a last message of the assistant, if the model does not go on from it.

    A turn that Anthropic has paused ends with a block of a server tool, and is taken by all models.
    """
    last = conversation[-1] if conversation else None
    if facts.prefill or last is None or last["role"] != "assistant":
        return
    content = last["content"]
    if isinstance(content, str) or content[-1]["type"] == "text":
        raise request_failure(
            f"{request.model} does not go on from a message of the assistant (as of {AS_OF}): end with a message of the "
            "user; custom_options={'messages': […]} is sent unchecked",
            f"messages[{len(request.messages) - 1}]",
        )


def _budget(effort: str, max_tokens: int) -> int:
    """Return a thinking budget that leaves half of the output tokens to the answer, if the API's minimum allows it."""
    if max_tokens <= _LEAST_BUDGET:
        raise request_failure(f"needs max_output_tokens above {_LEAST_BUDGET} on this model", "reasoning_effort")
    return min(_BUDGETS[effort], max(_LEAST_BUDGET, max_tokens // 2))


def _tool_choice(request: RunRequest) -> dict[str, Any] | None:
    """Return the tool choice. It also says that the model may call one tool at a time only."""
    choice = None if request.tool_choice is None else _choice(request.tool_choice)
    if request.parallel_tool_calls is not False:
        return choice  # several calls at once are the default
    choice = choice or {"type": "auto"}
    return choice if choice["type"] == "none" else choice | {"disable_parallel_tool_use": True}


def _choice(choice: str | dict[str, str]) -> dict[str, Any]:
    if isinstance(choice, dict) and "tool" in choice:
        return {"type": "tool", "name": choice["tool"]}
    if choice in ("auto", "none", "required"):
        return {"type": "any" if choice == "required" else choice}
    raise request_failure('takes auto, none, required or {"tool": name}', "tool_choice")


def _tier_and_metadata(request: RunRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if (tier := request.service_tier) is not None:
        if tier not in _TIERS:
            raise request_failure(f"Anthropic takes {' or '.join(_TIERS)}, not {tier!r}", "service_tier")
        fields["service_tier"] = tier
    if request.metadata:
        for key in request.metadata:
            if key != "user_id":
                raise request_failure("Anthropic takes only user_id; tags are kept with the span", f"metadata.{key}")
        fields["metadata"] = request.metadata
    return fields


def _stop(sequences: list[str]) -> list[str]:
    if not all(sequence.strip() for sequence in sequences):
        raise request_failure("takes no text that is empty or only white space", "stop_sequences")
    return sequences
