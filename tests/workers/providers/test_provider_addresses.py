"""Requests go to the address in the settings. An address or a key that cannot be used is a ConfigurationError."""

from __future__ import annotations

import pytest

from headrace.errors import ConfigurationError
from headrace.settings.settings import ProviderConfig, Settings, with_built_in
from headrace.types import Message
from headrace.wire.messages import Failed
from headrace.wire.run_request import RunRequest
from headrace.wire.typed_errors import failure_error
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from headrace_workers.worker_settings import Providers
from tests.cases import each

ENDPOINTS = {
    "openai-chat": "/chat/completions",
    "openai-responses": "/responses",
    "anthropic": "/v1/messages",
    "google": "/v1beta/models/m:streamGenerateContent?alt=sse",
}
EMBEDDINGS = {
    "openai-chat": "/embeddings",
    "openai-responses": "/embeddings",
    "google": "/v1beta/models/m:batchEmbedContents",
}
VARIABLES = {
    "openai": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "openai-responses": ("OPENAI_BASE_URL", "OPENAI_API_KEY"),
    "anthropic": ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"),
    "google": ("GOOGLE_GEMINI_BASE_URL", "GEMINI_API_KEY"),
    "azure": ("AZURE_OPENAI_BASE_URL", "AZURE_OPENAI_API_KEY"),
}
BAD_ADDRESSES = {
    "127.0.0.1:8080/v1": "did you mean http://127.0.0.1:8080/v1?",
    "localhost:8080": "did you mean http://localhost:8080?",
    "api.openai.com/v1": "did you mean https://api.openai.com/v1?",
    "/v1": "must begin with http:// or https://",
    "v1": "must begin with http:// or https://",
    "ftp://api.openai.com": "must begin with http:// or https://",
    "https//api.openai.com": "must begin with http:// or https://",
    "http://": "its host or its port cannot be used",
    "http:///v1": "its host or its port cannot be used",
    "http://x:port/v1": "its host or its port cannot be used",
    "http://x:99999/v1": "its host or its port cannot be used",
    "http://x:0/v1": "its host or its port cannot be used",
    "http://[::1/v1": "its host or its port cannot be used",
    "http://$HOST/v1": "its host or its port cannot be used",
    "http://api..test/v1": "its host or its port cannot be used",
    "http://x%00/v1": "its host or its port cannot be used",
    "http://x/v1\n": "has a blank, a line end",
    " http://x/v1": "has a blank, a line end",
    "http://x/a b": "has a blank, a line end",
    "http://ex\u00e4mple.com": "has a blank, a line end or another character",
    "https://{name}.openai.azure.com": "has a blank, a line end or another character",
    '"http://x/v1"': "has a blank, a line end or another character",
    "https://user:sk-secret@x/v1": "a key belongs in the provider's environment variable",
    "https://sk-secret@x/v1": "a key belongs in the provider's environment variable",
    "http://x/v1#sk-secret": "has a # in it",
}


def request(provider: str, *, inputs: bool = False) -> RunRequest:
    messages = [] if inputs else [Message("user", "hi")]
    return RunRequest(provider=provider, model="m", messages=messages, stream=True, inputs=["a"] if inputs else [])


def address(base_url: str, api: str, *, inputs: bool = False) -> str:
    providers = Providers(Settings(providers={"mine": ProviderConfig(api=api, base_url=base_url)}), {})
    return providers.prepare(request("mine", inputs=inputs), None).request.url


def error_of(providers: Providers, provider: str, *, inputs: bool = False) -> str:
    """Return the text of the caller's ConfigurationError. Fails for another error."""
    with pytest.raises(ProviderFailedError) as caught:
        providers.prepare(request(provider, inputs=inputs), None)
    said = caught.value.failure
    error = failure_error(Failed("sp_1", 1, 0, said.kind, said.reason, code=said.code), provider, "")
    assert isinstance(error, ConfigurationError)
    return str(error)


