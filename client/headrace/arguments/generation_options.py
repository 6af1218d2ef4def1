"""Checks the arguments that say how a model generates its answer: sampling, limits, log probabilities, tier. Pure."""

from __future__ import annotations

from typing import Any, get_args

from headrace.arguments import checks
from headrace.arguments.plain_values import path_to, plain_text
from headrace.arguments.run_arguments import RunArguments, Verbosity
from headrace.errors import InvalidRequestError

_LEAST_SEED, _GREATEST_SEED = -(2**63), 2**63 - 1
_MAX_TOP_LOGPROBS = 20
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
"""The limits of metadata: pairs, characters of a key, characters of a value. All providers have these or higher ones."""


def generation_fields(arguments: RunArguments, *, has_tools: bool) -> dict[str, Any]:
    """Check these arguments, and return them as fields of the request. Raises InvalidRequestError."""
    return {
        "temperature": checks.number("temperature", arguments.get("temperature"), 0, 2),
        "max_output_tokens": checks.positive("max_output_tokens", arguments.get("max_output_tokens")),
        "top_p": checks.number("top_p", arguments.get("top_p"), 0, 1),
        "top_k": checks.positive("top_k", arguments.get("top_k")),
        "frequency_penalty": checks.number("frequency_penalty", arguments.get("frequency_penalty"), -2, 2),
        "presence_penalty": checks.number("presence_penalty", arguments.get("presence_penalty"), -2, 2),
        "seed": checks.integer("seed", arguments.get("seed"), _LEAST_SEED, _GREATEST_SEED),
        "stop_sequences": checks.strings("stop_sequences", arguments.get("stop_sequences")),
        "reasoning_effort": checks.text("reasoning_effort", arguments.get("reasoning_effort")),
        "parallel_tool_calls": _parallel_tool_calls(arguments.get("parallel_tool_calls"), has_tools=has_tools),
        "verbosity": _verbosity(arguments.get("verbosity")),
        "service_tier": checks.word("service_tier", arguments.get("service_tier")),
        "metadata": _metadata(arguments.get("metadata")),
        **_probabilities(arguments.get("logprobs"), arguments.get("top_logprobs")),
    }


def _parallel_tool_calls(value: Any, *, has_tools: bool) -> bool | None:
    given = checks.flag("parallel_tool_calls", value)
    if given is not None and not has_tools:
        raise InvalidRequestError("is given, but there are no tools", "parallel_tool_calls")
    return given


def _verbosity(value: Any) -> str | None:
    return None if value is None else checks.one_of("verbosity", value, get_args(Verbosity))


def _probabilities(logprobs: Any, top: Any) -> dict[str, Any]:
    """Return ``logprobs`` and ``top_logprobs``. The alternatives are part of the log probabilities."""
    if isinstance(logprobs, int) and not isinstance(logprobs, bool):
        raise InvalidRequestError("takes a bool; top_logprobs takes the number of alternatives", "logprobs")
    wanted = checks.flag("logprobs", logprobs)
    count = checks.integer("top_logprobs", top, 0, _MAX_TOP_LOGPROBS)
    if count is not None and wanted is False:
        raise InvalidRequestError("is given, but logprobs is False", "top_logprobs")
    return {"logprobs": True if count is not None else wanted, "top_logprobs": count}


def _metadata(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    given = checks.mapping("metadata", value)
    if len(given) > _MAX_PAIRS:
        raise InvalidRequestError(f"takes at most {_MAX_PAIRS} pairs, got {len(given)}", "metadata")
    texts = {key: plain_text(path_to("metadata", key), text) for key, text in given.items()}
    for key, text in texts.items():
        if not key or len(key) > _MAX_KEY:
            raise InvalidRequestError(f"takes keys of 1 to {_MAX_KEY} characters", path_to("metadata", key[:_MAX_KEY]))
        if len(text) > _MAX_VALUE:
            reason = f"takes at most {_MAX_VALUE} characters, got {len(text)}"
            raise InvalidRequestError(reason, path_to("metadata", key))
    return texts
