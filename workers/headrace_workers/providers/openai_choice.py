"""Chooses between OpenAI's two APIs for one run: by the model, and by what is asked. Pure.

The wire formats know best what they cannot send, so the choice asks them: the request goes to the first API that takes
it. That is Chat Completions, unless the model's row in ``openai_models`` speaks for Responses. If both refuse, the error
names both reasons. Keys in ``custom_options`` are sent unchecked; here, a key that only one API has decides for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

from headrace.wire.run_request import RunRequest
from headrace_workers.providers.shared.openai_models import (
    facts_of,
    is_likely_on_responses_only,
    likely_reasons,
)
from headrace_workers.providers.shared.openai_refusals import (
    chat_refusal,
    check_on_both,
    effort_of,
    has_functions,
    says_no_effort,
)
from headrace_workers.providers.shared.provider_errors import request_failure
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure

CHAT = "openai-chat"
RESPONSES = "openai-responses"
_NAMES = {CHAT: "Chat Completions", RESPONSES: "the Responses API"}

# From openai 3.57.0 for Python: the fields of one API that the other does not have.
_ONLY_CHAT_NAMES = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens modalities n
    prediction presence_penalty reasoning_effort response_format seed stop verbosity web_search_options
"""
_ONLY_RESPONSES_NAMES = """
    access_programs background background_options context_management conversation image include instructions
    max_output_tokens max_tool_calls previous_response_id prompt reasoning text truncation
"""
_FOREIGN_OPTIONS = {CHAT: frozenset(_ONLY_RESPONSES_NAMES.split()), RESPONSES: frozenset(_ONLY_CHAT_NAMES.split())}
"""Wire format → keys of ``custom_options`` that only the other API has."""

Built = TypeVar("Built")


def choose(request: RunRequest, build: Callable[[str], Built]) -> Built:
    """Return what ``build`` returns for the wire format to use: the request in it.

    ``build`` takes the name of a wire format, and raises ProviderFailedError for what the format cannot do. Raises ProviderFailedError (``invalid_request``) if neither API takes the request.
    """
    if not (request.tools or request.reasoning_effort) and says_no_effort(request.custom_options):
        order = _plain_order(request.model)
    else:
        order = _order(request)
    refusals: list[ProviderFailure] = []
    for name in order:
        try:
            _check_options(request, name)
            return build(name)
        except ProviderFailedError as error:
            if error.failure.kind != "invalid_request" or error.failure.code is not None:
                raise
            refusals.append(error.failure)
        # What the model refuses everywhere is no reason to try the other API.
        check_on_both(request, is_chat=order[0] == CHAT)
    raise _refused_by_both(dict(zip(order, refusals, strict=True)))


def _order(request: RunRequest) -> tuple[str, str]:
    return (RESPONSES, CHAT) if prefers_responses(request) else (CHAT, RESPONSES)


@lru_cache(maxsize=256)
def _plain_order(model: str) -> tuple[str, str]:
    """Return the order for a request without tools and effort: the model alone decides."""
    return _order(RunRequest(provider="", model=model, messages=[], stream=False))


def prefers_responses(request: RunRequest) -> bool:
    """Return whether the Responses API is tried first.

    It is where Chat Completions is known to refuse the model or its tools. It also is where that is likely: for a model
    that is not in the table yet, for tools of a model that reasons by default, and for the effort ``max``.
    """
    model = request.model
    facts = facts_of(model)
    if facts is None:
        asks_for_more = bool(request.tools) or effort_of(request) == "max"
        return is_likely_on_responses_only(model) or (asks_for_more and likely_reasons(model))
    effort = effort_of(request)
    if effort == "max" or chat_refusal(request, facts) is not None:
        return True
    return facts.chat_tools == "without effort" and has_functions(request) and facts.is_reasoning(effort)


def _check_options(request: RunRequest, name: str) -> None:
    foreign = _FOREIGN_OPTIONS[name]
    if not foreign.isdisjoint(request.custom_options):
        key = next(key for key in request.custom_options if key in foreign)
        raise request_failure(f"{_NAMES[name]} has no such field", f"custom_options.{key}")


def _refused_by_both(refusals: dict[str, ProviderFailure]) -> ProviderFailedError:
    """Return one error for two refusals. The first refusal is enough if both are about the same argument."""
    first, second = refusals.values()
    if first.argument == second.argument:
        return ProviderFailedError(first)
    said = " and ".join(
        f"{_NAMES[name]} refuses {failure.argument} ({failure.reason})" for name, failure in refusals.items()
    )
    return request_failure(f"neither of OpenAI's APIs takes this request: {said}. Leave one of the two out")
