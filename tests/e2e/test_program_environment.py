"""An embedded engine uses its program's environment as it is at each run, whatever it was when the engine started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from headrace import AuthenticationError, Client, ConfigurationError
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

MODELS = {
    "OPENAI_API_KEY": "gpt-4o",
    "ANTHROPIC_API_KEY": "claude-sonnet-4-5",
    "GEMINI_API_KEY": "gemini-2.5-flash",
}


@pytest.fixture
def second() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.mark.parametrize("variable", MODELS)
def test_a_key_that_is_set_changed_or_removed_after_the_first_run_counts_for_the_next(
    client: Client, provider: SimulatedProvider, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODELS[variable]
    client.run_local(model=model, messages=HELLO)

    monkeypatch.delenv(variable)
    with pytest.raises(AuthenticationError, match=f"{variable} in this program's environment") as caught:
        client.run_local(model=model, messages=HELLO)
    assert caught.value.code == "no_api_key"

    monkeypatch.setenv(variable, "sk-invalid-123456")
    with pytest.raises(AuthenticationError) as caught:
        client.run_local(model=model, messages=HELLO, stream=True).result.result()
    assert caught.value.status_code is not None
    assert "123456" not in str(caught.value)

    monkeypatch.setenv(variable, provider.api_key)
    assert asyncio.run(client.arun_local(model=model, messages=HELLO)).finish_reason == "stop"


def test_a_key_that_is_given_with_the_run_goes_before(
    client: Client, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")

    assert client.run_local(model="gpt-4o", messages=HELLO, provider_api_key=provider.api_key).finish_reason == "stop"


def test_the_provider_s_address_may_change_between_runs(
    client: Client, provider: SimulatedProvider, second: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.run_local(model="gpt-4o", messages=HELLO)
    for name, value in second.environment.items():
        monkeypatch.setenv(name, value)

    for model in MODELS.values():
        client.run_local(model=model, messages=HELLO)
    client.run_embedding(model="text-embedding-3-small", input="Hi")

    assert len(provider.requests()) == 1
    assert len(second.requests()) == 4


def test_a_forked_child_uses_its_own_environment(client: Client, provider: SimulatedProvider) -> None:
    client.run_local(model="gpt-4o", messages=HELLO)

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.environ["OPENAI_API_KEY"] = "sk-invalid-123456"
            client.run_local(model="gpt-4o", messages=HELLO)
        except AuthenticationError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert client.run_local(model="gpt-4o", messages=HELLO).finish_reason == "stop"


def test_a_variable_that_cannot_be_used_is_named_at_once(
    client: Client, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1\n")
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        client.run_local(model="gpt-4o", messages=HELLO, stream=True)
    monkeypatch.setenv("OPENAI_API_KEY", provider.api_key)
    monkeypatch.setenv("OPENAI_BASE_URL", "127.0.0.1:8000/v1")
    with pytest.raises(ConfigurationError, match="OPENAI_BASE_URL"):
        client.run_local(model="gpt-4o", messages=HELLO)


def test_a_provider_without_an_address_says_where_to_set_it(
    client: Client, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", provider.api_key)
    with pytest.raises(ConfigurationError, match="AZURE_OPENAI_BASE_URL in this program's environment"):
        client.run_local(model="azure/gpt-4o", messages=HELLO)

    monkeypatch.setenv("AZURE_OPENAI_BASE_URL", provider.base_url)
    assert client.run_local(model="azure/gpt-4o", messages=HELLO).finish_reason == "stop"


def test_an_engine_of_its_own_keeps_its_own_environment(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_engine(provider) as address, Client(address) as client:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-invalid-123456")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")

        assert client.run_local(model="gpt-4o", messages=HELLO).finish_reason == "stop"
