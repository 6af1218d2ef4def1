"""What is promised of keys and addresses in the environment.

Those of the run's start are used, and a bad one is named.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.arguments.provider_access import NO_KEY, ProviderAccess, RememberedAccess, access_from
from headrace.errors import ConfigurationError
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.settings import ProviderConfig

GATEWAY = {
    "gateway": ProviderConfig(api="openai-chat", base_url="https://gateway.test/v1", api_key_env="GATEWAY_KEY"),
    "groq": ProviderConfig(api="openai-chat", base_url="https://ours.test/v1", api_key_env=["GROQ_ONE", "GROQ_TWO"]),
    "keyless": ProviderConfig(api="openai-chat", base_url="https://keyless.test/v1"),
}


@pytest.mark.parametrize("provider", BUILT_IN)
def test_a_built_in_provider_has_the_key_and_the_address_of_the_environment(provider: str) -> None:
    _, default, variables = BUILT_IN[provider]
    keys = {variable: f"sk-{number}" for number, variable in enumerate(variables)}
    address = {BASE_URL_ENV[provider]: "http://127.0.0.1:1/v1"} if provider in BASE_URL_ENV else {}

    assert access_from({}, provider, {}, None) == ProviderAccess(NO_KEY, default)
    assert access_from(keys | address, provider, {}, None) == ProviderAccess(
        "sk-0" if keys else NO_KEY, "http://127.0.0.1:1/v1" if address else default
    )


def test_the_first_variable_that_is_set_has_the_key() -> None:
    assert access_from({"GEMINI_API_KEY": "sk-b"}, "google", {}, None).api_key == "sk-b"
    assert access_from({"GOOGLE_API_KEY": "", "GEMINI_API_KEY": "sk-b"}, "google", {}, None).api_key == "sk-b"
    assert access_from({"GROQ_TWO": "sk-2"}, "groq", GATEWAY, None).api_key == "sk-2"


def test_a_configured_provider_has_its_key_from_the_environment_and_its_address_from_the_file() -> None:
    environ = {"GATEWAY_KEY": "sk-1", "OPENAI_BASE_URL": "http://elsewhere.test/v1", "GROQ_API_KEY": "sk-other"}

    for provider, key in {"gateway": "sk-1", "groq": NO_KEY, "keyless": NO_KEY}.items():
        # The address goes with the key: the engine may have read another file.
        assert access_from(environ, provider, GATEWAY, None) == ProviderAccess(key, GATEWAY[provider].base_url)


def test_a_key_that_was_given_goes_before() -> None:
    assert access_from({"OPENAI_API_KEY": "sk-1"}, "openai", {}, "sk-given").api_key == "sk-given"
    assert access_from({"OPENAI_API_KEY": "sk\n"}, "openai", {}, "sk-given").api_key == "sk-given"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OPENAI_API_KEY", "sk-secret\n"),
        ("OPENAI_API_KEY", "sk-sécret"),
        ("OPENAI_API_KEY", "sk-secret\udcff"),
        ("OPENAI_API_KEY", "sk-secret" * 2000),
        ("OPENAI_BASE_URL", "//x:secret@host.test/v1"),
        ("OPENAI_BASE_URL", "ftp://secret.test/v1"),
        ("OPENAI_BASE_URL", "http://secret.test/v1 "),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_and_not_quoted(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{variable} (must|has)") as caught:
        access_from({variable: value}, "openai", {}, None)
    assert "secret" not in str(caught.value)


def test_neither_key_nor_address_is_shown() -> None:
    access = ProviderAccess("sk-secret", "https://user:secret@host/v1")

    assert "secret" not in f"{access} {access!r} {access.__rich_repr__()}"


VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "GATEWAY_KEY", "GROQ_ONE", "GROQ_TWO", "GOOGLE_API_KEY")
CHANGES = st.tuples(st.sampled_from(VARIABLES), st.sampled_from([None, "", "sk-a", "sk-b", "sk bad ", "http://a.test"]))
QUESTIONS = st.tuples(
    st.sampled_from(["openai", "gateway", "groq", "google", "keyless", "unknown"]), st.sampled_from([None, "sk-own"])
)


def found(of: Any, *arguments: Any) -> object:
    try:
        return of(*arguments)
    except ConfigurationError as error:
        return str(error)


@given(st.lists(st.tuples(CHANGES, QUESTIONS, st.booleans()), max_size=30))
def test_what_is_remembered_is_what_the_environment_gives_now(steps: list[Any]) -> None:
    remembered, before = RememberedAccess(GATEWAY, {"google"}), dict(os.environ)
    try:
        for (variable, value), (provider, key), is_plain in steps:
            os.environ.pop(variable, None)
            if value is not None:
                os.environ[variable] = value
            environ: Mapping[str, str] = dict(os.environ) if is_plain else os.environ

            assert found(remembered.of, environ, provider, key) == found(
                access_from, environ, provider, GATEWAY, key, {"google"}
            )
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_values_that_are_remembered_are_not_shown() -> None:
    remembered = RememberedAccess({})
    remembered.of({"OPENAI_API_KEY": "sk-secret"}, "openai", None)

    assert "sk-secret" not in repr(vars(remembered))
