"""Promises of what a ``headrace.toml`` may say that was only found in the current directory: never where the user's keys go."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigurationError
from headrace.provider_table import BUILT_IN
from headrace.settings import Settings, load_settings

ELSEWHERE = "https://elsewhere.example/v1"
CHAT = f'api = "openai-chat"\nbase_url = "{ELSEWHERE}"\n'
OPENAI = 'api = "openai-chat"\nbase_url = "https://api.openai.com/v1"\n'
OWN_FILE = f"""
[providers.gateway]
{CHAT.replace("elsewhere", "gateway")}
api_key_env = ["GATEWAY_KEY", "GATEWAY_KEY_2"]
[sinks.traces]
type = "otlp"
url = "https://traces.example"
api_key_env = "TRACES_TOKEN"
[engine]
workers = 3
idle_timeout = 30
"""
REDIRECTIONS = {
    "a name of its own with a built-in variable": f'[providers.mine]\n{CHAT}api_key_env = "OPENAI_API_KEY"',
    "a list of variables": f'[providers.mine]\n{CHAT}api_key_env = ["MINE_KEY", "ANTHROPIC_API_KEY"]',
    "letters of another case": f'[providers.mine]\n{CHAT}api_key_env = "Openai_Api_Key"',
    "another key of a vendor": f'[providers.mine]\n{CHAT}api_key_env = "OPENAI_ADMIN_KEY"',
    "a vendor's name behind another word": f'[providers.mine]\n{CHAT}api_key_env = "MY_OPENAI_API_KEY"',
    "a vendor's name in a word": f'[providers.mine]\n{CHAT}api_key_env = "OPENAIKEY"',
    "a vendor's token": f'[providers.mine]\n{CHAT}api_key_env = "ANTHROPIC_AUTH_TOKEN"',
    "the address as the beginning of another": f"[providers.openai]\n{OPENAI.replace('api.openai.com', 'api.openai.com.elsewhere.example')}",
    "the address with another port": f"[providers.openai]\n{OPENAI.replace('openai.com', 'openai.com:8443')}",
    "the address without TLS": f"[providers.openai]\n{OPENAI.replace('https', 'http')}",
    "a key of one vendor to another": f'[providers.openai]\n{OPENAI}api_key_env = "ANTHROPIC_API_KEY"',
    "a key of the user's to a vendor": f'[providers.openai]\n{OPENAI}api_key_env = "GITHUB_TOKEN"',
    "an inline table": f'providers = {{ openai = {{ api = "openai-chat", base_url = "{ELSEWHERE}" }} }}',
    "dotted keys": f'providers.openai.api = "openai-chat"\nproviders.openai.base_url = "{ELSEWHERE}"',
    "an escaped name": f'[providers."open\\u0061i"]\n{CHAT}',
    "a sink": '[sinks.mine]\ntype = "http"\nurl = "https://elsewhere.example"\napi_key_env = "OPENAI_API_KEY"',
    "a sink by OpenTelemetry's name": '[sinks.otlp]\ntype = "otlp"\nurl = "https://x.example"\napi_key_env = "GROQ_API_KEY"',
    "a provider of the user's file": f"[providers.gateway]\n{CHAT}",
    "a variable of the user's file": f'[providers.mine]\n{CHAT}api_key_env = "GATEWAY_KEY_2"',
    "a sink's variable of the user's file": f'[providers.mine]\n{CHAT}api_key_env = "TRACES_TOKEN"',
    "a sink with a variable of the user's file": (
        '[sinks.traces]\ntype = "otlp"\nurl = "https://elsewhere.example"\napi_key_env = "TRACES_TOKEN"'
    ),
}


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a user with a file of his own, in a directory that he has cloned."""
    own = tmp_path / "home" / ".config" / "headrace"
    own.mkdir(parents=True)
    (own / "headrace.toml").write_text(OWN_FILE)
    (tmp_path / "cloned").mkdir()
    monkeypatch.chdir(tmp_path / "cloned")
    return {"HOME": str(tmp_path / "home"), "OPENAI_API_KEY": "sk-user"}


