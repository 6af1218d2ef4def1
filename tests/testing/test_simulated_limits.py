"""The simulated provider's rate limits, refused keys, late first chunks and outages, as a client sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.testing import ProviderLimits, SimulatedProvider, key_hash
from headrace.testing.shared.provider_limits import LimitEnforcement
from tests.conftest import PatientProvider

ASK = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with PatientProvider() as provider:
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.recover()
    shared.clear()
    return shared


def chat(provider: SimulatedProvider, key: str = "sk-1", model: str = "gpt-4o", **fields: Any) -> httpx.Response:
    body = {"model": model, "messages": ASK, **fields}
    return httpx.post(f"{provider.base_url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def responses(provider: SimulatedProvider) -> httpx.Response:
    body = {"model": "gpt-5", "input": "hi"}
    return httpx.post(f"{provider.base_url}/responses", json=body, headers={"authorization": "Bearer sk-1"})


def anthropic(provider: SimulatedProvider) -> httpx.Response:
    body = {"model": "claude-sonnet-5", "max_tokens": 9000, "messages": ASK}
    headers = {"x-api-key": "sk-1", "anthropic-version": "2023-06-01"}
    return httpx.post(f"{provider.base_url}/messages", json=body, headers=headers)


def google(provider: SimulatedProvider) -> httpx.Response:
    url = f"http://127.0.0.1:{provider.port}/v1beta/models/gemini-3-pro:generateContent"
    return httpx.post(url, json={"contents": [{"parts": [{"text": "hi"}]}]}, headers={"x-goog-api-key": "sk-1"})


def test_without_limits_nothing_is_told_of_limits(provider: SimulatedProvider) -> None:
    for ask in (chat, responses, anthropic, google):
        assert not [name for name in ask(provider).headers if "ratelimit" in name]


def test_openai_tells_what_is_left_and_how_long_to_wait(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=2)

    for ask in (chat, responses):
        assert ask(provider).headers["x-ratelimit-remaining-requests"] == "1"
        assert ask(provider).headers["x-ratelimit-limit-requests"] == "2"
        refused = ask(provider)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "requests"
        assert refused.headers["retry-after"] == "60"
        assert 55_000 < int(refused.headers["retry-after-ms"]) <= 60_000
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"].endswith("s")


def test_anthropic_tells_what_is_left_and_how_long_to_wait(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=1, tokens_per_minute=1000)

    first = anthropic(provider)
    refused = anthropic(provider)

    assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert 850 < int(first.headers["anthropic-ratelimit-tokens-remaining"]) < 1000
    assert first.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert refused.headers["retry-after"] == "60"


def test_google_tells_the_wait_in_the_body_alone(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=1)

    assert google(provider).status_code == 200
    refused = google(provider)

    assert refused.status_code == 429
    assert refused.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert refused.json()["error"]["details"][1]["@type"].endswith("RetryInfo")
    assert refused.json()["error"]["details"][1]["retryDelay"] == "59s"
    assert "retry-after" not in refused.headers


def test_headers_and_the_wait_can_be_left_out(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=1, headers=False, retry_after=False)

    for ask in (chat, anthropic, google):
        ask(provider)
        refused = ask(provider)
        assert refused.status_code == 429
        assert not [name for name in refused.headers if "ratelimit" in name or "retry-after" in name]
        assert "RetryInfo" not in refused.text


def test_each_key_and_model_has_the_limit_to_itself(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=1)
    provider.limit(requests_per_minute=2, key="sk-2")

    seen = [chat(provider, key, model).status_code for key, model in [("sk-1", "gpt-4o"), ("sk-1", "gpt-4.1")] * 2]
    others = [chat(provider, "sk-2").status_code for _ in range(3)]

    assert seen == [200, 200, 429, 429]
    assert others == [200, 200, 429]
    assert {arrival.key for arrival in provider.arrivals()} == {key_hash("sk-1"), key_hash("sk-2")}
    assert [arrival.status for arrival in provider.arrivals()] == seen + others


def test_limits_can_be_changed_and_what_was_used_stays_used(provider: SimulatedProvider) -> None:
    provider.limit(requests_per_minute=1)
    assert [chat(provider).status_code for _ in range(2)] == [200, 429]

    provider.limit(requests_per_minute=2)
    assert [chat(provider).status_code for _ in range(2)] == [200, 429]

    provider.limit()
    assert chat(provider).status_code == 200


def test_tokens_are_those_of_the_usage_and_openai_counts_what_the_request_allows(provider: SimulatedProvider) -> None:
    provider.limit(tokens_per_minute=100_000)

    usage = chat(provider, simulate={"repeat": 10}).json()["usage"]
    chat(provider, simulate={"repeat": 10}, max_completion_tokens=5000)
    told = anthropic(provider).json()["usage"]

    first, second, third = (arrival.tokens for arrival in provider.arrivals())
    assert first == usage["total_tokens"]
    assert second == first - 10 + 5000
    assert third == told["input_tokens"] + told["output_tokens"]


def test_a_request_above_the_whole_limit_is_said_to_be_too_large(provider: SimulatedProvider) -> None:
    provider.limit(tokens_per_minute=100)

    refused = chat(provider, max_completion_tokens=5000)

    assert refused.status_code == 429
    assert refused.json()["error"]["message"].startswith("Request too large")


@pytest.mark.parametrize("limits", [{"requests_per_minute": 0}, {"tokens_per_minute": -1}, {"window": 0}])
def test_limits_that_are_not_positive_are_refused(provider: SimulatedProvider, limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Expected `(int|float)`"):
        provider.limit(requests_per_minute=limits.pop("requests_per_minute", None), **limits)


def test_a_refused_key_gets_the_errors_of_a_wrong_one(provider: SimulatedProvider) -> None:
    provider.refuse_key("sk-1")

    assert chat(provider).json()["error"]["code"] == "invalid_api_key"
    assert anthropic(provider).status_code == 401
    assert google(provider).json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert chat(provider, "sk-2").status_code == 200

    provider.refuse_key("sk-1", is_refused=False)
    assert chat(provider).status_code == 200


def test_a_share_of_first_chunks_is_late(provider: SimulatedProvider) -> None:
    provider.delay_first_chunks(0.25, 0.2)
    provider.delay_first_chunks(1.0, 0.0, key="sk-2")

    for _ in range(8):
        chat(provider)
    chat(provider, "sk-2")

    times = [(arrival.first_chunk_at or 0.0) - arrival.at for arrival in provider.arrivals()]
    assert [seconds >= 0.2 for seconds in times] == [*[False, False, False, True] * 2, False]


def test_an_outage_answers_with_its_status_until_it_is_over(provider: SimulatedProvider) -> None:
    provider.begin_outage(529, headers={"retry-after": "2"})

    refused = anthropic(provider)
    assert (refused.status_code, refused.headers["retry-after"]) == (529, "2")
    assert refused.json()["error"]["type"] == "overloaded_error"

    provider.end_outage()
    assert anthropic(provider).status_code == 200


def test_an_outage_may_be_that_of_one_key(provider: SimulatedProvider) -> None:
    provider.begin_outage(500, key="sk-1")

    assert [chat(provider, key).status_code for key in ("sk-1", "sk-2")] == [500, 200]

    provider.end_outage(key="sk-1")
    assert chat(provider).status_code == 200


def test_a_script_fails_as_often_as_it_says_and_then_answers(provider: SimulatedProvider) -> None:
    script = {"text": "at last", "failures": [{"status": 503}, {"reset": True}]}

    assert chat(provider, simulate=script).status_code == 503
    with pytest.raises(httpx.ReadError, match="reset"):
        chat(provider, simulate=script)
    assert chat(provider, simulate={**script, "text": "another"}).status_code == 503
    assert "at last" in chat(provider, simulate=script).text


def test_connections_are_reset(provider: SimulatedProvider) -> None:
    provider.begin_outage("reset")

    with pytest.raises(httpx.ReadError, match="reset"):
        chat(provider)

    assert [arrival.status for arrival in provider.arrivals()] == [None]
    provider.end_outage()
    assert chat(provider).status_code == 200


@pytest.mark.parametrize("process", [False, True])
def test_connections_are_refused_also_to_those_who_have_one(process: bool) -> None:
    body = {"model": "gpt-4o", "messages": ASK}
    with (
        PatientProvider(process=process) as provider,
        httpx.Client(headers={"authorization": "Bearer sk-1"}) as client,
    ):
        url = f"{provider.base_url}/chat/completions"
        assert client.post(url, json=body).status_code == 200
        for _ in range(2):
            provider.begin_outage("refused")
            with pytest.raises(httpx.ConnectError, match="refused"):
                client.post(url, json=body)

            provider.end_outage()
            assert client.post(url, json=body).status_code == 200


@given(st.lists(st.tuples(st.floats(0, 20), st.integers(0, 60)), max_size=60), st.integers(1, 40), st.integers(1, 400))
def test_no_window_has_more_than_the_limit_and_who_waits_as_told_gets_in(
    steps: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    enforcement = LimitEnforcement()
    enforcement.set("", ProviderLimits(requests_per_minute=requests, tokens_per_minute=tokens))
    now, admitted = 0.0, []
    for pause, asked in steps:
        now += pause
        check = enforcement.check("k", "m", asked, now)
        assert check is not None
        if check.exceeded is not None and asked <= tokens:
            now += check.exceeded.wait + 1e-6
            check = enforcement.check("k", "m", asked, now)
            assert check is not None
            assert check.exceeded is None
        if check.exceeded is None:
            admitted.append((now, asked))

    for start, _ in admitted:
        within = [asked for at, asked in admitted if start <= at < start + 60]
        assert len(within) <= requests
        assert sum(within) <= tokens
