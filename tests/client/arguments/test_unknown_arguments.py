"""An argument that does not exist brings the name that was meant, or what to do instead, in a short text."""

from __future__ import annotations

import inspect
from typing import Any, cast

import pytest

from headrace import Client
from headrace.arguments.checked_request import check_names
from headrace.arguments.run_arguments import EmbeddingArguments, RunArguments
from headrace.errors import InvalidRequestError
from tests.cases import case, each
from tests.repetition import long_test

MEANT = {
    "max_tokens": "use max_output_tokens",
    "max_completion_tokens": "use max_output_tokens",
    "maxOutputTokens": "use max_output_tokens",
    "stop": "use stop_sequences",
    "stopSequences": "use stop_sequences",
    "timeout": "use timeout_ms, in milliseconds",
    "api_key": "use provider_api_key",
    "system": "'role': 'system'",
    "instructions": "'role': 'system'",
    "system_instruction": "'role': 'system'",
    "prompt": "use messages",
    "input": "use messages",
    "contents": "use messages",
    "thinking": "use reasoning_effort",
    "effort": "use reasoning_effort",
    "reasoning": "use reasoning_effort",
    "extra_body": "use custom_options",
    "user": "use user_id",
    "response_model": "use response_type",
    "text_format": "use response_type",
    "base_url": "headrace.toml",
    "api_base": "headrace.toml",
    "extra_headers": "no headers",
    "stream_options": "leave it out",
    "num_retries": "use max_retries",
    "fallback_models": "use fallbacks",
    "n": "custom_options={'n': …} passes it on as it is",
    "functions": "use tools; custom_options={'functions': …} passes it on as it is",
    "logit_bias": "custom_options={'logit_bias': …} passes it on as it is",
    "modalities": "custom_options={'modalities': …} passes it on as it is",
    "candidate_count": "custom_options={'generationConfig': {'candidateCount': …}}",
    "temprature": "did you mean temperature?",
    "Temperature": "did you mean temperature?",
    "max_output_token": "did you mean max_output_tokens?",
    "steam": "did you mean stream?",
    "sytem": "if you mean system: give the text as a message",
    "max_token": "max_output_tokens",
    "max_iterations": "run_tools takes max_turns",
    "colour": "custom_options passes a field of the provider's request on as it is",
}
MEANT_BY_EMBEDDINGS = {
    "messages": "use input",
    "contents": "use input",
    "texts": "use input",
    "output_dimensionality": "use dimensions",
    "encoding_format": "leave it out",
    "timeout": "use timeout_ms",
    "task_type": "custom_options={'taskType': …} passes it on as it is",
    "dimension": "did you mean dimensions?",
    "temperature": "custom_options passes a field",
    "x" * 5_000: "custom_options passes a field",
}


MEANT_BY_CLIENTS = {
    "api_key": "OPENAI_API_KEY, or with each run as provider_api_key",
    "base_url": "headrace.toml",
    "timeout": "timeout_ms",
    "max_retries": "give it to each run",
    "organization": "no headers",
    "model": "give it to each run",
    "adress": "did you mean address?",
    "colour": "it takes address and connect_timeout",
}


def refusal(name: str, kind: type[Any]) -> InvalidRequestError:
    arguments: dict[str, Any] = {"model": "gpt-4o", "messages" if kind is RunArguments else "input": "Hello", name: 5}
    with pytest.raises(InvalidRequestError) as caught:
        check_names(cast("Any", arguments), kind)
    return caught.value


@each(("name", "words"), MEANT.items())
def test_an_unknown_argument_of_a_run_says_what_was_meant(name: str, words: str) -> None:
    error = refusal(name, RunArguments)
    assert error.argument == name
    assert words in error.reason
    assert len(str(error)) <= 200
    assert "\n" not in str(error)


@each(("name", "words"), MEANT_BY_EMBEDDINGS.items())
def test_an_unknown_argument_of_an_embedding_says_what_was_meant(name: str, words: str) -> None:
    error = refusal(name, EmbeddingArguments)
    assert error.argument == name
    assert words in error.reason
    assert len(error.reason) <= 200


@each(("name", "words"), MEANT_BY_CLIENTS.items())
def test_an_unknown_argument_of_a_client_says_what_was_meant(name: str, words: str) -> None:
    given: Any = {name: "x"}
    with pytest.raises(InvalidRequestError) as caught:
        Client(**given)

    assert caught.value.argument == name
    assert words in caught.value.reason
    assert len(str(caught.value)) <= 200


def test_no_advice_is_about_an_argument_that_exists() -> None:
    for name in MEANT:
        assert name not in RunArguments.__annotations__


def arguments_of_sdks() -> dict[type[Any], set[str]]:
    """Return the arguments of the official clients. To import all three takes some seconds."""
    openai = pytest.importorskip("openai").OpenAI(api_key="x")
    anthropic = pytest.importorskip("anthropic").Anthropic(api_key="x")
    google = pytest.importorskip("google.genai.types")
    chat, responses, messages = openai.chat.completions, openai.responses, anthropic.messages
    methods = (chat.create, chat.parse, responses.create, responses.parse, messages.create, messages.stream)
    of_runs = {name for method in methods for name in inspect.signature(method).parameters}
    of_embeddings = {*inspect.signature(openai.embeddings.create).parameters}
    return {
        RunArguments: of_runs | {*google.GenerateContentConfig.model_fields},
        EmbeddingArguments: of_embeddings | {*google.EmbedContentConfig.model_fields},
    }


@long_test
def test_no_argument_of_the_official_clients_is_taken_for_a_misspelt_one() -> None:
    for kind, names in arguments_of_sdks().items():
        unknown = names - {*kind.__annotations__, "stream", "response_type"}
        assert len(unknown) > 5
        for name in unknown:
            with case(name):
                assert "did you mean" not in refusal(name, kind).reason
