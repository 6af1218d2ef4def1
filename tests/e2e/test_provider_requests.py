"""What each provider is asked for, and how its answer is told: one promise per feature, through real processes.

The simulated provider refuses a request that the real API would refuse, so that an answer proves the request.
"""

from __future__ import annotations

from typing import Any

import pytest

from headrace import (
    AuthenticationError,
    Client,
    HeadraceError,
    InvalidRequestError,
    ProviderError,
    ProviderProtocolError,
    ProviderUnavailableError,
    RateLimitError,
    Usage,
)
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.provider_runs import MODELS, PROVIDERS, last_body, run

STREAMED = "sync streamed"
BOTH = ("sync", STREAMED)
TOOL = {
    "name": "get_weather",
    "description": "Get current weather for a location",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
}
OTHER_TOOL = {"name": "get_time", "parameters": {"type": "object", "properties": {}}}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


def at(body: Any, *path: str | int) -> Any:
    for step in path:
        body = body[step]
    return body


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("name", PROVIDERS)
def test_text_arrives_whole(client: Client, name: str, way: str) -> None:
    result = run(client, name, HELLO, way, {"text": "Grüße, 世界 🌊"})

    assert (result.text, result.message.text) == ("Grüße, 世界 🌊", "Grüße, 世界 🌊")
    assert (result.provider, result.model) == (name, MODELS[name])
    assert (result.finish_reason, result.usage.source) == ("stop", "provider")


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("name", PROVIDERS)
def test_reasoning_is_told_apart_from_text(client: Client, name: str, way: str) -> None:
    result = run(client, name, HELLO, way, {"reasoning": "I think.", "text": "Hello."})

    assert (result.reasoning, result.text) == ("I think.", "Hello.")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("openai", ("response_format", "json_schema", "schema")),
        ("openai-responses", ("text", "format", "schema")),
        ("anthropic", ("output_config", "format", "schema")),
        ("google", ("generationConfig", "responseJsonSchema")),
    ],
)
def test_a_json_schema_stands_where_the_provider_wants_it(
    client: Client, provider: SimulatedProvider, name: str, path: tuple[str, ...]
) -> None:
    for wanted in (SCHEMA, {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}}):
        result = run(client, name, HELLO, "sync", {"text": '{"city":"Tokyo"}'}, response_format=wanted)

        assert result.text == '{"city":"Tokyo"}'
        assert at(last_body(provider), *path) == SCHEMA


@pytest.mark.parametrize(
    ("name", "path", "by_url", "by_data"),
    [
        (
            "openai",
            ("messages", 0, "content"),
            {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}},
        ),
        (
            "openai-responses",
            ("input", 0, "content"),
            {"type": "input_image", "detail": "auto", "image_url": "https://example.com/cat.png"},
            {"type": "input_image", "detail": "auto", "image_url": "data:image/png;base64,aGVsbG8="},
        ),
        (
            "anthropic",
            ("messages", 0, "content"),
            {"type": "image", "source": {"type": "url", "url": "https://example.com/cat.png"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}},
        ),
        (
            "google",
            ("contents", 0, "parts"),
            {"fileData": {"fileUri": "https://example.com/cat.png", "mimeType": "image/png"}},
            {"inlineData": {"mimeType": "image/png", "data": "aGVsbG8="}},
        ),
    ],
)
def test_images_go_by_url_and_by_data(
    client: Client, provider: SimulatedProvider, name: str, path: tuple[str, ...], by_url: Any, by_data: Any
) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image", "url": "https://example.com/cat.png"},
        {"type": "image", "data": "aGVsbG8=", "media_type": "image/png"},
    ]
    result = run(client, name, [{"role": "user", "content": parts}], "sync", {"text": "A cat."})

    assert result.text == "A cat."
    assert at(last_body(provider), *path)[1:] == [by_url, by_data]


