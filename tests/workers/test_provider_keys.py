"""A worker uses the key that the broker chose among several, and tells the broker hashes of its keys, never a key."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.settings.limit_settings import KeyConfig
from headrace.settings.settings import Settings, with_built_in
from headrace.testing import SimulatedProvider, key_hash
from headrace.types import Message
from headrace.wire.accounts import short_hash
from headrace.wire.messages import BAD_SETTINGS, Failed
from headrace.wire.run_request import RunRequest
from headrace_workers.provider_keys import ProviderKeys
from headrace_workers.providers.shared.wire_format import ProviderFailedError
from headrace_workers.worker_settings import Providers
from tests.workers.spans.span_worker import span_worker

FIRST, SECOND = "sk-first-0123456789abcdef", "sk-second-0123456789abcdef"
ENVIRONMENT = {"KEY_1": FIRST, "KEY_2": SECOND, "GROQ_API_KEY": "gsk-1", "MISTRAL_API_KEY": "bad\n"}


def settings(**tables: KeyConfig) -> Settings:
    return with_built_in(Settings(keys=tables), {})


def key_of(providers: Providers, chosen: str = "", provider: str = "anthropic") -> str | None:
    request = RunRequest(provider=provider, model="m", messages=[Message("user", "hi")], stream=True)
    return providers.prepare(request, None, None, chosen).api_key


def test_the_chosen_key_is_used_and_without_a_choice_the_first() -> None:
    providers = Providers(settings(anthropic=KeyConfig(env=["KEY_1", "KEY_2"])), ENVIRONMENT)

    assert [key_of(providers, short_hash(key)) for key in (FIRST, SECOND)] == [FIRST, SECOND]
    assert key_of(providers) == key_of(providers, short_hash("an older key")) == FIRST
    assert key_of(providers, provider="groq") == "gsk-1", "a provider without a table"


def test_no_key_of_a_table_goes_to_an_address_that_the_caller_names() -> None:
    providers = Providers(settings(anthropic=KeyConfig(env=["KEY_1"])), ENVIRONMENT)
    request = RunRequest(provider="anthropic", model="m", messages=[Message("user", "hi")], stream=True)

    assert providers.prepare(request, "sk-own", None, short_hash(FIRST)).api_key == "sk-own"
    for given in ("", None):
        with pytest.raises(ProviderFailedError) as caught:
            providers.prepare(request, given, "http://x", short_hash(FIRST))
        assert caught.value.failure.kind == "authentication"


def test_a_table_that_cannot_be_used_fails_the_runs_of_its_provider_only(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    tables = {"anthropic": KeyConfig(file=str(tmp_path / "empty")), "openai": KeyConfig(env=["MISSING"])}
    providers = Providers(settings(**tables), ENVIRONMENT)

    for provider, said in (("anthropic", "has no key in it"), ("openai", "MISSING is empty or not set")):
        with pytest.raises(ProviderFailedError) as caught:
            key_of(providers, provider=provider)
        failure = caught.value.failure
        assert (failure.kind, failure.code) == ("invalid_request", BAD_SETTINGS)
        assert said in failure.reason
    assert key_of(providers, provider="groq") == "gsk-1"


def test_the_hashes_of_all_usable_keys_are_told(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{SECOND}\nmock\n")
    tables = {"anthropic": KeyConfig(env=["KEY_1"], file=str(tmp_path / "keys")), "openai": KeyConfig(env=["MISSING"])}
    keys = ProviderKeys(settings(**tables), ENVIRONMENT | {"OPENAI_API_KEY": "sk-unused"})

    assert keys.hashes() == {
        "groq": [short_hash("gsk-1")],
        "anthropic": [short_hash(FIRST), short_hash(SECOND), short_hash("mock")],
        "openai-chat": [short_hash("sk-unused")],
        "openai-responses": [short_hash("sk-unused")],
    }
    assert keys.secrets() == [FIRST, SECOND], "a word is no secret"


def test_the_file_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(FIRST)
    providers = Providers(settings(anthropic=KeyConfig(file=str(tmp_path / "keys"))), {})
    (tmp_path / "keys").write_text(SECOND)

    assert key_of(providers) == FIRST


def test_a_key_of_a_file_is_masked_in_what_a_provider_says_of_another_run(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text(f"{FIRST}\n{SECOND}\n")
    (tmp_path / "headrace.toml").write_text('[keys.openai]\nfile = "keys"\n')
    with span_worker(provider, HEADRACE_CONFIG=str(tmp_path / "headrace.toml")) as worker:
        script = {"status": 400, "error_message": f"not {SECOND}"}
        own = worker.terminal(worker.run(told={"api_key": None, "key": short_hash(FIRST)}, simulate=script))
        callers = worker.terminal(worker.run(simulate=script))

        assert isinstance(own, Failed)
        assert isinstance(callers, Failed)
        assert own.reason == callers.reason == "not [key]"
        assert [span.error for span in worker.spooled if span.error] == ["not [key]"] * 2
    assert provider.arrivals()[0].key == key_hash(FIRST)
