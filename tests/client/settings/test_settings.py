"""What settings promise: each has a usable default, the nearer file decides, and nothing secret is shown."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigurationError
from headrace.settings.provider_table import BASE_URL_ENV, BUILT_IN
from headrace.settings.settings import (
    MAX_PATH,
    EngineConfig,
    ProviderConfig,
    Settings,
    SinkConfig,
    SpansConfig,
    check_file,
    checked_figure,
    directory_of,
    merged,
    with_built_in,
)
from headrace.settings.table_check import figure_problem
from headrace.settings.toml_file import SettingsFile

FIGURES = [name for name, value in msgspec.structs.asdict(EngineConfig()).items() if isinstance(value, int | float)]


def file(path: str = "/etc/headrace.toml", **tables: Any) -> SettingsFile:
    return SettingsFile(path, tables)


# Defaults and ranges.


@pytest.mark.parametrize("name", FIGURES)
def test_each_default_of_the_engine_is_in_its_own_range(name: str) -> None:
    assert figure_problem(name, getattr(EngineConfig(), name), EngineConfig, name) is None


@pytest.mark.parametrize("config", [EngineConfig(), SpansConfig()], ids=["engine", "spans"])
def test_a_file_may_say_what_is_the_default_anyway(config: msgspec.Struct) -> None:
    name = "engine" if isinstance(config, EngineConfig) else "spans"

    check_file(file(**{name: msgspec.to_builtins(config)}))


def test_without_a_number_there_is_one_worker_for_two_cores_and_never_more_than_eight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = []
    for cores in (None, 1, 2, 5, 16, 64):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        counts.append(EngineConfig().worker_count())

    assert counts == [1, 1, 1, 2, 8, 8]
    assert EngineConfig(workers=20).worker_count() == 20


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), 1e12, "10", None, True])
def test_a_figure_that_is_given_to_a_client_has_the_range_of_the_setting(value: object) -> None:
    with pytest.raises(ConfigurationError, match="connect_timeout"):
        checked_figure("connect_timeout", value, "connect_timeout")


# Addresses.


def test_the_address_of_an_engine_is_a_scheme_and_an_absolute_directory() -> None:
    assert directory_of("ipc:///run/headrace/engine") == Path("/run/headrace/engine")


@pytest.mark.parametrize(
    "address",
    ["", "/run/engine", "ipc://", "ipc://run/engine", "ipc:/run/engine", "tcp:///run/engine", "ipc:///run/\x1bengine"],
)
def test_another_text_is_no_address(address: str) -> None:
    with pytest.raises(ConfigurationError, match="engine address"):
        directory_of(address)


@given(st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=MAX_PATH * 2))
def test_a_directory_leaves_room_for_the_name_of_a_socket(name: str) -> None:
    """A longer path fails with a clear error, and not when a socket is opened."""
    try:
        directory = directory_of(f"ipc:///{name}")
    except ConfigurationError:
        assert len(f"/{name}".encode()) > MAX_PATH or not name.isprintable()
    else:
        assert len(bytes(directory)) <= MAX_PATH


# Providers.


def test_every_built_in_provider_exists_without_any_file() -> None:
    assert set(with_built_in(Settings(), {}).providers) == set(BUILT_IN)


def test_a_table_replaces_the_built_in_provider_of_its_name() -> None:
    mine = ProviderConfig(api="openai-chat", base_url="http://mine/v1")
    providers = with_built_in(Settings(providers={"openai": mine}), {}).providers

    assert providers["openai"] == mine
    assert set(providers) == set(BUILT_IN)


@pytest.mark.parametrize("name", sorted(BASE_URL_ENV))
def test_a_variable_moves_a_built_in_provider_and_a_table_counts_more(name: str) -> None:
    environ = {BASE_URL_ENV[name]: "http://elsewhere/v1"}
    mine = ProviderConfig(api="openai-chat", base_url="http://mine/v1")

    assert with_built_in(Settings(), environ).providers[name].base_url == "http://elsewhere/v1"
    assert with_built_in(Settings(providers={name: mine}), environ).providers[name] == mine


# Two files.

KEYS = st.sampled_from(["a", "b", "c"])
TABLES = st.fixed_dictionaries(
    {},
    optional={name: st.dictionaries(KEYS, st.integers(0, 9), max_size=3) for name in ("engine", "providers", "prices")},
)


@given(TABLES, TABLES)
def test_of_two_files_the_nearer_one_decides_key_by_key(below: dict[str, Any], above: dict[str, Any]) -> None:
    both = merged(below, file(**above))

    assert set(both) == set(below) | set(above)
    for name, table in both.items():
        assert table == {**below.get(name, {}), **above.get(name, {})}


def test_a_sink_is_replaced_as_a_whole_by_a_nearer_file() -> None:
    below = {"sinks": {"mine": {"type": "otlp", "url": "http://far", "headers": {"key": "far"}}}}
    near = {"type": "http", "url": "http://near"}

    assert merged(below, file(sinks={"mine": near}))["sinks"] == {"mine": near}


@pytest.mark.parametrize(("path", "meant"), [("data", "/etc/data"), ("/data", "/data"), ("~/data", "~/data"), ("", "")])
def test_a_path_in_a_file_is_relative_to_the_folder_of_that_file(path: str, meant: str) -> None:
    both = merged({}, file(spans={"directory": path}, sinks={"mine": {"type": "jsonl", "path": path}}))

    assert both["spans"]["directory"] == both["sinks"]["mine"]["path"] == meant


# Wrong tables.


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"engine": {"workers": -1}}, "engine.workers is -1"),
        ({"engine": {"idle_timeout": 0}}, "engine.idle_timeout is 0"),
        ({"providers": {"a b": {"api": "openai-chat", "base_url": "http://x"}}}, "providers"),
        ({"providers": {"mine": {"api": "openai-chat", "base_url": "x"}}}, "providers.mine.base_url"),
        ({"sinks": {"mine": {"type": "http", "url": "http://x", "path": "y"}}}, "sinks.mine.path is not for a sink"),
        ({"sinks": {"mine": {"type": "http", "url": "http://x", "headers": {"a": "b\n"}}}}, "sinks.mine.headers"),
        ({"sinks": {"mine": {"type": "http", "url": "ftp://x"}}}, "sinks.mine.url"),
        ({"spans": {"redact": "module"}}, "spans.redact"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_setting_is_named_with_its_file_and_its_table(tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_file(file(**tables))

    assert str(caught.value).startswith("/etc/headrace.toml: ")
    assert words in str(caught.value)


# What is shown.


def test_the_text_of_a_provider_or_sink_shows_neither_password_nor_header() -> None:
    provider = ProviderConfig(api="openai-chat", base_url="http://user:s3cret@host/v1?key=s3cret", api_key_env="KEY")
    sink = SinkConfig(type="http", url="http://user:s3cret@host", headers={"x-key": "s3cret"})

    assert "s3cret" not in repr(provider) + repr(sink)
    assert "host" in repr(provider)
    assert "host" in repr(sink)
