"""How OpenAI's simulated APIs tell their rate limits: ``x-ratelimit-*`` headers, and the body of a 429. Pure."""

from __future__ import annotations

import math
from typing import Any

from headrace.testing.shared.openai_errors import error_body
from headrace.testing.shared.provider_limits import LimitCheck, LimitLevel
from headrace.testing.shared.reply import Reply, json_reply

_UNITS = {"requests": "requests per min (RPM)", "tokens": "tokens per min (TPM)"}


def tokens_of(body: dict[str, Any], usage: dict[str, Any]) -> int:
    """Return how many tokens a request takes: its input, and the most that it allows for the answer, if it says so.

    OpenAI counts when a request comes, so what the answer does not use is not given back.
    """
    asked = body.get("max_completion_tokens") or body.get("max_output_tokens") or body.get("max_tokens")
    read = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
    return read + (asked or usage.get("completion_tokens") or usage.get("output_tokens") or 0)


def limit_headers(check: LimitCheck, wall_time: int) -> dict[str, str]:  # noqa: ARG001 - as all forms
    """Return the headers of each response to a limited key."""
    headers: dict[str, str] = {}
    for level in check.levels:
        headers[f"x-ratelimit-limit-{level.kind}"] = str(level.limit)
        headers[f"x-ratelimit-remaining-{level.kind}"] = str(level.left)
        headers[f"x-ratelimit-reset-{level.kind}"] = _duration(level.reset)
    return headers


def limited(check: LimitCheck, model: str) -> Reply:
    """Return the 429 reply."""
    level = check.exceeded or check.levels[0]
    where = f"for {model} in organization org-simulated on {_UNITS[level.kind]}"
    if level.asked > level.limit * check.limits.window / 60:
        text = f"Request too large {where}: Limit {level.limit}, Requested {level.asked}. The input or output tokens must be reduced in order to run successfully."
    else:
        text = f"Rate limit reached {where}: {_figures(level)}. Please try again in {_duration(level.wait)}."
    headers = {"retry-after": str(math.ceil(level.wait)), "retry-after-ms": str(math.ceil(level.wait * 1000))}
    body = error_body(text, level.kind, code="rate_limit_exceeded")
    return json_reply(body, 429, headers if check.limits.retry_after else {})


def _figures(level: LimitLevel) -> str:
    return f"Limit {level.limit}, Used {level.limit - level.left}, Requested {level.asked}"


def _duration(seconds: float) -> str:
    """Return a duration as OpenAI writes it: ``12ms``, ``59.369s``, ``6m0s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{int(seconds // 60)}m{seconds % 60:.0f}s"
