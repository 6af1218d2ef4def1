"""Retries and fallbacks on a real engine: what fails before its first content is answered in the end, and nothing else is."""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
import pytest

from headrace import Client, InvalidRequestError, LocalStream, ProviderError, ProviderUnavailableError
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO, simulate

AT_ONCE = {"retry-after-ms": "1"}
STATUSES = (408, 409, 429, 500, 502, 503, 504, 529)
CAUSES = {
    **{str(status): Script(status=status, headers=AT_ONCE) for status in STATUSES},
    "reset": Script(reset=True),
    "cut": Script(text="lost", cut_after=0),
    "ended": Script(text="lost", end_after=0),
    "error": Script(text="lost", error_after=0, error_code="server_error"),
}
MODELS = ("gpt-4o", "openai-responses/gpt-5", "claude-sonnet-4-6", "gemini-2.5-flash")


@pytest.fixture
def given() -> dict[str, Any]:
    """Arguments of a run with a key of its own: what its provider says about limits must not hold up other tests."""
    return arguments()


def arguments() -> dict[str, Any]:
    return {"messages": HELLO, "provider_api_key": f"sk-{secrets.token_hex(8)}"}


def failing(text: str, *failures: Script, **script: Any) -> dict[str, Any]:
    return simulate(text=text, failures=msgspec.to_builtins(failures), **script)


@pytest.mark.parametrize("model", MODELS)
def test_each_cause_before_the_first_content_is_followed_by_a_normal_answer(
    model: str, client: Client, provider: SimulatedProvider
) -> None:
    streams: dict[str, LocalStream[None]] = {
        name: client.run_local(
            model=model,
            stream=True,
            max_retries=1,
            custom_options=failing(f"answer after {name}", cause),
            **arguments(),
        )
        for name, cause in CAUSES.items()
    }

    found = {name: "".join(stream) for name, stream in streams.items()}

    assert found == {name: f"answer after {name}" for name in CAUSES}
    # The worker itself sends a request again if a connection that it had used before was reset.
    assert {stream.result.result().attempts for name, stream in streams.items() if name != "reset"} == {2}
    assert len(provider.requests()) == 2 * len(CAUSES)


def test_without_a_stream_a_failure_at_any_time_is_tried_again(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    half = Script(repeat=6, cut_after=3)
    result = client.run_local(model="gpt-4o", max_retries=1, custom_options=failing("whole", half), **given)

    assert (result.text, result.attempts) == ("whole", 2)
    assert len(provider.requests()) == 2


def test_a_stream_is_never_tried_again_after_its_first_chunk(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    stream = client.run_local(
        model="gpt-4o",
        stream=True,
        max_retries=3,
        fallbacks=["claude-sonnet-4-6"],
        custom_options=simulate(repeat=6, cut_after=3),
        **given,
    )
    with pytest.raises(ProviderError) as caught:
        list(stream)

    assert caught.value.partial_text == "0 1 2 "
    assert len(provider.requests()) == 1


def test_the_error_after_all_retries_says_what_each_attempt_met(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    busy = [Script(status=429, headers=AT_ONCE), Script(status=500, headers=AT_ONCE)]
    options = failing("", *busy, status=503, headers=AT_ONCE)
    with pytest.raises(ProviderUnavailableError) as caught:
        client.run_local(model="gpt-4o", max_retries=2, custom_options=options, **given)

    assert str(caught.value).endswith("(3 attempts: 429, 500, 503)")
    assert [attempt.status_code for attempt in caught.value.attempts] == [429, 500, 503]
    assert len(provider.requests()) == 3


def test_the_time_that_the_provider_asks_for_is_waited_exactly(client: Client, given: dict[str, Any]) -> None:
    busy = Script(status=429, headers={"retry-after-ms": "300"})
    began = time.monotonic()
    client.run_local(model="gpt-4o", max_retries=1, custom_options=failing("late", busy), **given)

    assert time.monotonic() - began >= 0.3


def test_an_abort_ends_the_wait_for_the_next_attempt(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    stream = client.run_local(
        model="gpt-4o",
        stream=True,
        max_retries=1,
        custom_options=simulate(status=429, headers={"retry-after": "100"}),
        **given,
    )
    provider.wait_until(lambda requests: [request for request in requests if request.outcome != "open"])
    stream.abort()

    assert stream.result.result(timeout=60).aborted
    assert len(provider.requests()) == 1


def test_a_retry_that_would_come_after_the_total_timeout_is_not_waited_for(
    client: Client, given: dict[str, Any]
) -> None:
    with pytest.raises(ProviderError) as caught:
        client.run_local(
            model="gpt-4o",
            max_retries=1,
            timeout_ms=60_000,
            custom_options=simulate(status=429, headers={"retry-after": "100"}),
            **given,
        )

    assert caught.value.status_code == 429


@pytest.mark.parametrize("stream", [False, True])
def test_another_model_answers_where_the_first_one_cannot(
    client: Client, provider: SimulatedProvider, stream: bool, given: dict[str, Any]
) -> None:
    provider.enqueue(Script(status=401))
    provider.enqueue(Script(status=404))
    provider.enqueue(Script(text="from the third"))
    given = {"model": "gpt-4o", "fallbacks": ["gemini-2.5-flash", "claude-sonnet-4-6"], **given}
    found = client.run_local(**given, stream=True).result.result() if stream else client.run_local(**given)

    assert (found.text, found.provider, found.attempts) == ("from the third", "anthropic", 3)
    assert found.wire_format == "anthropic"
    assert [request.path.split("/")[1] for request in provider.requests()] == ["v1", "v1beta", "v1"]


def test_what_a_fallback_does_not_take_is_said_of_its_attempt(
    client: Client, provider: SimulatedProvider, given: dict[str, Any]
) -> None:
    provider.enqueue(Script(status=503))
    with pytest.raises(InvalidRequestError) as caught:
        client.run_local(model="gpt-4o", max_retries=0, fallbacks=["claude-sonnet-4-6"], seed=7, **given)

    assert caught.value.argument == "seed"
    assert [(attempt.provider, attempt.error) for attempt in caught.value.attempts] == [
        ("openai", "ProviderUnavailableError"),
        ("anthropic", "InvalidRequestError"),
    ]
    assert len(provider.requests()) == 1
