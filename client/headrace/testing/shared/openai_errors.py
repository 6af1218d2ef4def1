"""Headers and errors that all of OpenAI's simulated APIs share. Pure."""

from __future__ import annotations

from typing import Any

from headrace.testing.shared.reply import Reply, json_reply
from headrace.testing.shared.request_rules import OpenAIRefusal
from headrace.testing.shared.script import Script

_HEADERS = {
    "openai-organization": "simulated",
    "openai-processing-ms": "12",
    "openai-version": "2020-10-01",
}
_ERROR_TYPES = {401: "invalid_request_error", 403: "invalid_request_error", 429: "requests"}
_ERROR_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_SERVER_ERROR = "The server had an error while processing your request. Sorry about that!"


def error_body(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """Return the body of an error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def headers(request_id: str) -> dict[str, str]:
    """Return the headers of each response."""
    return _HEADERS | {"x-request-id": request_id}


def refused_key(headers: dict[str, str]) -> Reply | None:
    """Return the 401 reply for a missing or wrong API key; None for a valid key."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        message = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth."
        return json_reply(error_body(message), 401)
    if not key.startswith("sk-") or key.startswith("sk-invalid"):
        message = f"Incorrect API key provided: {key[:3]}***. You can find your API key in your account's settings."
        return json_reply(error_body(message, code="invalid_api_key"), 401)
    return None


def error_of(script: Script, status: int) -> dict[str, Any]:
    """Return the body of the error that a script asks for."""
    server_error = status >= 500  # noqa: PLR2004
    kind = "server_error" if server_error else _ERROR_TYPES.get(status, "invalid_request_error")
    message = script.error_message or (_SERVER_ERROR if server_error else f"Simulated error with status {status}.")
    return script.error_body or error_body(message, kind, code=script.error_code or _ERROR_CODES.get(status))


def refused(status: int, message: str, param: str | None = None, code: str | None = None) -> Reply:
    """Return an error reply for a request that no API takes: wrong path, method, JSON or ``simulate`` field."""
    return json_reply(error_body(message, param=param, code=code), status)


def reply_to_refusal(refusal: OpenAIRefusal | None) -> Reply | None:
    """Return the error reply for a body that the API refuses; None if it does not."""
    return None if refusal is None else refused(refusal.status, refusal.message, refusal.param, refusal.code)
