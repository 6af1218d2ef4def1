"""Promises of the classes of provider errors: which may be tried again, which are final, in each place of an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.types import Message
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import ProviderApi, ProviderFailedError, ProviderFailure
from tests.workers import corpus

CHAT, RESPONSES = WIRE_FORMATS["openai-chat"].api, WIRE_FORMATS["openai-responses"].api
ANTHROPIC, GOOGLE = WIRE_FORMATS["anthropic"].api, WIRE_FORMATS["google"].api
REQUEST = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=True)
TOO_LARGE = {
    "type": "tokens",
    "code": "rate_limit_exceeded",
    "message": "Request too large for gpt-4o on tokens per min (TPM): Limit 1, Requested 30.",
}
SLOW_DOWN = {"type": "tokens", "code": "rate_limit_exceeded", "message": "Rate limit reached for gpt-4o"}
SPENT = [
    (CHAT, {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"}),
    (CHAT, {"type": "insufficient_quota", "code": None, "message": "m"}),
    (RESPONSES, {"type": "insufficient_quota", "code": "credit_balance_exhausted", "message": "m"}),
    (RESPONSES, {"type": "insufficient_quota", "code": "insufficient_quota", "message": "m"}),
    (CHAT, {"code": "organization_spend_limit_exceeded", "message": "m"}),
    (RESPONSES, {"code": "project_spend_limit_exceeded", "message": "m"}),
    (CHAT, {"code": "organization_usage_limit_exceeded", "message": "m"}),
    (CHAT, TOO_LARGE),
    (RESPONSES, TOO_LARGE),
    *[
        (ANTHROPIC, {"type": "rate_limit_error", "message": "m", "details": {"error_code": code}})
        for code in ("enforced_spend_limit_reached", "contract_spend_limit_reached")
    ],
    (ANTHROPIC, {"type": "billing_error", "message": "m"}),
    (ANTHROPIC, {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}),
    (ANTHROPIC, {"type": "invalid_request_error", "message": "m", "details": {"error_code": "organization_on_hold"}}),
    (
        GOOGLE,
        {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "m",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "48s"},
            ],
        },
    ),
    (GOOGLE, {"code": 402, "status": "RESOURCE_EXHAUSTED", "message": "Your prepayment credits are depleted."}),
]
PASSING = [
    (CHAT, SLOW_DOWN),
    (RESPONSES, SLOW_DOWN),
    (CHAT, {"code": "slow_down", "type": "rate_limit_error", "message": "m"}),
    (ANTHROPIC, {"type": "rate_limit_error", "message": "m", "details": {"error_code": "ramp_limit_exceeded"}}),
    (ANTHROPIC, {"type": "overloaded_error", "message": "m"}),
    (
        GOOGLE,
        {
            "code": 429,
            "status": "RESOURCE_EXHAUSTED",
            "message": "m",
            "details": [{"violations": [{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]}],
        },
    ),
    (GOOGLE, {"code": 503, "status": "UNAVAILABLE", "message": "m"}),
    (CHAT, {"code": 429, "message": "m", "metadata": {"provider_name": "Chutes", "raw": "temporarily rate-limited"}}),
]
BLAMING = [
    (CHAT, {"code": "context_length_exceeded", "message": "m"}),
    (RESPONSES, {"code": "image_content_policy_violation", "message": "m"}),
    (ANTHROPIC, {"type": "invalid_request_error", "message": "m"}),
    (ANTHROPIC, {"type": "authentication_error", "message": "m"}),
    (GOOGLE, {"code": 400, "status": "INVALID_ARGUMENT", "message": "m"}),
]


def refused(
    api: ProviderApi, error: dict[str, Any], status: int, headers: dict[str, str] | None = None
) -> ProviderFailure:
    return api.read_error(status, headers or {}, json.dumps({"error": error}).encode())


def in_stream(api: ProviderApi, error: dict[str, Any]) -> ProviderFailure:
    data = json.dumps({"type": "error", "error": error} if api is not GOOGLE else {"error": error}).encode()
    with pytest.raises(ProviderFailedError) as caught:
        api.open_stream(REQUEST).feed("error" if api is not GOOGLE else "", data, [])
    return caught.value.failure


def in_body(api: ProviderApi, error: dict[str, Any]) -> ProviderFailure:
    with pytest.raises(ProviderFailedError) as caught:
        api.read_body(REQUEST, json.dumps({"type": "error", "error": error}).encode())
    return caught.value.failure


def classes(failure: ProviderFailure) -> tuple[bool, bool]:
    return failure.may_retry, failure.is_final


@pytest.mark.parametrize(("api", "error"), SPENT)
def test_a_quota_that_is_used_up_is_final_wherever_it_is_told(api: ProviderApi, error: dict[str, Any]) -> None:
    for status in (400, 402, 413, 429):
        failure = refused(api, error, status, {"x-should-retry": "true", "retry-after": "1"})
        assert classes(failure) == (False, True), status
    assert refused(api, error, 429).kind == "rate_limit" or api is GOOGLE or error["type"] == "invalid_request_error"
    assert classes(in_stream(api, error)) == (False, True)
    assert classes(in_body(api, error)) == (False, True)


@pytest.mark.parametrize(("api", "error"), PASSING)
def test_a_limit_that_passes_may_be_tried_again_wherever_it_is_told(api: ProviderApi, error: dict[str, Any]) -> None:
    assert classes(refused(api, error, 429)) == (True, False)
    assert classes(refused(api, error, 503)) == (True, False)
    assert classes(in_stream(api, error)) == (True, False)
    assert classes(in_body(api, error)) == (True, False)


@pytest.mark.parametrize(("api", "error"), BLAMING)
def test_an_error_that_blames_the_request_is_not_tried_again(api: ProviderApi, error: dict[str, Any]) -> None:
    assert classes(refused(api, error, 400)) == (False, False)
    assert classes(in_stream(api, error)) == (False, False)
    assert classes(in_body(api, error)) == (False, False)


@pytest.mark.parametrize("api", [CHAT, RESPONSES, ANTHROPIC, GOOGLE])
def test_the_status_decides_about_an_error_without_words(api: ProviderApi) -> None:
    retried = {408, 409, 429, 498, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529}
    for status in [204, 301, *range(400, 600)]:
        for body in (b"", b"{}", b"<html>", b'{"error": "m"}', b"[]"):
            failure = api.read_error(status, {}, body)
            assert classes(failure) == (status in retried, status == 402), (status, body)


@pytest.mark.parametrize("api", [CHAT, RESPONSES, ANTHROPIC, GOOGLE])
def test_the_header_of_the_provider_decides_against_the_status(api: ProviderApi) -> None:
    for word, may_retry in (("true", True), ("false", False), (" False ", False)):
        for status in (400, 404, 429, 500, 503):
            assert api.read_error(status, {"x-should-retry": word}, b"{}").may_retry is may_retry
    assert api.read_error(503, {"x-should-retry": "maybe"}, b"{}").may_retry is True


def test_the_402_of_openrouter_for_money_that_running_requests_hold_passes() -> None:
    held = {"code": 402, "message": "m", "metadata": {"limit_source": "openrouter_in_flight_budget"}}

    for failure in (refused(CHAT, held, 402, {"retry-after": "3"}), in_stream(CHAT, held)):
        assert classes(failure) == (True, False)
        assert failure.kind == "rate_limit"
    spent = held | {"metadata": {"limit_source": "openrouter_credits"}}
    for failure in (refused(CHAT, spent, 402, {"retry-after": "3"}), in_stream(CHAT, spent)):
        assert classes(failure) == (False, True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["code", "type", "details", "metadata", "violations", "quotaId"]), inner)
    ),
    max_leaves=8,
)


@given(json_values, st.integers(300, 600), st.sampled_from([CHAT, RESPONSES, ANTHROPIC, GOOGLE]))
def test_an_error_of_any_form_has_one_class(error: Any, status: int, api: ProviderApi) -> None:
    failure = api.read_error(status, {}, json.dumps({"error": error}).encode())
    assert not (failure.may_retry and failure.is_final)


@corpus.needs_recordings
def test_the_recorded_errors_have_the_right_class() -> None:
    apis = {"openai.chat": CHAT, "openai.responses": RESPONSES, "anthropic.messages": ANTHROPIC}
    for wire, api in (apis | {"google.generate": GOOGLE}).items():
        for name in corpus.case_names(wire):
            case = corpus.load(name)
            if case.status != 200:
                failure = api.read_error(case.status, case.headers, case.body)
                assert failure.may_retry == (case.status in {429, 500}), name
                assert not failure.is_final, name
            elif "miderror-failed" in name:
                reading = corpus.Comparison(api, usage=lambda _: (), is_cut=lambda _: False)
                failed = corpus.replay(reading, [case.body]).failure
                assert failed is not None
                assert classes(failed) == (False, True), name
