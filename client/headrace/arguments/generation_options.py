"""Checks the arguments that say how a model generates its answer: sampling, limits, log probabilities, tier. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

from headrace.arguments import checks
from headrace.arguments.plain_values import path_to, plain_text
from headrace.arguments.run_arguments import RunArguments, Verbosity
from headrace.errors import InvalidRequestError

_LEAST_SEED, _GREATEST_SEED = -(2**63), 2**63 - 1
_MAX_TOP_LOGPROBS = 20
_MAX_PAIRS, _MAX_KEY, _MAX_VALUE = 16, 64, 512
"""OpenAI's limits of metadata: pairs, characters of a key, characters of a value. Other limits are the wire format's."""

_Check = Callable[[str, Any], Any]
"""Checks the value of a named argument, and returns it in plain types."""


def _number(low: float, high: float) -> _Check:
    return lambda name, value: checks.number(name, value, low, high)


def _integer(low: int, high: int) -> _Check:
    return lambda name, value: checks.integer(name, value, low, high)


def generation_fields(arguments: RunArguments, *, has_tools: bool) -> dict[str, Any]:
    """Check these arguments, and return the given ones as fields of the request. Raises InvalidRequestError."""
    fields: dict[str, Any] = {}
    if _CHECKS.keys().isdisjoint(arguments):  # most runs give none of them
        return fields
    for name, value in arguments.items():
        check = _CHECKS.get(name)
        if check is not None and value is not None:
            fields[name] = check(name, value)
    if "parallel_tool_calls" in fields and not has_tools:
        raise InvalidRequestError("is given, but there are no tools", "parallel_tool_calls")
    if "top_logprobs" in fields:
        if fields.get("logprobs") is False:
            raise InvalidRequestError("is given, but logprobs is False", "top_logprobs")
        fields["logprobs"] = True  # the alternatives are part of the log probabilities
    return fields


def _logprobs(name: str, value: Any) -> bool | None:
    if isinstance(value, int) and not isinstance(value, bool):
        raise InvalidRequestError("takes a bool; top_logprobs takes the number of alternatives", name)
    return checks.flag(name, value)


def _metadata(name: str, value: Any) -> dict[str, str]:
    given = checks.mapping(name, value)
    if len(given) > _MAX_PAIRS:
        raise InvalidRequestError(f"takes at most {_MAX_PAIRS} pairs, got {len(given)}", name)
    texts = {key: plain_text(path_to(name, key), text) for key, text in given.items()}
    for key, text in texts.items():
        if not key or len(key) > _MAX_KEY:
            raise InvalidRequestError(f"takes keys of 1 to {_MAX_KEY} characters", path_to(name, key[:_MAX_KEY]))
        if len(text) > _MAX_VALUE:
            reason = f"takes at most {_MAX_VALUE} characters, got {len(text)}"
            raise InvalidRequestError(reason, path_to(name, key))
    return texts


_CHECKS: dict[str, _Check] = {
    "temperature": _number(0, 2),
    "max_output_tokens": checks.positive,
    "top_p": _number(0, 1),
    "top_k": checks.positive,
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "seed": _integer(_LEAST_SEED, _GREATEST_SEED),
    "stop_sequences": checks.strings,
    "reasoning_effort": checks.text,
    "logprobs": _logprobs,
    "top_logprobs": _integer(0, _MAX_TOP_LOGPROBS),
    "parallel_tool_calls": checks.flag,
    "verbosity": lambda name, value: checks.one_of(name, value, get_args(Verbosity)),
    "service_tier": checks.word,
    "metadata": _metadata,
}
"""Argument → its check. The field of the request has the same name."""
