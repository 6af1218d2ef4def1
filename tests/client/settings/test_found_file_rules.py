"""Which settings a ``headrace.toml`` in the current directory may have: a short list of harmless ones."""

from __future__ import annotations

import json
import os
import shlex
import time
from pathlib import Path

import msgspec
import pytest

from headrace.arguments.checked_request import provider_and_model
from headrace.cli.config_report import report
from headrace.errors import ConfigurationError, InvalidRequestError
from headrace.pricing.prices import PriceTable, run_cost
from headrace.settings.allowed_files import change_allowed_keys
from headrace.settings.found_file_rules import CLOCKS, AllowedKey, TrustedSettings, refused_settings
from headrace.settings.known_secrets import provider_secrets
from headrace.settings.provider_table import BUILT_IN
from headrace.settings.settings import EngineConfig, Settings, SpansConfig, load_settings
from headrace.types import Usage
from tests.cases import each

USED = Usage(input_tokens=1_000_000, total_tokens=1_000_000, source="provider")
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
    "the address of a provider that exists already": f"[providers.openai]\n{OPENAI}",
    "a vendor's key to the vendor, by another name": f'[providers.gemini]\n{CHAT}api_key_env = "GEMINI_API_KEY"',
    "a key in the address, which would be masked as a secret everywhere": (
        f"[providers.mine]\n{CHAT.replace('/v1', '/v1?key=gpt-4o-2024-08-06')}"
    ),
    "a key behind another word": f"[providers.mine]\n{CHAT.replace('/v1', '/v1?api-version=1&sig=gpt-4o-2024-08-06')}",
    "a key in the path": f"[providers.mine]\n{CHAT.replace('/v1', '/v1;token=gpt-4o-2024-08-06/x')}",
    "what looks like a password in the address": f"[providers.mine]\n{CHAT.replace('/v1', ':80/chatcmpl-@v1')}",
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


@each("way", REDIRECTIONS)
def test_a_found_file_may_not_send_a_key_of_the_users_elsewhere(way: str, environ: dict[str, str]) -> None:
    assert "A file that is only found in the current directory may not do that" in refused(environ, REDIRECTIONS[way])