@pytest.mark.parametrize(
    ("choice", "called"),
    [("auto", []), ("none", []), ("required", ["get_time"]), ({"tool": "get_weather"}, ["get_weather"])],
)
@pytest.mark.parametrize("name", PROVIDERS)
def test_tool_choice_is_what_the_provider_understands(
    client: Client, name: str, choice: str | dict[str, str], called: list[str]
) -> None:
    """Unscripted: the simulated model calls what the request forces it to call."""
    result = run(client, name, HELLO, STREAMED, {}, tools=[OTHER_TOOL, TOOL], tool_choice=choice)

    assert [call.name for call in result.tool_calls] == called


@pytest.mark.parametrize(
    ("name", "path", "sent"),
    [
        ("openai", ("messages", 0), {"role": "system", "content": "Be brief."}),
        ("openai-responses", ("input", 0), {"type": "message", "role": "system", "content": "Be brief."}),
        ("anthropic", ("system",), [{"type": "text", "text": "Be brief."}]),
        ("google", ("systemInstruction", "parts"), [{"text": "Be brief."}]),
    ],
)
def test_the_system_prompt_stands_where_the_provider_wants_it(
    client: Client, provider: SimulatedProvider, name: str, path: tuple[str, ...], sent: Any
) -> None:
    result = run(client, name, [{"role": "system", "content": "Be brief."}, *HELLO], "sync", {"text": "Hi."})

    assert result.text == "Hi."
    assert at(last_body(provider), *path) == sent


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "openai",
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 120,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 12},
            },
        ),
        (
            "openai-responses",
            {
                "input_tokens": 100,
                "output_tokens": 20,
                "total_tokens": 120,
                "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "output_tokens_details": {"reasoning_tokens": 12},
            },
        ),
        (
            "anthropic",
            {
                "input_tokens": 10,
                "cache_read_input_tokens": 60,
                "cache_creation_input_tokens": 30,
                "output_tokens": 20,
                "output_tokens_details": {"thinking_tokens": 12},
            },
        ),
    ],
)
def test_usage_tells_cached_written_and_reasoning_tokens(
    client: Client, name: str, said: dict[str, Any], way: str
) -> None:
    result = run(client, name, HELLO, way, {"text": "Hi.", "usage": said})

    assert result.usage == Usage(100, 20, 120, 60, 30, 12, source="provider")


@pytest.mark.parametrize("way", BOTH)
def test_googles_usage_tells_cached_and_reasoning_tokens(client: Client, way: str) -> None:
    """It counts thoughts apart, headrace's output includes them; cache writes it does not tell."""
    counts = {"promptTokenCount": 100, "cachedContentTokenCount": 60, "candidatesTokenCount": 8}
    said = counts | {"thoughtsTokenCount": 12, "totalTokenCount": 120}
    result = run(client, "google", HELLO, way, {"text": "Hi.", "usage": said})

    assert result.usage == Usage(100, 20, 120, 60, 0, 12, source="provider")


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    ("name", "word", "reason"),
    [
        ("openai", "stop", "stop"),
        ("openai", "length", "max_tokens"),
        ("openai", "content_filter", "content_filter"),
        ("openai-responses", "completed", "stop"),
        ("openai-responses", "max_output_tokens", "max_tokens"),
        ("openai-responses", "content_filter", "content_filter"),
        ("anthropic", "end_turn", "stop"),
        ("anthropic", "stop_sequence", "stop"),
        ("anthropic", "max_tokens", "max_tokens"),
        ("anthropic", "model_context_window_exceeded", "max_tokens"),
        ("anthropic", "refusal", "content_filter"),
        ("google", "STOP", "stop"),
        ("google", "MAX_TOKENS", "max_tokens"),
        ("google", "SAFETY", "content_filter"),
        ("google", "RECITATION", "content_filter"),
        ("google", "OTHER", "error"),
    ],
)
def test_finish_reasons_are_mapped_and_the_providers_word_is_kept(
    client: Client, name: str, word: str, reason: str, way: str
) -> None:
    result = run(client, name, HELLO, way, {"text": "Hi.", "finish_reason": word})

    assert (result.finish_reason, result.provider_finish_reason) == (reason, word)


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_refusal_is_no_success(client: Client, name: str, way: str) -> None:
    """Google refuses in text, the others in words of their own."""
    result = run(client, name, HELLO, way, {"refusal": "I cannot help with that."})

    assert result.finish_reason == "content_filter"
    said = (result.text, result.refusal)
    words = "I cannot help with that."
    assert said == ((words, None) if name == "google" else ("", words))


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, InvalidRequestError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, ProviderUnavailableError),
        (503, ProviderUnavailableError),
        (529, ProviderUnavailableError),
    ],
)
@pytest.mark.parametrize("name", PROVIDERS)
def test_http_errors_are_typed_and_carry_the_providers_facts(
    client: Client, name: str, status: int, error: type[HeadraceError], way: str
) -> None:
    script = {"status": status, "error_message": "Not today.", "headers": {"retry-after": "7"}}

    with pytest.raises(error) as caught:
        run(client, name, HELLO, way, script)

    failure = caught.value
    assert isinstance(failure, InvalidRequestError | ProviderError)
    assert (failure.reason, failure.provider, failure.status_code) == ("Not today.", name, status)
    assert failure.request_id or name == "google"  # it names no request
    if isinstance(failure, RateLimitError):
        assert failure.retry_after == 7


