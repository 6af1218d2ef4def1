"""``headrace config`` shows where each setting comes from and what is refused.

It shows no secret, and asks before it allows.
"""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.cli.main import main
from tests.cli.conftest import Done

MINE = """
[providers.mine]
api = "openai-chat"
base_url = "https://mine.example/v1"
api_key_env = ["MINE_KEY", "GITHUB_TOKEN"]
"""
SECRETS = """
[sinks.traces]
type = "http"
url = "https://user:pass-w0rd@traces.example/x?token=t0ken"
headers = { authorization = "Bearer h3ader" }
api_key_env = "sk_live_4eC39HqLyjWDarjtT1zdp7dc"
"""
Config = Callable[..., Done]


@pytest.fixture
def config(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Config:
    """Run ``headrace config`` in a cloned directory."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME")
    (tmp_path / "home" / ".config" / "headrace").mkdir(parents=True)
    (tmp_path / "cloned").mkdir()
    monkeypatch.chdir(tmp_path / "cloned")

    def run(*arguments: str) -> Done:
        capfd.readouterr()
        return Done(main(["config", *arguments]), *capfd.readouterr())

    return run


def entries(done: Done) -> dict[str, tuple[Any, str]]:
    return {one["setting"]: (one["value"], one["source"]) for one in json.loads(done.out)["settings"]}


def test_each_value_is_shown_with_where_it_came_from(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, found = tmp_path / "home/.config/headrace/headrace.toml", tmp_path / "cloned/headrace.toml"
    own.write_text("[engine]\nworkers = 3\nidle_timeout = 30\n[prices.'ours/x']\ninput = 2\n")
    found.write_text(
        '[engine]\nidle_timeout = 60\n[providers.local]\napi = "openai-chat"\nbase_url = "http://127.0.0.1:1"\n'
    )
    monkeypatch.setenv("OPENAI_BASE_URL", "https://gateway.example/v1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-never-shown")
    done = config("show", "--json")
    shown = entries(done)

    assert (done.code, done.err) == (0, "")
    assert "sk-never-shown" not in done.out
    assert shown["engine.workers"] == (3, str(own))
    assert shown["engine.idle_timeout"] == (60.0, str(found))
    assert shown["engine.total_timeout"] == (600.0, "default")
    assert shown["spans.directory"] == (str(tmp_path / "data"), "HEADRACE_DATA")
    assert shown["providers.local.base_url"] == ("http://127.0.0.1:1", str(found))
    assert shown["providers.openai.base_url"] == ("https://gateway.example/v1", "OPENAI_BASE_URL")
    assert shown["providers.openai.api_key_env"] == ("OPENAI_API_KEY (set)", "built in")
    assert shown["providers.groq.base_url"] == ("https://api.groq.com/openai/v1", "built in")
    assert shown["sinks.otlp.url"] == ("http://127.0.0.1:4318", "environment")
    assert shown['prices."ours/x".input'] == (2.0, str(own))
    assert shown['prices."ours/x".output'] == (0.0, "default")
    assert [file["state"] for file in json.loads(done.out)["files"]] == ["read", "read"]
    assert config("show").out.count("\n") > len(shown)


LIMITS = """
[limits."openai/gpt-4o*"]
requests_per_minute = 60
[models."openai/gpt-4o"]
fallbacks = ["claude-opus-4-1"]
[keys.openai]
env = ["OPENAI_KEY_1", "OPENAI_KEY_2"]
[spending.daily]
max_cost = 5
user_id = "*"
[budget]
url = "redis://:pass-w0rd@redis.example:6379/1"
"""


def test_limits_keys_and_spending_are_shown_without_secrets(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "home/.config/headrace/headrace.toml"
    own.write_text(LIMITS)
    monkeypatch.setenv("OPENAI_KEY_1", "sk-never-shown")
    done = config("show", "--json")
    shown = {setting: value for setting, (value, source) in entries(done).items() if source == str(own)}

    assert (done.code, done.err) == (0, "")
    assert shown == {
        'limits."openai/gpt-4o*".requests_per_minute': 60,
        'models."openai/gpt-4o".fallbacks': ["claude-opus-4-1"],
        "keys.openai.env": "OPENAI_KEY_1 (set), OPENAI_KEY_2 (not set)",
        "spending.daily.max_cost": 5.0,
        "spending.daily.user_id": "*",
        "budget.url": "redis://…@redis.example:6379/1",
    }
    assert "never-shown" not in done.out
    assert "pass-w0rd" not in done.out


def test_tables_about_a_provider_that_does_not_exist_are_shown_as_refused(config: Config, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/headrace/headrace.toml"
    own.write_text("[limits.opnai]\nmax_concurrency = 5\n")
    done = config("show", "--json")

    assert done.code == 2
    assert json.loads(done.out)["refused"] == [
        {
            "source": str(own),
            "setting": "limits.opnai",
            "reason": "is about a provider that does not exist; did you mean openai?",
            "hint": "",
        }
    ]


def test_a_setting_that_refuses_its_whole_file_is_named_after_a_colon(config: Config, tmp_path: Path) -> None:
    (tmp_path / "home/.config/headrace/headrace.toml").write_text("[limits.openai]\nrequests_per_minute = 0\n")

    assert "  the whole file: limits.openai.requests_per_minute is 0; it takes" in config("show").out


def test_a_fallback_to_the_model_itself_is_refused_once(config: Config, tmp_path: Path) -> None:
    own = tmp_path / "home/.config/headrace/headrace.toml"
    own.write_text('[models."openai/gpt-4o"]\nfallbacks = ["gpt-4o"]\n')

    refused = json.loads(config("show", "--json").out)["refused"]
    assert [one["reason"] for one in refused] == ["is the model itself"]


def test_refused_settings_are_shown_with_advice_and_other_commands_end_with_the_error(
    config: Config, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("headrace.toml").write_text(MINE + SECRETS + "[engine]\nworkers = 9\nidle_timeout = 60\n")
    done = config("show", "--json")
    refused = {one["setting"]: one for one in json.loads(done.out)["refused"]}

    assert done.code == 2
    assert list(refused) == ["providers.mine.api_key_env", "sinks.traces", "engine.workers"]
    assert "run `headrace config allow`" in refused["providers.mine.api_key_env"]["hint"]
    assert f"HEADRACE_CONFIG={Path('headrace.toml').absolute()}" in refused["sinks.traces"]["hint"]
    assert entries(done)["engine.workers"] == (0, "default")
    assert entries(done)["engine.idle_timeout"] == (60.0, str(Path("headrace.toml").absolute()))
    assert not [setting for setting in entries(done) if "mine" in setting or "traces" in setting]
    text = config("show")
    assert text.code == 2
    assert "sinks.traces would decide where your runs are sent on to" in text.out
    assert main(["spans", "list"]) == 2
    assert "providers.mine.api_key_env would send the values of MINE_KEY and GITHUB_TOKEN" in capfd.readouterr().err


def test_no_secret_is_shown(config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home/.config/headrace/headrace.toml").write_text(SECRETS)
    monkeypatch.setenv("OPENAI_BASE_URL", "https://user:pass-w0rd@gateway.example/v1?key=t0ken")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pass-w0rd@proxy.example")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:pass-w0rd@127.0.0.1:4318/?t0ken")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20h3ader")
    for done in (config("show"), config("show", "--json")):
        assert done.code == 2, "OPENAI_BASE_URL cannot be used"
        assert "OPENAI_BASE_URL" in done.out
        for part in ("pass-w0rd", "t0ken", "h3ader", "sk_live"):
            assert part not in done.out + done.err
        for part in ("gateway.example", "proxy.example", "traces.example", "authorization"):
            assert part in done.out


@pytest.mark.parametrize("text", ["no settings", "[engine]\nworkers = -1\n", "[sinks.x]\n", "\x00"])
@pytest.mark.parametrize("whose", ["user", "found"])
def test_settings_that_cannot_be_used_are_shown_and_the_others_with_them(
    text: str, whose: str, config: Config, tmp_path: Path
) -> None:
    paths = {"user": tmp_path / "home/.config/headrace/headrace.toml", "found": tmp_path / "cloned/headrace.toml"}
    for path in paths.values():
        path.write_text("[engine]\nidle_timeout = 7\n")
    paths[whose].write_text(text)
    done = config("show", "--json")

    assert done.code == 2
    assert [file["state"] for file in json.loads(done.out)["files"]].count("unusable") == 1
    assert json.loads(done.out)["refused"][0]["source"] == str(paths[whose])
    assert entries(done)["engine.idle_timeout"][0] == 7.0
    assert config("show").code == 2


def test_config_works_without_a_current_directory_and_without_a_home(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cloned").rmdir()
    assert config("show").code == 0
    monkeypatch.setenv("HEADRACE_CONFIG", str(tmp_path / "none"))
    assert config("show").code == 2


def test_allow_shows_the_keys_first_and_then_stores_the_permission(
    config: Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("headrace.toml").write_text(MINE)
    done = config("allow", "--yes")
    assert done.code == 0
    assert done.lines[1:4] == [
        f"in {tmp_path / 'cloned'}",
        "  provider mine: the value of MINE_KEY is sent to https://mine.example/v1",
        "  provider mine: the value of GITHUB_TOKEN is sent to https://mine.example/v1",
    ]
    assert config("allow", "--yes").out == "nothing to allow: everything that the file asks for is allowed\n"
    assert main(["spans", "list"]) == 0
    assert config("show").code == 0
    assert config("allow", "--list").out.count("the value of") == 2

    assert config("allow", "--forget").code == 0
    assert config("allow", "--list").out == ""
    assert main(["spans", "list"]) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (MINE.replace("MINE_KEY", "OPENAI_API_KEY"), "would send the key in OPENAI_API_KEY"),
        (MINE.replace(".mine]", ".openai]"), "would send what is meant for openai"),
        (MINE + '[spans]\nredact = "evil:hook"\n', "spans.redact would decide"),
        ("no settings", "the file is not TOML"),
        (None, "the current directory has no headrace.toml"),
    ],
)
def test_settings_that_cannot_be_allowed_are_named_and_nothing_is_stored(
    text: str | None, said: str, config: Config
) -> None:
    if text is not None:
        Path("headrace.toml").write_text(text)
    try:
        done = config("allow", "--yes")
    except SystemExit as error:
        pytest.fail(str(error))
    assert done.code == 2
    assert said in done.err
    assert config("allow", "--list").out == ""


def test_without_a_terminal_nothing_is_allowed_without_yes(config: Config) -> None:
    Path("headrace.toml").write_text(MINE)
    done = answered(None)
    assert done.returncode == 2
    assert "give --yes" in done.stderr
    assert config("allow", "--list").out == ""


@pytest.mark.parametrize(("answer", "code", "kept"), [("yes", 0, 2), ("no", 1, 0), ("", 1, 0), ("yes please", 1, 0)])
def test_on_a_terminal_it_asks(answer: str, code: int, kept: int, config: Config) -> None:
    Path("headrace.toml").write_text(MINE)
    done = answered(answer)
    assert (done.returncode, done.stderr) == (code, "")
    assert "MINE_KEY is sent to https://mine.example/v1" in done.stdout
    assert config("allow", "--list").out.count("the value of") == kept


def answered(answer: str | None) -> subprocess.CompletedProcess[str]:
    """Run ``headrace config allow`` on a terminal, and type ``answer``. None: run it without a terminal."""
    command = [sys.executable, "-P", "-m", "headrace", "config", "allow"]
    own, terminal = pty.openpty()
    try:
        if answer is not None:
            os.write(own, answer.encode() + b"\n")
        stdin = subprocess.DEVNULL if answer is None else terminal
        return subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=60, check=False)
    finally:
        os.close(own)
        os.close(terminal)


def test_the_text_of_a_found_file_does_not_steer_the_terminal(config: Config, tmp_path: Path) -> None:
    Path("headrace.toml").write_text(
        '[providers."a\\u202eb"]\napi = "openai-chat"\nbase_url = "http://x"\n["x\\u009b"]\ny = 1\n'
    )
    assert "\x9b" not in config("show").out + config("show", "--json").out