def refused(environ: dict[str, str], text: str) -> str:
    Path("headrace.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environ)
    return str(caught.value)


def test_a_found_file_may_not_move_a_provider_that_is_built_in(environ: dict[str, str]) -> None:
    for name in BUILT_IN:
        said = refused(environ, f"[providers.{name}]\n{CHAT}")
        assert f"providers.{name}.base_url would send what is meant for {name}, and its key, to another address" in said


@pytest.mark.parametrize("way", REDIRECTIONS)
def test_a_found_file_may_not_send_a_key_of_the_users_elsewhere(way: str, environ: dict[str, str]) -> None:
    assert "A file that is only found in the current directory may not do that" in refused(environ, REDIRECTIONS[way])


def test_what_was_refused_is_told_and_how_to_allow_it(environ: dict[str, str], tmp_path: Path) -> None:
    found, own = tmp_path / "cloned" / "headrace.toml", tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    assert refused(environ, f"[providers.openai]\n{CHAT}") == (
        f"{found}: providers.openai.base_url would send what is meant for openai, and its key, to another address. "
        "A file that is only found in the current directory may not do that; "
        f"if it is yours, set HEADRACE_CONFIG={found}, or move the table to {own}"
    )


@pytest.mark.parametrize("way", REDIRECTIONS)
def test_a_file_that_the_user_names_may_do_all_of_it(way: str, environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(REDIRECTIONS[way])
    for named in ("headrace.toml", str(Path("headrace.toml").absolute())):
        load_settings({**environ, "HEADRACE_CONFIG": named})


@pytest.mark.parametrize("way", REDIRECTIONS)
def test_the_users_own_file_may_do_all_of_it(way: str, environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "home" / ".config" / "headrace"
    (directory / "headrace.toml").write_text(REDIRECTIONS[way])
    load_settings(environ)


def test_the_users_own_file_is_his_own_in_its_own_directory(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "home" / ".config" / "headrace"
    (directory / "headrace.toml").write_text(f"[providers.openai]\n{CHAT}")
    monkeypatch.chdir(directory)
    assert load_settings(environ).providers["openai"].base_url == ELSEWHERE


def test_a_found_file_may_define_providers_with_keys_of_their_own(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(f'[providers.mine]\n{CHAT}api_key_env = "MINE_KEY"\n[providers.local]\n{CHAT}')
    assert load_settings(environ).providers["mine"].base_url == ELSEWHERE


@pytest.mark.parametrize("name", ["openai", "mine"])
def test_a_found_file_may_send_a_key_where_it_goes_anyway(name: str, environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(f'[providers.{name}]\n{OPENAI}api_key_env = "OPENAI_API_KEY"')
    assert load_settings(environ).providers[name].base_url == "https://api.openai.com/v1"


def test_where_a_key_goes_is_what_the_environment_says(environ: dict[str, str]) -> None:
    gateway = {**environ, "OPENAI_BASE_URL": "https://gateway.example/v1"}
    assert "base_url would send" in refused(gateway, f"[providers.openai]\n{OPENAI}")
    Path("headrace.toml").write_text(f"[providers.openai]\n{OPENAI.replace('api.openai.com', 'gateway.example')}")
    assert load_settings(gateway).providers["openai"].base_url == "https://gateway.example/v1"


def test_a_found_file_goes_before_the_users_own_setting_by_setting(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text("[engine]\nidle_timeout = 60\n")
    settings = load_settings(environ)
    assert (settings.engine.workers, settings.engine.idle_timeout) == (3, 60.0)
    assert "gateway" in settings.providers
    assert list(settings.sinks) == ["traces"]


def test_a_file_that_is_named_is_the_only_one(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text("[engine]\nidle_timeout = 60\n")
    assert load_settings({**environ, "HEADRACE_CONFIG": "/dev/null"}).engine == Settings().engine


def test_the_users_own_file_is_where_XDG_says(environ: dict[str, str], tmp_path: Path) -> None:  # noqa: N802
    (tmp_path / "xdg" / "headrace").mkdir(parents=True)
    (tmp_path / "xdg" / "headrace" / "headrace.toml").write_text("[engine]\nworkers = 5\n")
    assert load_settings({**environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}).engine.workers == 5
    assert load_settings({**environ, "XDG_CONFIG_HOME": "xdg"}).engine.workers == 3  # a relative path counts as none