def test_a_command_in_an_error_can_be_copied_into_a_shell_safely(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a b;touch $(reboot)'"
    directory.mkdir()
    monkeypatch.chdir(directory)
    said = refused(environ, "[engine]\nworkers = 9\n").partition("set HEADRACE_CONFIG=")[2]
    assert shlex.split(said.partition(", or move")[0]) == [str(directory / "headrace.toml")]


def test_an_error_says_which_setting_was_refused_and_how_to_allow_it(environ: dict[str, str], tmp_path: Path) -> None:
    found, own = tmp_path / "cloned" / "headrace.toml", tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    assert refused(environ, f"[providers.openai]\n{CHAT}") == (
        f"{found}: providers.openai.base_url would send what is meant for openai, and its key, to another address. "
        "A file that is only found in the current directory may not do that; "
        f"if the file is yours, set HEADRACE_CONFIG={found}, or move the table to {own}"
    )


@each("way", REDIRECTIONS)
def test_a_file_that_the_user_names_may_do_all_of_it(way: str, environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(REDIRECTIONS[way])
    for named in ("headrace.toml", str(Path("headrace.toml").absolute())):
        load_settings({**environ, "HEADRACE_CONFIG": named})


@each("way", REDIRECTIONS)
def test_the_users_own_file_may_do_all_of_it(way: str, environ: dict[str, str], tmp_path: Path) -> None:
    directory = tmp_path / "home" / ".config" / "headrace"
    (directory / "headrace.toml").write_text(REDIRECTIONS[way])
    load_settings(environ)


def test_the_users_own_file_is_trusted_in_its_own_directory_too(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "home" / ".config" / "headrace"
    (directory / "headrace.toml").write_text(f"[providers.openai]\n{CHAT}")
    monkeypatch.chdir(directory)
    assert load_settings(environ).providers["openai"].base_url == ELSEWHERE


def allow(environ: dict[str, str], provider: str, base_url: str, *variables: str) -> None:
    """Do what `headrace config allow` does."""
    keys = {AllowedKey(os.path.realpath("."), provider, base_url, variable) for variable in variables}
    change_allowed_keys(environ, lambda known: known | keys)


def test_a_found_address_may_name_the_version_of_an_api_and_nothing_that_is_masked(environ: dict[str, str]) -> None:
    address = "https://mine.example/v1?api-version=2024-10-21"
    Path("headrace.toml").write_text(f'[providers.mine]\napi = "openai-chat"\nbase_url = "{address}"\n')
    assert provider_secrets(load_settings(environ), {}) == []


def test_a_found_file_may_define_providers_without_keys(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(f"[providers.local]\n{CHAT}max_concurrency = 2\n")
    assert load_settings(environ).providers["local"].base_url == ELSEWHERE


def test_a_provider_names_no_more_variables_than_a_user_looks_at(environ: dict[str, str]) -> None:
    names = ", ".join(f'"MINE_KEY_{number}"' for number in range(9))
    said = refused(environ, f"[providers.mine]\n{CHAT}api_key_env = [{names}]\n")
    assert "names more than 8 variables, which are too many to show before you allow them" in said


MINE = f'[providers.mine]\n{CHAT}api_key_env = ["MINE_KEY", "MINE_KEY_2"]\n'


def test_a_provider_with_keys_of_its_own_is_refused_until_each_of_them_is_allowed(environ: dict[str, str]) -> None:
    said = refused(environ, MINE)
    assert said.endswith(
        "providers.mine.api_key_env would send the values of MINE_KEY and MINE_KEY_2 to https://elsewhere.example/v1. "
        "You have not allowed that; if it is right, run `headrace config allow` in that directory"
    )
    allow(environ, "mine", ELSEWHERE, "MINE_KEY")
    assert "would send the value of MINE_KEY_2 to" in refused(environ, MINE)
    allow(environ, "mine", ELSEWHERE, "MINE_KEY_2")
    assert load_settings(environ).providers["mine"].base_url == ELSEWHERE


@pytest.mark.parametrize(
    "changed",
    [
        MINE.replace("[providers.mine]", "[providers.mine2]"),
        MINE.replace("elsewhere", "somewhere"),
        MINE.replace("https:", "http:"),
        MINE.replace("/v1", "/v1/"),
        MINE.replace("https://elsewhere", "HTTPS://elsewhere"),
        MINE.replace("elsewhere", "Elsewhere"),
        MINE.replace(".example/", ".example:443/"),
        MINE.replace(".example/", ".example./"),
        MINE.replace("/v1", "/%761"),
        MINE.replace('"MINE_KEY_2"', '"GITHUB_TOKEN"'),
        MINE.replace('"MINE_KEY_2"', '"mine_key_2"'),
    ],
)
def test_what_was_allowed_is_refused_again_when_any_of_it_changes(environ: dict[str, str], changed: str) -> None:
    Path("headrace.toml").write_text(MINE)
    allow(environ, "mine", ELSEWHERE, "MINE_KEY", "MINE_KEY_2")
    load_settings(environ)
    assert "You have not allowed that" in refused(environ, changed)


def test_what_was_allowed_in_one_directory_is_not_in_another(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(environ, "mine", ELSEWHERE, "MINE_KEY", "MINE_KEY_2")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert "You have not allowed that" in refused(environ, MINE)
    # A link to the directory is the directory.
    (tmp_path / "link").symlink_to(tmp_path / "cloned")
    monkeypatch.chdir(tmp_path / "link")
    Path("headrace.toml").write_text(MINE)
    load_settings(environ)


@pytest.mark.parametrize("key", ["sk_live_4eC39HqLyjWDarjtT1zdp7dc", "sk_openai_4eC39HqLyjWDarjtT1zdp7dc"])
def test_a_key_that_stands_in_the_place_of_its_variable_is_in_no_error(key: str, environ: dict[str, str]) -> None:
    said = refused(environ, f'[providers.mine]\n{CHAT}api_key_env = ["MINE_KEY", "{key}"]\n')
    assert "a name that is not in capitals (not shown: it may be a key)" in said
    assert key not in said
    assert "4eC39" not in json.dumps(msgspec.to_builtins(report(environ)))


def test_a_directory_that_takes_the_place_of_one_or_was_moved_is_another(
    environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloned, moved = tmp_path / "cloned", tmp_path / "moved"
    allow(environ, "mine", ELSEWHERE, "MINE_KEY", "MINE_KEY_2")
    Path("headrace.toml").write_text(MINE)
    load_settings(environ)
    cloned.rename(moved)
    assert "You have not allowed that" in refused(environ, MINE), "it is moved, and the program in it"
    cloned.symlink_to(moved)
    monkeypatch.chdir(cloned)
    assert "You have not allowed that" in refused(environ, MINE), "the link leads to another directory"


def test_a_vendors_key_cannot_be_allowed_but_for_the_vendors_own_address(environ: dict[str, str]) -> None:
    mine = f'[providers.mine]\n{CHAT}api_key_env = "OPENAI_API_KEY"'
    allow(environ, "mine", ELSEWHERE, "OPENAI_API_KEY")
    assert "would send the key in OPENAI_API_KEY to an address of the file's own" in refused(environ, mine)
    allow(environ, "mine", "https://api.openai.com/v1", "OPENAI_API_KEY")
    Path("headrace.toml").write_text(f'[providers.mine]\n{OPENAI}api_key_env = "OPENAI_API_KEY"')
    assert load_settings(environ).providers["mine"].base_url == "https://api.openai.com/v1"


def test_where_a_vendors_key_goes_is_what_the_environment_says(environ: dict[str, str]) -> None:
    gateway = {**environ, "OPENAI_BASE_URL": "https://gateway.example/v1"}
    assert "base_url would send" in refused(gateway, f"[providers.openai]\n{OPENAI}")
    allow(environ, "mine", "https://api.openai.com/v1", "OPENAI_API_KEY")
    assert "would send the key in" in refused(gateway, f'[providers.mine]\n{OPENAI}api_key_env = "OPENAI_API_KEY"')


NAMES = [
    "OpenAI", "OPENAI", "open-ai", "open_ai", "0penai", "opena1", "\u043epenai", "opena\u0131", "openai\u200b", "\uff4fpenai",
    "openai_chat", "open.ai", "g00gle", "Gateway", "gate-way", "gatevvay", "v11m", "xa1", "gpt-5", "GPT-x", "o3", "claude-x",
    "gemini-3", "text-embedding-x",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_found_provider_may_not_be_taken_for_another_or_for_a_model(name: str, environ: dict[str, str]) -> None:
    said = refused(environ, f'[providers."{name}"]\n{CHAT}')
    assert "is a name " in said or "has a control character" in said


def test_a_found_file_does_not_change_where_a_models_name_leads(environ: dict[str, str]) -> None:
    named = ("mine", "zzz", *LIKE_MODELS)
    Path("headrace.toml").write_text("".join(f"[providers.{name}]\n{CHAT}" for name in named))
    providers = tuple(load_settings(environ).providers)
    longer = [f"{provider}/{name}/x" for provider in ("openrouter", "gateway") for name in named]
    for model in ("gpt-5", "openai/gpt-5", "claude-x", "gemini-3", "groq/llama", "gateway/small", *longer):
        with_file = provider_and_model(model, None, providers)
        assert with_file == provider_and_model(model, None, (*BUILT_IN, "gateway"))
    for name in named:
        assert provider_and_model(f"{name}/x", "openrouter", providers) == ("openrouter", f"{name}/x")
        assert provider_and_model(f"{name}/x", None, providers) == (name, "x"), "it is named"
        for model in (name, f"{name}:x", f"{name}-x", f"{name.upper()}/x", f"/{name}/x"):
            with pytest.raises(InvalidRequestError):
                provider_and_model(model, None, providers)


# What decides more than a name and a clock.

REFUSED = {
    "a sink over HTTP": '[sinks.mine]\ntype = "http"\nurl = "https://elsewhere.example"',
    "a sink that appends to a file": '[sinks.mine]\ntype = "jsonl"\npath = "~/.bashrc"',
    "a sink of the user's with other content": '[sinks.traces]\ntype = "otlp"\nurl = "https://traces.example"\ncontent = true',
    "a sink in an inline table": 'sinks = { mine = { type = "jsonl", path = "x" } }',
    "a sink with a bearer token": '[sinks.mine]\ntype = "http"\nurl = "https://x.example"\napi_key_env = "GITHUB_TOKEN"',
    "a redaction hook": '[spans]\nredact = "evil:hook"',
    "a redaction hook that is none": '[spans]\nredact = ""',
    "retention": "[spans]\nretention_days = 0",
    "a data directory": '[spans]\ndirectory = "/tmp/elsewhere"',
    "a data directory beside it": '[spans]\ndirectory = "data"',
    "no spans": "[spans]\nenabled = false",
    "content": '[spans]\ncontent = "full"',
    "durability": '[spans]\ndurability = "normal"',
    "memory of spans": "[spans]\nmemory_bytes = 0",
    "the spool": "[spans]\nspool_bytes = 0",
    "the files": "[spans]\nmax_file_bytes = 100_000",
    "very many workers": "[engine]\nworkers = 1024",
    "the default": "[engine]\nworkers = 0",
    "the queue": "[engine]\nmax_waiting_runs = 0",
    "runs of a worker": "[engine]\nmax_runs_per_worker = 1",
    "the workers' age": "[engine]\nmax_worker_age = 0.001",
    "the workers' memory": "[engine]\nmax_worker_memory = 1",
    "what replaced workers have": "[engine]\nworker_drain_timeout = 0",
    "more retries": "[engine]\nmax_retries = 100",
    "limits of a provider that exists": "[limits.openai]\nmax_concurrency = 1",
    "limits of a model that exists": '[limits."groq/large"]\nrequests_per_minute = 1',
    "a fallback to the file's own provider": (
        f'[providers.mine]\n{CHAT}[models."openai/gpt-4o"]\nfallbacks = ["mine/large"]'
    ),
    "a fallback with a key of the user's": f'[providers.mine]\n{CHAT}[models."mine/large"]\nfallbacks = ["gpt-4o"]',
    "a fallback behind one of its own": (
        f'[providers.mine]\n{CHAT}[models."mine/large"]\nfallbacks = ["mine/small", "openai/gpt-4o"]'
    ),
    "very many retries": f'[providers.mine]\n{CHAT}[models."mine/large"]\nmax_retries = 100',
    "hedges of a model that exists": '[models."openai/gpt-4o"]\nhedge_after_ms = 1',
    "keys of a provider that exists": '[keys.openai]\nenv = ["MINE_KEY"]',
    "a vendor's key for its own provider": f'[providers.mine]\n{CHAT}[keys.mine]\nenv = ["OPENAI_API_KEY"]',
    "a file of keys": f'[providers.mine]\n{CHAT}[keys.mine]\nfile = "~/.ssh/id_ed25519"',
    "a file of keys beside it": f'[providers.mine]\n{CHAT}[keys.mine]\nenv = ["MINE_KEY"]\nfile = "keys"',
    "spending": "[spending.mine]\nmax_cost = 1000",
    "a store": '[budget]\nurl = "redis://elsewhere.example"',
    "engines": "[budget]\nengines = 1",
    "a price that hides costs": "[prices.gpt-4o]\ninput = 0",
    "a price of a provider's model": '[prices."openai/gpt-4o"]\ninput = 0',
    "a price of a dated model": "[prices.gpt-4o-2024-08-06]\ninput = 0",
    "a price of a model that has none": "[prices.gpt-99]\ninput = 0",
    "a price of a model of another's": '[prices."groq/whatever"]\ninput = 0',
    "a price without its provider": '[prices."openai/gpt-oss-20b"]\ninput = 0',
    "a price of a model that is not known": "[prices.unheard-of]\ninput = 0",
    "a price in other letters": "[prices.GPT-4o]\ninput = 0",
    "a price of a provider that is not there": '[prices."meta-llama/llama-3.3-70b"]\ninput = 0',
    "a price of the end of a name": "[prices.gpt-oss-20b]\ninput = 0",
    "a price of the user's": "[prices.small]\ninput = 0",
    "a price of the user's, by the provider": '[prices."gateway/large"]\ninput = 0',
}


@each("what", REFUSED)
def test_all_other_settings_are_refused_in_a_found_file_and_taken_from_the_users_own(
    what: str, environ: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    own.write_text(f"{OWN_FILE}[prices.small]\ninput = 1\n")
    said = refused(environ, REFUSED[what])
    assert "A file that is only found in the current directory may not do that" in said
    load_settings({**environ, "HEADRACE_CONFIG": "headrace.toml"})
    own.write_text(REFUSED[what])
    Path("headrace.toml").unlink()
    load_settings(environ)


OF_ITS_OWN = f"""
[providers.mine]
{CHAT}max_concurrency = 2
[limits.mine]
requests_per_minute = 60
[limits."mine/large*"]
tokens_per_minute = 1000
[models."mine/large"]
fallbacks = ["mine/small"]
max_retries = 3
hedge = "p95"
"""


def test_a_found_file_may_limit_and_retry_the_models_of_its_own_providers(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(OF_ITS_OWN)
    settings = load_settings(environ)
    assert settings.limits["mine"].requests_per_minute == 60
    assert settings.models["mine/large"].fallbacks == ["mine/small"]


KEYS_OF_MINE = f'[providers.mine]\n{CHAT}[keys.mine]\nenv = ["MINE_KEY", "MINE_KEY_2"]\n'


def test_several_keys_of_a_found_provider_are_refused_until_each_of_them_is_allowed(environ: dict[str, str]) -> None:
    said = refused(environ, KEYS_OF_MINE)
    assert "keys.mine.env would send the values of MINE_KEY and MINE_KEY_2 to https://elsewhere.example/v1" in said
    allow(environ, "mine", ELSEWHERE, "MINE_KEY", "MINE_KEY_2")
    assert load_settings(environ).keys["mine"].env == ["MINE_KEY", "MINE_KEY_2"]
    assert "You have not allowed that" in refused(environ, KEYS_OF_MINE.replace("elsewhere", "somewhere"))


@pytest.mark.parametrize(
    "waiting",
    [
        '[keys.mine]\nenv = ["MINE_KEY"]\n',
        '[models."openai/gpt-4o"]\nfallbacks = ["mine/large"]\n',
        '[spending.mine]\nmax_cost = 5\nprovider = "mine"\n',
        "[limits.mine]\nmax_concurrency = 5\n",
    ],
)
def test_a_found_file_cannot_bring_the_provider_that_a_table_of_the_users_is_about(
    waiting: str, environ: dict[str, str], tmp_path: Path
) -> None:
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    own.write_text(f"{OWN_FILE}{waiting}")
    said = refused(environ, f"[providers.mine]\n{CHAT}")
    assert said.startswith(f"{own}: ")
    assert report(environ).refused


def test_the_keys_of_a_table_of_the_users_are_the_users(environ: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    own.write_text(f'{OWN_FILE}[keys.gateway]\nenv = ["SPARE"]\n')
    mine = f'[providers.mine]\n{CHAT}api_key_env = "SPARE"\n'
    allow(environ, "mine", ELSEWHERE, "SPARE")
    assert "would send the key in SPARE to an address of the file's own" in refused(environ, mine)


def test_each_setting_is_refused_in_a_found_file_unless_it_is_on_the_list() -> None:
    """A setting that somebody adds to Headrace tomorrow is not the current directory's to set."""
    known = TrustedSettings("/cloned", {}, (), lambda: (), lambda _key: True)
    for table in (*Settings.__struct_fields__, "later"):
        keys = {"engine": EngineConfig, "spans": SpansConfig}.get(table, Settings).__struct_fields__
        for key in (*keys, "later"):
            settings = {"api": "openai-chat", "base_url": ELSEWHERE} if table == "providers" else {"later": 1}
            found = list(refused_settings({table: {key: settings}}, known))
            is_taken = table == "providers" or (table == "engine" and key in CLOCKS)
            assert bool(found) != is_taken, (table, key)
    for key in ("proxy", "headers", "verify", "later"):
        provider = {"api": "openai-chat", "base_url": ELSEWHERE, key: "x"}
        assert [one.path for one in refused_settings({"providers": {"mine": provider}}, known)] == [
            ("providers", "mine", key)
        ]
    assert set(CLOCKS) < set(EngineConfig.__struct_fields__)


def test_a_found_file_may_price_the_models_of_its_own_providers(environ: dict[str, str]) -> None:
    prices = '[prices."local/gpt-4o"]\ninput = 1\n[prices."local/unheard-of"]\ninput = 2\n'
    Path("headrace.toml").write_text(f"[providers.local]\n{CHAT}{prices}")
    found = load_settings(environ).prices
    assert (found["local/gpt-4o"].input, found["local/unheard-of"].input) == (1.0, 2.0)


LIKE_MODELS = ("meta-llama", "qwen", "deepseek-ai", "models", "accounts", "mistralai")
"""How the names of models begin at providers that serve models of others: ``meta-llama/llama-3.3-70b``."""


@pytest.mark.parametrize("name", LIKE_MODELS)
def test_a_found_price_counts_at_its_own_provider_alone(name: str, environ: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    own.write_text(f"{OWN_FILE}[prices.'{name}/priced']\ninput = 5\n")
    models = ("large", "gpt-99", "large-2024-08-06")
    prices = "".join(f"[prices.'{name}/{model}']\ninput = 0\n" for model in models)
    Path("headrace.toml").write_text(f"[providers.{name}]\n{CHAT}{prices}")
    table = PriceTable(load_settings(environ).prices)

    for model in (*models, "large-2025-01-01"):
        assert table.cost(name, model, USED) == 0.0
        for provider in ("openrouter", "groq", "gateway", "openai", f"{name}2"):
            assert table.cost(provider, f"{name}/{model}", USED) is None
            assert run_cost(table, provider, "unheard-of", f"{name}/{model}", USED) is None
    assert table.cost("openrouter", f"{name}/priced", USED) == 5.0, "the user's own"
    assert table.cost("groq", "qwen/qwen3.8-27b", USED) == PriceTable().cost("groq", "qwen/qwen3.8-27b", USED) == 0.8


def test_a_users_own_price_counts_wherever_a_model_is_called_so(environ: dict[str, str], tmp_path: Path) -> None:
    own = tmp_path / "home" / ".config" / "headrace" / "headrace.toml"
    own.write_text(f"[providers.meta-llama]\n{CHAT}[prices.'meta-llama/large']\ninput = 5\n")
    table = PriceTable(load_settings(environ).prices)
    assert table.cost("openrouter", "meta-llama/large", USED) == table.cost("meta-llama", "large", USED) == 5.0


@pytest.mark.parametrize("clock", sorted(CLOCKS))
def test_the_timeouts_of_a_found_file_neither_stop_runs_nor_let_them_hang(clock: str, environ: dict[str, str]) -> None:
    for value in (0.001, 0.99, 3601, 31_622_400):
        assert f"engine.{clock} is not between 1 second and 1 hour" in refused(
            environ, f"[engine]\n{clock} = {value}\n"
        )
    assert "engine.stalled_reader_timeout" in refused(environ, "[engine]\nstalled_reader_timeout = 0\n")
    for allowed in (1, 3600.0):
        Path("headrace.toml").write_text(f"[engine]\n{clock} = {allowed}\n")
        assert getattr(load_settings(environ).engine, clock) == allowed


@pytest.mark.parametrize("value", ["nan", "inf", "-1", '"0"', "1e300"])
def test_the_numbers_of_a_found_file_have_the_bounds_of_all_files(value: str, environ: dict[str, str]) -> None:
    assert "it takes a number" in refused(environ, f"[providers.local]\n{CHAT}[prices.'local/x']\ninput = {value}\n")
    assert "it takes a number" in refused(environ, f"[engine]\nidle_timeout = {value}\n")


def test_a_found_file_goes_before_the_users_own_setting_by_setting(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text("[engine]\nidle_timeout = 60\n")
    settings = load_settings(environ)
    assert (settings.engine.workers, settings.engine.idle_timeout) == (3, 60.0)
    assert "gateway" in settings.providers
    assert list(settings.sinks) == ["traces"]


NEIGHBOURS = (
    "../headrace.toml",
    ".headrace.toml",
    "headrace.toml.local",
    "config/headrace.toml",
    ".config/headrace/headrace.toml",
)


def test_no_other_file_in_or_above_the_current_directory_is_read(environ: dict[str, str]) -> None:
    without = load_settings(environ)
    for name in NEIGHBOURS:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("not even TOML")
    Path("pyproject.toml").write_text("[tool.headrace.engine]\nworkers = 9\n")
    Path(".env").write_text("HEADRACE_CONFIG=evil.toml\nOPENAI_BASE_URL=https://elsewhere.example\n")
    for relative in ({}, {"XDG_CONFIG_HOME": ".config"}, {"XDG_CONFIG_HOME": "."}):
        assert load_settings(environ | relative) == without
    assert load_settings({"HOME": "."}) == load_settings({"HOME": "/nowhere"})


def test_a_file_that_is_named_is_the_only_one(environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text("[engine]\nidle_timeout = 60\n")
    assert load_settings({**environ, "HEADRACE_CONFIG": "/dev/null"}).engine == Settings().engine


def test_the_users_own_file_is_where_XDG_says(environ: dict[str, str], tmp_path: Path) -> None:  # noqa: N802
    (tmp_path / "xdg" / "headrace").mkdir(parents=True)
    (tmp_path / "xdg" / "headrace" / "headrace.toml").write_text("[engine]\nworkers = 5\n")
    assert load_settings({**environ, "XDG_CONFIG_HOME": str(tmp_path / "xdg")}).engine.workers == 5
    assert load_settings({**environ, "XDG_CONFIG_HOME": "xdg"}).engine.workers == 3  # a relative path counts as none


HEAVY = {
    "a name of many dots": ".".join("a" * 500_000) + "=1",
    "a table's name of many dots": f"[{'.'.join('a' * 500_000)}]",
    "many names with dots": "\n".join(f"[{'.'.join('a' * 99)}.b{number}]" for number in range(5000)),
    "a long name": "a" * 1_000_000 + "=1",
    "a long setting": f"[engine]\n{'a' * 1_000_000}=1",
    "a provider's long name": f"[providers.{'a' * 1_000_000}]\n{CHAT}",
    "many providers": "\n".join(f"[providers.p{number}]\n{CHAT}" for number in range(2_000)),
    "many prices": f"[providers.p]\n{CHAT}" + "\n".join(f"[prices.'p/{number}']\ninput=1\n" for number in range(4_000)),
    "a long address": f'[providers.mine]\napi = "openai-chat"\nbase_url = "https://x.example/{"a" * 1_000_000}"\napi_key_env = "X_KEY"',
    "a long variable": f'[providers.mine]\n{CHAT}api_key_env = "{"A_" * 500_000}"',
    "many variables": f'[providers.mine]\n{CHAT}api_key_env = ["{chr(34).join(f"A{n}{chr(34)}," for n in range(5_000))}"Z"]',
}


@pytest.mark.parametrize("what", HEAVY)
def test_no_found_file_holds_up_a_program(what: str, environ: dict[str, str]) -> None:
    Path("headrace.toml").write_text(HEAVY[what][: 1024 * 1024])
    began = time.process_time()
    said = ""
    try:
        load_settings(environ)
    except ConfigurationError as error:
        said = str(error)
    took = time.process_time() - began
    print(f"{took:.2f} s")
    assert took < 5
    assert len(said) < 5_000, "and it fits on a screen"
