"""Refuses what an OpenAI model does not take, before anything is sent, by the table of ``openai_models``. Pure.

Only the caller's arguments are checked. ``custom_options`` is sent as it is, so nobody is locked out by a wrong row.
"""

from __future__ import annotations

from typing import Any

from headrace.settings.wire_format_names import OPENAI_BY_MODEL
from headrace.wire.run_request import OptionalFields, RunRequest
from headrace_workers.providers.shared.openai_models import AS_OF, OpenAIModel, facts_of
from headrace_workers.providers.shared.provider_errors import model_failure, request_failure
from headrace_workers.providers.shared.server_tools import is_function
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings

_SERVICES = ("openai", "openai-chat", "openai-responses")

_CHECKED = OptionalFields(
    "reasoning_effort",
    "verbosity",
    "parallel_tool_calls",
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logprobs",
    "top_logprobs",
)
"""Arguments that some model refuses on both APIs."""
_EFFORT_KEYS = frozenset(("reasoning_effort", "reasoning"))
"""Keys of ``custom_options`` that may say an effort."""


def is_openai(settings: ProviderSettings) -> bool:
    """Return whether a provider is OpenAI itself, or is said to be like it (``api = "openai"``)."""
    return settings.name in _SERVICES or settings.api == OPENAI_BY_MODEL


def effort_of(request: RunRequest) -> str | None:
    """Return the level of effort that the request asks for, also if it stands in ``custom_options``."""
    options = request.custom_options
    if _EFFORT_KEYS.isdisjoint(options):
        return request.reasoning_effort
    reasoning = options.get("reasoning")
    inner = reasoning.get("effort") if isinstance(reasoning, dict) else None
    for effort in (options.get("reasoning_effort"), inner, request.reasoning_effort):
        if isinstance(effort, str):
            return effort
    return None


def has_functions(request: RunRequest) -> bool:
    """Return whether the request offers functions. Custom tools of OpenAI take text, and count as no functions."""
    return bool(request.tools) and any(is_function(tool, may_be_custom=False) for tool in request.tools)


def check_chat(request: RunRequest) -> None:
    """Raise ProviderFailedError if the model is known to refuse this request on Chat Completions."""
    check_on_both(request, is_chat=True)
    facts = facts_of(request.model)
    if facts is None:
        return
    if (refusal := chat_refusal(request, facts)) is not None:
        raise refusal
    if request.stop_sequences and not facts.stop:
        raise _refusal("stop_sequences", f"{request.model} takes none", {"stop": request.stop_sequences})


def check_plain_chat(model: str) -> None:
    """Raise ProviderFailedError as :func:`check_chat` does for a request with messages and ``custom_options`` only."""
    if (facts := facts_of(model)) is not None and not facts.on_chat:
        raise _not_on_chat(model)


def says_no_effort(options: dict[str, Any]) -> bool:
    """Return whether ``custom_options`` surely say nothing of an effort."""
    return _EFFORT_KEYS.isdisjoint(options)


def check_on_both(request: RunRequest, *, is_chat: bool) -> None:
    """Raise ProviderFailedError if the model is known to refuse this request on both of OpenAI's APIs.

    ``is_chat`` decides how the error writes a value for ``custom_options``.
    """
    if not _CHECKED.has_any(request) or (facts := facts_of(request.model)) is None:
        return
    effort, verbosity = request.reasoning_effort, request.verbosity
    _check_effort(request, facts, {"reasoning_effort": effort} if is_chat else {"reasoning": {"effort": effort}})
    _check_while_reasoning(request, facts)
    if (value := request.parallel_tool_calls) is not None and not facts.parallel:
        raise _refusal("parallel_tool_calls", f"{request.model} does not take it", {"parallel_tool_calls": value})
    if verbosity not in {None, "medium"} and facts.reasons == "never":
        option = {"verbosity": verbosity} if is_chat else {"text": {"verbosity": verbosity}}
        raise _refusal("verbosity", f"{request.model} takes only medium", option)


def chat_refusal(request: RunRequest, facts: OpenAIModel) -> ProviderFailedError | None:
    """Return why Chat Completions as a whole refuses the model, or its functions; None if it does not."""
    if not facts.on_chat:
        return _not_on_chat(request.model)
    if not has_functions(request) or facts.calls_tools_on_chat(effort_of(request)):
        return None
    reason = f"{request.model} calls no functions on Chat Completions"
    also = "leave tools out, or use the provider openai-responses"
    if facts.chat_tools != "no":
        reason, also = (
            f"{reason} while it reasons",
            'give reasoning_effort="none", or use the provider openai-responses',
        )
    return request_failure(f"{reason} (as of {AS_OF}): {also}", "tools")


def _not_on_chat(model: str) -> ProviderFailedError:
    reason = f"Chat Completions does not have {model} (as of {AS_OF}): use the provider openai-responses"
    return request_failure(reason, "model")


def _check_effort(request: RunRequest, facts: OpenAIModel, option: dict[str, Any]) -> None:
    effort = request.reasoning_effort
    if effort is None or facts.efforts is None or effort in facts.efforts:
        return
    if not facts.efforts:
        raise _refusal("reasoning_effort", f"{request.model} does not take it, because it does not reason", option)
    raise _refusal("reasoning_effort", f"{request.model} takes {', '.join(facts.efforts)}, not {effort}", option)


def _check_while_reasoning(request: RunRequest, facts: OpenAIModel) -> None:
    """Refuse sampling. The default values are let through."""
    if not facts.is_reasoning(effort_of(request)):
        return
    hint = 'give reasoning_effort="none", or leave it out' if "none" in (facts.efforts or ()) else "leave it out"
    for name, default in (("temperature", 1), ("top_p", 1), ("frequency_penalty", 0), ("presence_penalty", 0)):
        value = getattr(request, name)
        if value is not None and value != default:
            reason = f"{request.model} takes only {default} while it reasons: {hint}"
            raise _refusal(name, reason, {name: value})
    for name in ("logprobs", "top_logprobs"):
        if value := getattr(request, name):
            raise _refusal(name, f"{request.model} has none while it reasons: {hint}", {name: value})


def _refusal(argument: str, reason: str, option: dict[str, Any]) -> ProviderFailedError:
    return model_failure(reason, argument, AS_OF, option)
