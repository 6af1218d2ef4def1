"""Reads errors of providers, in the forms that all wire formats share: from a whole body, and from inside a stream.

Pure. Each format's ``errors.py`` adds what only its own API says. No clock is read: the wait until a ``Retry-After``
date is counted from the response's own ``Date`` header.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.answers.tool_arguments import well_formed_text
from headrace.wire.messages import FailureKind
from headrace_workers.providers.shared.failure_classes import classified
from headrace_workers.providers.shared.lenient_json import UNREADABLE, json_text
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderFailure

_MAX_REASON = 500
_MAX_CODE = 200
_MAX_DEPTH = 4
_CODE_KEYS = ("code", "type", "status", "error_code", "error_type")
_FIGURE = re.compile(r"\s*[-+]?[0-9.]+\s*")
_MESSAGE_KEYS = ("message", "detail", "msg", "error_message", "reason")

# The first of these words that occurs in the error decides. So more specific words come first.
_KIND_OF_WORD: tuple[tuple[str, FailureKind], ...] = (
    ("insufficient_quota", "rate_limit"),
    ("rate_limit", "rate_limit"),
    ("ratelimit", "rate_limit"),
    ("too_many_requests", "rate_limit"),
    ("resource_exhausted", "rate_limit"),
    ("quota", "rate_limit"),
    ("api_key", "authentication"),
    ("authentication", "authentication"),
    ("unauthorized", "authentication"),
    ("unauthenticated", "authentication"),
    ("permission", "authentication"),
    ("forbidden", "authentication"),
    ("context_length", "invalid_request"),
    ("content_policy", "invalid_request"),
    ("content_filter", "invalid_request"),
    ("moderation", "invalid_request"),
    ("safety", "invalid_request"),
    ("tool_use_failed", "invalid_request"),
    ("bad_request", "invalid_request"),
    ("badrequest", "invalid_request"),
    ("not_found", "invalid_request"),
    ("notfound", "invalid_request"),
    ("unprocessable", "invalid_request"),
    ("too_large", "invalid_request"),
    ("unsupported", "invalid_request"),
    ("invalid", "invalid_request"),
)


def protocol_failure(reason: str) -> ProviderFailedError:
    """Return the error (``provider_protocol``) for a response that breaks the rules of its API. It is not tried again."""
    return ProviderFailedError(ProviderFailure("provider_protocol", _bounded(reason)))


def request_failure(reason: str, argument: str | None = None) -> ProviderFailedError:
    """Return the error (``invalid_request``) for a request that this API cannot take.

    ``argument`` is the path of the wrong value in the caller's arguments, such as ``messages[0].content``.
    """
    return ProviderFailedError(ProviderFailure("invalid_request", reason, argument=argument))


def model_failure(reason: str, argument: str, as_of: str, option: dict[str, Any]) -> ProviderFailedError:
    """Return the error (``invalid_request``) for a value that one model refuses, by a table of ``as_of``.

    It tells that ``option`` in ``custom_options`` sends the value all the same: a table may be out of date.
    """
    return request_failure(f"{reason} (as of {as_of}; custom_options={option!r} is sent unchecked)", argument)


def is_error(whole: Any) -> bool:
    """Return whether a JSON value is an error: with the usual ``error`` key, or one of the other forms of servers."""
    if not isinstance(whole, dict):
        return False
    is_bare = "detail" in whole or ("message" in whole and "code" in whole)
    return bool(whole.get("error")) or whole.get("object") == "error" or is_bare


def failure_in_stream(error: Any) -> ProviderFailure:
    """Read an error that came with status 200.

    Its words tell its kind; an unknown error is ``provider_unavailable``.
    """
    error = _error_of(error)
    failure = ProviderFailure(
        _kind_of_words(error), _bounded(_message_of(error)) or "no reason given", code=_code_of(error)
    )
    return classified(failure, error)


def read_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderFailure:
    """Read a response whose HTTP status is not 200. ``headers`` has lower-case names."""
    error = _error_of(_decoded(body))
    failure = ProviderFailure(
        kind_of_status(status),
        _bounded(_message_of(error)) or f"HTTP status {status}",
        status_code=status,
        request_id=headers.get("x-request-id") or headers.get("request-id"),
        code=_code_of(error),
        retry_after=retry_after(headers),
    )
    return classified(failure, error, headers)


def kind_of_status(status: int) -> FailureKind:
    """Return the kind of failure for an HTTP status that is not a success."""
    if status in {401, 403}:
        return "authentication"
    if status == 429:  # noqa: PLR2004 - statuses are their own names
        return "rate_limit"
    if status in {408, 409, 498} or status >= 500:  # noqa: PLR2004 - 498: Groq has no room
        return "provider_unavailable"
    return "invalid_request" if status >= 400 else "provider_protocol"  # noqa: PLR2004


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait that the response asks for; None if it does not ask.

    0 and less count as not asked, as does a date that is past: Azure sends ``retry-after-ms: 0`` with ``retry-after: 1``.
    """
    milliseconds = finite_number(headers.get("retry-after-ms"))
    if milliseconds:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = finite_number(value)
    if seconds is not None:
        return seconds or None
    from email.utils import parsedate_to_datetime  # here: its import takes 10 ms, at the start of each worker

    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):  # no date, or a time zone in only one of the two dates
        return None
    seconds = wait.total_seconds()
    return seconds if seconds > 0 else None