@pytest.mark.parametrize("name", PROVIDERS)
def test_a_wrong_key_is_an_authentication_error(client: Client, name: str) -> None:
    with pytest.raises(AuthenticationError) as caught:
        run(client, name, HELLO, "sync", {}, provider_api_key="sk-invalid")

    assert caught.value.status_code == (400 if name == "google" else 401)


@pytest.mark.parametrize("name", PROVIDERS)
def test_an_error_in_the_stream_is_typed_and_keeps_the_text(client: Client, name: str) -> None:
    script = {"chunks": ["One ", "two ", "three "], "error_after": 2, "error_message": "Overloaded, sorry."}

    with pytest.raises(ProviderUnavailableError) as caught:
        run(client, name, HELLO, STREAMED, script)

    assert (caught.value.partial_text, caught.value.reason) == ("One two ", "Overloaded, sorry.")


@pytest.mark.parametrize("ending", ["cut_after", "end_after"])
@pytest.mark.parametrize("name", PROVIDERS)
def test_a_stream_without_its_end_is_an_error_that_keeps_the_text(client: Client, name: str, ending: str) -> None:
    with pytest.raises(ProviderProtocolError) as caught:
        run(client, name, HELLO, STREAMED, {"chunks": ["One ", "two ", "three "], ending: 2})

    assert caught.value.partial_text == "One two "


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("openai", {"stop_sequences": list("abcde")}, "at most 4"),
        ("openai-responses", {"stop_sequences": ["a"]}, "the Responses API does not take it"),
        ("anthropic", {"response_format": {"type": "json_object"}}, "give a JSON schema"),
        ("anthropic", {"temperature": 0.5}, "does not take temperature"),
        ("google", {"stop_sequences": list("abcdef")}, "at most 5"),
    ],
)
def test_what_a_provider_cannot_do_is_refused_before_sending(
    client: Client, provider: SimulatedProvider, name: str, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        client.run_local(
            provider=name, model=MODELS[name], messages=HELLO, custom_options=simulate(text="Hi."), **arguments
        )

    assert provider.requests() == []


LOGPROBS = [
    {"token": "Hel", "logprob": -0.5, "top_logprobs": {"Hel": -0.5, "Hey": -2.0, "Hi": -3.0}},
    {"token": "lo", "logprob": -1.25},
]


@pytest.mark.parametrize("way", BOTH)
@pytest.mark.parametrize("name", [name for name in PROVIDERS if name != "anthropic"])
def test_each_token_of_an_answer_has_its_log_probability(client: Client, name: str, way: str) -> None:
    script = {"chunks": ["Hel", "lo"], "logprobs": LOGPROBS}
    model = {"model": "gpt-4o"} if name == "openai-responses" else {}  # a model that reasons has none
    result = run(client, name, HELLO, way, script, top_logprobs=2, **model)

    assert result.logprobs is not None
    assert [(one.token, one.logprob) for one in result.logprobs] == [("Hel", -0.5), ("lo", -1.25)]
    assert [(top.token, top.logprob) for top in result.logprobs[0].top_logprobs] == [("Hel", -0.5), ("Hey", -2.0)]
    made_up = run(client, name, HELLO, way, {"text": "Grüße, 世界 🌊"}, logprobs=True, **model).logprobs
    assert made_up is not None
    assert "".join(one.token for one in made_up) == "Grüße, 世界 🌊"
    assert run(client, name, HELLO, way, script).logprobs is None


@pytest.mark.parametrize(
    ("name", "options"),
    [
        (
            "openai",
            {
                "model": "gpt-5.4",
                "seed": 7,
                "frequency_penalty": 2,
                "presence_penalty": -2,
                "logprobs": True,
                "metadata": {"team": "a"},
                "service_tier": "flex",
                "verbosity": "low",
                "parallel_tool_calls": False,
            },
        ),
        (
            "openai-responses",
            {
                "model": "gpt-5.4",
                "top_logprobs": 20,
                "metadata": {"team": "a"},
                "service_tier": "priority",
                "verbosity": "high",
                "parallel_tool_calls": False,
            },
        ),
        (
            "anthropic",
            {
                "model": "claude-sonnet-4-5",
                "top_k": 5,
                "metadata": {"user_id": "u-1"},
                "service_tier": "standard_only",
                "parallel_tool_calls": False,
            },
        ),
        (
            "google",
            {
                "seed": -7,
                "frequency_penalty": -2,
                "presence_penalty": 1.5,
                "top_k": 40,
                "top_logprobs": 0,
                "metadata": {"team": "a"},
                "service_tier": "flex",
                "parallel_tool_calls": True,
            },
        ),
    ],
)
def test_a_provider_accepts_the_options_that_its_format_has(client: Client, name: str, options: dict[str, Any]) -> None:
    result = run(client, name, "Hello", "sync", {"text": "Hi"}, tools=[TOOL], **options)

    assert result.text == "Hi"


@pytest.mark.parametrize(
    ("name", "option"),
    [("openai-responses", "seed"), ("anthropic", "seed"), ("anthropic", "logprobs"), ("google", "verbosity")],
)
def test_an_option_that_a_format_has_not_is_refused_by_its_name(client: Client, name: str, option: str) -> None:
    values: dict[str, Any] = {"seed": 0, "logprobs": True, "verbosity": "low"}
    with pytest.raises(InvalidRequestError) as caught:
        run(client, name, HELLO, "sync", {}, **{option: values[option]})

    assert caught.value.argument == option
    assert caught.value.status_code is None


@pytest.mark.parametrize("content", [{"content": None}, {"content": ""}, {"content": []}, {}], ids=str)
@pytest.mark.parametrize("name", PROVIDERS)
def test_an_answer_with_nothing_but_calls_goes_back_whatever_its_content_is(
    client: Client, name: str, content: dict[str, Any]
) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"location": "Rome"}'},
    }
    messages = [
        {"role": "user", "content": "The weather?"},
        {"role": "assistant", **content, "tool_calls": [call], "refusal": None},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {"role": "assistant", "content": None, "tool_calls": None},
        {"role": "user", "content": "Thanks."},
    ]
    result = run(client, name, messages, "sync", {"text": "Sunny."}, tools=[TOOL])

    assert result.text == "Sunny."
