"""How Anthropic's simulated API tells its rate limits: ``anthropic-ratelimit-*`` headers, and the body of a 429. Pure."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

from headrace.testing.shared.provider_limits import LimitCheck
from headrace.testing.shared.reply import Reply, json_reply


def tokens_of(body: dict[str, Any], usage: dict[str, Any]) -> int:  # noqa: ARG001 - as all forms
    """Return how many tokens a request takes: those of its input and of its answer. ``max_tokens`` does not count."""
    return (usage.get("input_tokens") or 0) + (usage.get("output_tokens") or 0)


def limit_headers(check: LimitCheck, wall_time: int) -> dict[str, str]:
    """Return the headers of each response to a limited key."""
    headers: dict[str, str] = {}
    for level in check.levels:
        reset = datetime.fromtimestamp(wall_time + math.ceil(level.reset), UTC)
        headers[f"anthropic-ratelimit-{level.kind}-limit"] = str(level.limit)
        headers[f"anthropic-ratelimit-{level.kind}-remaining"] = str(level.left)
        headers[f"anthropic-ratelimit-{level.kind}-reset"] = reset.strftime("%Y-%m-%dT%H:%M:%SZ")
    return headers


def limited(check: LimitCheck, model: str) -> Reply:
    """Return the 429 reply."""
    level = check.exceeded or check.levels[0]
    text = f"This request would exceed your organization's rate limit of {level.limit:,} {level.kind} per minute (org: simulated, model: {model})."
    error = {"type": "rate_limit_error", "message": text, "details": None}
    headers = {"retry-after": str(math.ceil(level.wait)), "x-should-retry": "true"}
    return json_reply({"type": "error", "error": error}, 429, headers if check.limits.retry_after else {})
