"""Simulates OpenAI's embeddings API. The same text always has the same vector. Pure.

Of a script, only ``status``, ``silent``, ``html`` and ``usage`` have an effect.
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from headrace.testing.shared.openai_errors import error_of, headers, refused, refused_key, reply_to_refusal
from headrace.testing.shared.reply import Reply, reply_without_answer, whole
from headrace.testing.shared.request_rules import OpenAIRefusal, check_choice, check_type, first_refusal
from headrace.testing.shared.script import Script
from headrace.testing.shared.simulated_vectors import vector_of

__all__ = ["PATH", "headers", "refused", "refused_body", "refused_key", "reply"]

PATH = "/v1/embeddings"

_DIMENSIONS = 64
_MAX_INPUTS = 2048
_KNOWN_FIELDS = ("model", "input", "dimensions", "encoding_format", "user")


def refused_body(body: object, headers: dict[str, str]) -> Reply | None:  # noqa: ARG001 - as all formats
    """Return the error reply for a body that the real API would refuse; None for a valid body."""
    return reply_to_refusal(first_refusal(_check, body))


def reply(body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:  # noqa: ARG001 - as all formats
    """Return the reply to a valid request, as the script says."""
    if (other := reply_without_answer(script, error_of(script, script.status))) is not None:
        return other
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    vectors = [vector_of(text, body.get("dimensions") or _DIMENSIONS) for text in texts]
    is_packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if is_packed else vector}
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(max(len(text) // 4, 1) for text in texts)
    usage = script.usage or {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": body["model"], "usage": usage}
    return whole(script, answer, "", 1, lambda: usage)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _check(body: object) -> None:
    if not isinstance(body, dict):
        raise OpenAIRefusal("We could not parse the JSON body of your request: it is not an object.")
    for name in body:
        if name not in _KNOWN_FIELDS:
            raise OpenAIRefusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("model", "input"):
        if body.get(name) in (None, "", []):
            raise OpenAIRefusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    check_type("input", body["input"], "string or array of strings", (str, list))
    for index, text in enumerate(body["input"] if isinstance(body["input"], list) else []):
        check_type(f"input[{index}]", text, "string", str)
        if not text or index >= _MAX_INPUTS:
            raise OpenAIRefusal(
                f"Invalid 'input[{index}]': input cannot be empty, nor have more than {_MAX_INPUTS} elements.", "input"
            )
    if body.get("dimensions") is not None:
        check_type("dimensions", body["dimensions"], "integer", int)
        if body["dimensions"] < 1:
            raise OpenAIRefusal(
                "Invalid 'dimensions': integer below minimum value.", "dimensions", "integer_below_min_value"
            )
    check_choice("encoding_format", body.get("encoding_format"), ("float", "base64"))