def describe(body: bytes) -> str:
    """Return a short description of a body that should be JSON and is not: its text, or the title of a web page."""
    text = body[:2000].decode("utf-8", "replace").strip()
    if not text:
        return "an empty body"
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>([^<]*)", text, re.IGNORECASE)
        words = " ".join(title[1].split()) if title else ""
        return f"an HTML page ({words})" if words else "an HTML page"
    return text


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        return describe(body) if body.strip() else ""


def _error_of(value: Any) -> Any:
    """Return the innermost error: from a list with one, from ``{"error": …}``, or the value itself."""
    for _ in range(_MAX_DEPTH):
        inner = value
        if isinstance(value, list):
            inner = value[0] if value else None
        elif isinstance(value, dict):
            inner = value.get("error") or value.get("errors") or value
        if inner is value:
            break
        value = inner
    return value


def _message_of(error: Any) -> str:
    value = error
    for _ in range(_MAX_DEPTH):
        if isinstance(value, list) and value:
            value = value[0]
        elif isinstance(value, dict):
            value = next((value[key] for key in _MESSAGE_KEYS if value.get(key)), None)
        else:
            break
    if isinstance(value, str):
        return well_formed_text(value)
    return well_formed_text(_as_json(error)) if error else ""


def _as_json(error: Any) -> str:
    try:
        return json_text(error)
    except RecursionError:  # the encoder needs more depth than the decoder
        return "an error nested without end"


def _code_of(error: Any) -> str | None:
    if not isinstance(error, dict):
        return None
    said = [well_formed_text(str(value)[:1024]) for key in _CODE_KEYS if _is_code(value := error.get(key))]
    # A number mostly repeats the HTTP status. A word names the error.
    code = next((code for code in said if not _FIGURE.fullmatch(code)), said[0] if said else None)
    return None if code is None else code[:_MAX_CODE]


def _is_code(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and bool(str(value).strip())


def _kind_of_words(error: Any) -> FailureKind:
    facts = [error.get(key) for key in ("status_code", "code", "status", "type")] if isinstance(error, dict) else []
    for fact in facts:
        status = finite_number(str(fact)) if isinstance(fact, str | int | float) else None
        if status is not None and 400 <= status <= 599:  # noqa: PLR2004
            return kind_of_status(int(status))
    words = " ".join(fact.lower() for fact in facts if isinstance(fact, str))
    return next((kind for word, kind in _KIND_OF_WORD if word in words), "provider_unavailable")


def _bounded(reason: str) -> str:
    reason = reason.strip()
    return reason if len(reason) <= _MAX_REASON else reason[:_MAX_REASON] + "…"


def finite_number(value: str | None) -> float | None:
    """Return a text as a number, if it is finite and not negative; None for anything else."""
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
