"""Simulates Gemini's ``batchEmbedContents``. The same text always has the same vector. Pure.

Of a script, only ``status``, ``silent`` and ``html`` have an effect.
"""

from __future__ import annotations

import re
from typing import Any

from headrace.testing.google import answer as google
from headrace.testing.shared.reply import Reply, whole
from headrace.testing.shared.script import Script
from headrace.testing.shared.simulated_vectors import vector_of

_PATH = re.compile(r"/(?P<version>v1|v1beta)/models/(?P<model>[^/:]+):batchEmbedContents")
_DIMENSIONS = 64
_MAX_INPUTS = 100
_KNOWN_FIELDS = {"model", "content", "taskType", "title", "outputDimensionality"}


def endpoint(path: str) -> EmbeddingEndpoint | None:
    """Return the endpoint at this path; None if the path is not one of embeddings."""
    match = _PATH.fullmatch(path)
    return None if match is None else EmbeddingEndpoint(match["version"], match["model"])


class EmbeddingEndpoint(google.Endpoint):
    """The wire format at the path of one model. Keys and errors are the same as in :class:`Endpoint`."""

    def __init__(self, version: str, model: str) -> None:
        super().__init__(version, model, is_stream=False, has_events=False)
        self._name = f"models/{model}"

    def refused_body(self, body: object, headers: dict[str, str]) -> Reply | None:  # noqa: ARG002 - as all formats
        """Return the error reply for a body that the real API would refuse; None for a valid body."""
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not requests:
            return self.refused(400, "BatchEmbedContentsRequest.requests: must not be empty.")
        if len(requests) > _MAX_INPUTS:
            return self.refused(400, f"at most {_MAX_INPUTS} requests can be in one batch")
        for index, request in enumerate(requests):
            if (fault := self._fault(request)) is not None:
                return self.refused(400, f"BatchEmbedContentsRequest.requests[{index}]: {fault}")
        return None

    def reply(self, body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
        """Return the reply to a valid request, as the script says."""
        if script.silent or script.reset or script.html or script.status != 200:  # noqa: PLR2004
            return super().reply(body, script, completion_id, created)
        vectors = [
            vector_of(_text_of(request), request.get("outputDimensionality") or _DIMENSIONS)
            for request in body["requests"]
        ]
        read = sum(max(len(_text_of(request)) // 4, 1) for request in body["requests"])
        answer = {"embeddings": [{"values": vector} for vector in vectors]}
        return whole(script, answer, "", 1, lambda: {"promptTokenCount": read})

    def _fault(self, request: object) -> str | None:
        if not isinstance(request, dict):
            return "must be an object"
        if unknown := request.keys() - _KNOWN_FIELDS:
            return f'Unknown name "{min(unknown)}": Cannot find field.'
        if request.get("model") != self._name:
            return f"model must match the one of the URL, {self._name}"
        return None if _text_of(request) else "content is required"


def _text_of(request: dict[str, Any]) -> str:
    content = request.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    return "".join(part.get("text", "") for part in parts or [] if isinstance(part, dict))
