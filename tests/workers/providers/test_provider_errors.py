"""Promises of reading errors: a reason of bounded length, and a finite wait, whatever a server sends."""

from __future__ import annotations

import json

import pytest

from headrace_workers.providers.google import errors as google_errors
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.provider_errors import failure_in_stream, protocol_failure, retry_after

DATE = "Mon, 23 Nov 2026 05:36:27 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after-ms": "250", "retry-after": "3"}, 0.25),
        ({"retry-after": "Mon, 23 Nov 2026 05:36:57 GMT", "date": DATE}, 30.0),
        ({"retry-after": DATE, "date": "Mon, 23 Nov 2026 05:36:57 GMT"}, None),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "-5", "retry-after": "1"}, 1.0),
        ({"retry-after": "0"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 2026 05:36:57", "date": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 99999999999999999999 05:36:27 GMT", "date": DATE}, None),
        ({"retry-after": "Mon, 23 Nov 2026 05:36:27 +9999999999999999999999", "date": DATE}, None),
        ({}, None),
    ],
)
def test_a_wait_is_finite_or_none(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers) == seconds


def test_an_infinite_delay_is_none() -> None:
    error = {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "9" * 400 + "s"}]}}

    assert google_errors.read_error(429, {}, json.dumps(error).encode()).retry_after is None


def test_a_deeply_nested_error_has_a_reason() -> None:
    error: object = 1
    for _ in range(900):
        error = {"x": error}

    assert failure_in_stream({"type": "t", "x": error}).reason


@pytest.mark.parametrize("api", WIRE_FORMATS)
@pytest.mark.parametrize("figure", [400, "400", -1, 0, "400.0", " 400 "])
def test_a_number_does_not_hide_the_word_for_the_error(api: str, figure: object) -> None:
    error = {"code": figure, "message": "too long", "type": "exceed_context_size_error"}

    for said in ({"error": error}, {"error": {**error, "code": None, "status_code": figure}}, error):
        failure = WIRE_FORMATS[api].api.read_error(400, {}, json.dumps(said).encode())
        assert (failure.code, failure.reason) == ("exceed_context_size_error", "too long")


@pytest.mark.parametrize("api", WIRE_FORMATS)
def test_a_number_is_the_code_if_there_is_no_word(api: str) -> None:
    for error in (
        {"code": 400, "message": "m"},
        {"code": 400, "type": "", "message": "m"},
        {"code": 400, "type": None},
    ):
        assert WIRE_FORMATS[api].api.read_error(400, {}, json.dumps({"error": error}).encode()).code == "400"


def test_a_number_in_a_stream_does_not_hide_the_word_for_the_error() -> None:
    error = {"code": 400, "message": "too long", "type": "exceed_context_size_error"}

    failure = failure_in_stream({"error": error})
    assert (failure.code, failure.kind) == ("exceed_context_size_error", "invalid_request")


def test_the_reason_of_an_answer_that_cannot_be_read_is_short() -> None:
    """The reason may quote the answer, which may have any length."""
    assert len(protocol_failure("what cannot be read: " + 10_000 * "x").failure.reason) < 600
