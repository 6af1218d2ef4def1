"""Several keys of one provider are read from variables and a file. What cannot be used is a clear error without a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.arguments.provider_access import ProviderAccess, access_from
from headrace.errors import ConfigurationError
from headrace.process.child_environment import environment_of
from headrace.settings.known_secrets import provider_secrets
from headrace.settings.limit_settings import KeyConfig
from headrace.settings.provider_keys import MAX_KEYS, check_keys, read_keys
from headrace.settings.settings import Settings, load_settings, with_built_in
from tests.cases import each

ENVIRONMENT = {"KEY_1": "sk-1-0123456789abcdef", "KEY_2": "sk-2-0123456789abcdef", "EMPTY": "", "BAD": "sk\n1"}
VALUES = [value for value in ENVIRONMENT.values() if value]


def test_keys_come_from_variables_and_from_the_lines_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("\ufeff# of the team\n\n  sk-3  \r\nsk-1-0123456789abcdef\n#sk-4\nsk-5")
    (tmp_path / "link").symlink_to(file)

    found = read_keys("openai", KeyConfig(env=["KEY_1", "KEY_2"], file=str(tmp_path / "link")), ENVIRONMENT)
    assert found == [ENVIRONMENT["KEY_1"], ENVIRONMENT["KEY_2"], "sk-3", "sk-5"]


def test_a_file_is_found_from_the_directory_of_its_settings_file(tmp_path: Path) -> None:
    (tmp_path / "headrace.toml").write_text('[keys.openai]\nfile = "secret/keys"\n[keys.groq]\nfile = "~/keys"\n')
    loaded = load_settings({"HEADRACE_CONFIG": str(tmp_path / "headrace.toml")})

    assert {name: table.file for name, table in loaded.keys.items()} == {
        "openai": str(tmp_path / "secret" / "keys"),
        "groq": "~/keys",
    }


@each(
    ("table", "content", "said"),
    [
        (
            KeyConfig(env=["EMPTY"]),
            None,
            "keys.p.env[0]: EMPTY is empty or not set where the engine starts; set it, or take it out of the list",
        ),
        (KeyConfig(env=["KEY_1", "MISSING"]), None, "keys.p.env[1]: MISSING is empty or not set"),
        (KeyConfig(env=["sk_written_by_mistake"]), None, "keys.p.env[0] is empty or not set"),
        (KeyConfig(env=["BAD"]), None, "keys.p.env[0]: BAD has a line end"),
        (KeyConfig(), None, "keys.p needs env or file"),
        (KeyConfig(file="missing"), None, "missing cannot be read: No such file or directory"),
        (KeyConfig(file="."), None, ". cannot be read: Is a directory"),
        (KeyConfig(file="keys"), b"", "keys has no key in it"),
        (KeyConfig(file="keys"), b"\n# none\n", "keys has no key in it"),
        (KeyConfig(file="keys"), b"sk-1\nsk 2\x07\n", "keys, line 2 has a line end or another character"),
        (KeyConfig(file="keys"), b"\xff\xfe", "keys is not UTF-8 text"),
        (KeyConfig(file="keys"), b"x" * 2**20 + b"\n", "has more than 1048576 bytes"),
        (KeyConfig(file="keys"), b"\n".join(b"%d" % n for n in range(MAX_KEYS + 1)), "keys.p has more than 1_000 keys"),
    ],
)
def test_keys_that_cannot_be_used_are_named_by_their_setting(
    table: KeyConfig, content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / "keys").write_bytes(content)
    with pytest.raises(ConfigurationError) as caught:
        read_keys("p", table, ENVIRONMENT)

    assert said in str(caught.value)
    assert not any(value in str(caught.value) for value in VALUES)
    assert "sk_written" not in str(caught.value)


def test_a_pipe_without_a_writer_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        read_keys("p", KeyConfig(file=str(tmp_path / "keys")), {})


def test_the_error_at_the_engines_start_names_the_settings_file(tmp_path: Path) -> None:
    path = tmp_path / "headrace.toml"
    path.write_text('[keys.openai]\nenv = ["KEY_1", "EMPTY"]\n')
    environ = {**ENVIRONMENT, "HEADRACE_CONFIG": str(path)}

    with pytest.raises(ConfigurationError) as caught:
        check_keys(load_settings(environ), environ)
    assert (
        str(caught.value)
        == f"{path}: keys.openai.env[1]: EMPTY is empty or not set where the engine starts; set it, or take it out of the list"
    )


SETTINGS = with_built_in(Settings(keys={"openai": KeyConfig(env=["KEY_1"]), "groq": KeyConfig(file="/keys")}), {})


def test_workers_alone_get_the_variables_also_in_an_embedded_engine() -> None:
    def has(role: str, *, is_embedded: bool) -> bool:
        return "KEY_1" in environment_of(role, ENVIRONMENT, SETTINGS, is_embedded=is_embedded)  # type: ignore[arg-type]

    for is_embedded in (False, True):
        assert has("worker", is_embedded=is_embedded)
        assert has("supervisor", is_embedded=is_embedded)
        assert not has("broker", is_embedded=is_embedded)
        assert not has("collector", is_embedded=is_embedded)
    assert provider_secrets(SETTINGS, ENVIRONMENT) == [ENVIRONMENT["KEY_1"]]


def test_a_program_gives_its_own_key_only_if_it_names_one() -> None:
    environ = {"OPENAI_API_KEY": "sk-own", "OPENAI_BASE_URL": "http://x/v1", "MISTRAL_API_KEY": "sk-m"}
    assert access_from(environ, "openai", {}, None, SETTINGS.keys) == ProviderAccess()
    assert access_from(environ, "openai", {}, "sk-given", SETTINGS.keys) == ProviderAccess("sk-given", "http://x/v1")
    assert access_from(environ, "mistral", {}, None, SETTINGS.keys).api_key == "sk-m"
