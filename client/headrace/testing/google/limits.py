"""How Google's simulated API tells its rate limits: no headers; a 429 has the wait in its details, as RetryInfo. Pure."""

from __future__ import annotations

import math
from typing import Any

from headrace.testing.shared.provider_limits import LimitCheck
from headrace.testing.shared.reply import Reply, json_reply

_TYPE = "type.googleapis.com/google.rpc."
_METRIC = "generativelanguage.googleapis.com/generate_content_"


def tokens_of(body: dict[str, Any], usage: dict[str, Any]) -> int:  # noqa: ARG001 - as all forms
    """Return how many tokens a request takes: those of its input and of its answer."""
    answered = (usage.get("candidatesTokenCount") or 0) + (usage.get("thoughtsTokenCount") or 0)
    return (usage.get("promptTokenCount") or 0) + answered


def limit_headers(check: LimitCheck, wall_time: int) -> dict[str, str]:  # noqa: ARG001 - as all forms
    """Return no headers: Google tells its limits only where one is exceeded."""
    return {}


def limited(check: LimitCheck, model: str) -> Reply:
    """Return the 429 reply."""
    level = check.exceeded or check.levels[0]
    metric = f"{_METRIC}{level.kind}"
    violation = {
        "quotaMetric": metric,
        "quotaId": f"GenerateContent{level.kind.title()}PerMinutePerProjectPerModel",
        "quotaDimensions": {"location": "global", "model": model},
        "quotaValue": str(level.limit),
    }
    details: list[dict[str, Any]] = [{"@type": f"{_TYPE}QuotaFailure", "violations": [violation]}]
    text = f"You exceeded your current quota, please check your plan and billing details. \n* Quota exceeded for metric: {metric}, limit: {level.limit}, model: {model}"
    if check.limits.retry_after:
        # The message has all digits; RetryInfo is cut down to whole seconds.
        text += f"\nPlease retry in {level.wait:.9f}s."
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{math.floor(level.wait)}s"})
    return json_reply(
        {"error": {"code": 429, "message": text, "status": "RESOURCE_EXHAUSTED", "details": details}}, 429
    )