@each(("api", "inputs"), [(api, False) for api in ENDPOINTS] + [(api, True) for api in EMBEDDINGS])
@each(
    ("base_url", "base", "query"),
    [
        ("https://x/v1", "https://x/v1", ""),
        ("https://x/v1/", "https://x/v1", ""),
        ("https://x", "https://x", ""),
        ("https://x/v1?api-version=2024-10-21", "https://x/v1", "api-version=2024-10-21"),
        ("https://x/v1/?api-version=2024-10-21", "https://x/v1", "api-version=2024-10-21"),
        ("https://x?api-version=1&a=%2F", "https://x", "api-version=1&a=%2F"),
        ("https://x/v1?", "https://x/v1", ""),
        ("https://x/v1?a=1&", "https://x/v1", "a=1"),
        ("https://x/v1?next=/a?b", "https://x/v1", "next=/a?b"),
    ],
)
def test_a_query_in_the_base_url_follows_the_path(api: str, inputs: bool, base_url: str, base: str, query: str) -> None:
    path, _, own = (EMBEDDINGS if inputs else ENDPOINTS)[api].partition("?")
    queries = "&".join(part for part in (query, own) if part)

    assert address(base_url, api, inputs=inputs) == base + path + ("?" + queries if queries else "")


@pytest.mark.parametrize("provider", VARIABLES)
@pytest.mark.parametrize("inputs", [False, True])
@each("base_url", BAD_ADDRESSES)
def test_a_bad_address_in_the_environment_is_a_configuration_error_that_names_the_variable(
    provider: str, inputs: bool, base_url: str
) -> None:
    variable, key = VARIABLES[provider]
    environ = {variable: base_url, key: "sk-x"}
    said = error_of(Providers(with_built_in(Settings(), environ), environ), provider, inputs=inputs)

    assert said.startswith(f"{provider}: {variable}, where the engine starts, ")
    assert BAD_ADDRESSES[base_url] in said
    assert "sk-secret" not in said


def test_a_provider_without_an_address_is_a_configuration_error() -> None:
    environ = {"AZURE_OPENAI_API_KEY": "sk-x"}

    assert "AZURE_OPENAI_BASE_URL" in error_of(Providers(with_built_in(Settings(), environ), environ), "azure")


def test_a_bad_address_of_one_provider_does_not_affect_another() -> None:
    environ = {"OPENAI_BASE_URL": "nowhere", "ANTHROPIC_API_KEY": "sk-x"}
    providers = Providers(with_built_in(Settings(), environ), environ)

    assert providers.prepare(request("anthropic"), None).request.url == "https://api.anthropic.com/v1/messages"


@pytest.mark.parametrize("provider", VARIABLES)
@each(
    "key",
    ["sk-secret\n", "sk-secret\r\n", " sk-secret", "sk-\nsecret", "sk-\u2026secret", "sk-\x00secret", "\tsk-secret"],
)
def test_a_key_that_no_header_can_have_is_a_configuration_error_without_the_key(provider: str, key: str) -> None:
    address_variable, variable = VARIABLES[provider]
    environ = {variable: key, address_variable: "http://x/v1"}
    said = error_of(Providers(with_built_in(Settings(), environ), environ), provider)

    assert said.startswith(f"{provider}: {variable}, where the engine starts, has a")
    assert "secret" not in said


def test_a_key_of_the_engine_is_not_sent_to_an_address_of_a_caller() -> None:
    environ = {"OPENAI_API_KEY": "sk-engine"}
    providers = Providers(with_built_in(Settings(), environ), environ)
    with pytest.raises(ProviderFailedError) as caught:
        providers.prepare(request("openai"), None, "https://elsewhere.example/v1")
    assert caught.value.failure.code == "no_api_key"

    sent = providers.prepare(request("openai"), "sk-callers", "https://elsewhere.example/v1").request
    assert ("authorization", "Bearer sk-callers") in sent.headers
