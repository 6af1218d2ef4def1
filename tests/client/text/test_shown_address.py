"""A shown address has no part of a password or a query, even if the address is malformed."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterator

import msgspec
import pytest

import headrace
import headrace_engine
import headrace_workers
from headrace.cli.shared.explain import explanation
from headrace.errors import ProviderUnavailableError
from headrace.settings.found_file_rules import TrustedProvider
from headrace.settings.http_values import base_url_problem
from headrace.settings.settings import ProviderConfig, Settings, SinkConfig
from headrace.text.shown_address import without_password
from headrace.types import ImagePart

SECRET = "Zq7!xK"
"""A password that can be recognised in parts: no other part of the addresses has two of its characters in a row."""
PASSWORDS = [
    f"Zq7{special}!xK" for special in ("", "/", "#", "?", "@", ":", "\\", "%40", "//", "@@", " ", "://", "]", "[", "&")
]
SHAPES = [
    "http://user:{}@host:8080/v1",
    "https://{}@host/v1",
    "https://:{}@host",
    "https://{}:@host/v1",
    "user:{}@host:8080",
    "//user:{}@host",
    "http:/user:{}@host",
    "http:user:{}@host",
    "socks5://user:{}@[::1]:1080",
    "http://user:{}@host@host",
    "http://user@name:{}@host",
    "http://host/v1?key={}",
    "http://host/v1#{}",
    "http://host?key={}&x=me@home",
    "http://user:{}@",
    "http://user:{}@host:port",
    "htp://user:{}@host",
    "user:{}://@host",
    "http://user:{}@[::1",
    "http://user:{}@host/v1/me@home",
    "HTTP://user:{}@host",
]


def test_no_part_of_a_password_is_shown() -> None:
    parts = [SECRET[start : start + 2] for start in range(len(SECRET) - 1)]
    shown = {
        url: without_password(url)
        for url in (shape.format(password) for shape, password in itertools.product(SHAPES, PASSWORDS))
    }

    assert {url: said for url, said in shown.items() if any(part in said for part in parts)} == {}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://api.openai.com/v1", "https://api.openai.com/v1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080/v1", "http://[::1]:8080/v1"),
        ("http://[fe80::1%eth0]/", "http://[fe80::1%eth0]/"),
        ("http://user:word@host:1/v1", "http://…@host:1/v1"),
        ("https://x.example/openai/v1?api-version=2024", "https://x.example/openai/v1?…"),
        ("http://host/#a", "http://host/#…"),
        ("http://bücher.example/v1", "http://bücher.example/v1"),
        ("localhost:8080", "localhost:8080"),
        ("", ""),
    ],
)
def test_the_other_parts_are_shown_unchanged(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_settings_that_are_printed_show_no_password() -> None:
    address = f"http://user:{SECRET}@host/v1?key={SECRET}"
    provider = ProviderConfig(api="google", base_url=address, api_key_env="OUR_KEY")
    settings = Settings(providers={"ours": provider}, sinks={"away": SinkConfig(type="http", url=address)})

    for printed in (settings, provider, TrustedProvider(address, ("OUR_KEY",))):
        assert SECRET not in f"{printed} {printed!r} {rich_repr(printed)}"
    assert "http://…@host/v1?…" in repr(settings)


def test_the_next_step_of_a_command_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://user:{SECRET}@host/v1")
    error = ProviderUnavailableError("sp_1", "no connection", "", "openai")

    assert explanation(error).endswith("check that http://…@host/v1 is right, and that this machine can reach it")


@pytest.mark.parametrize(
    "given", [f"sk-{SECRET.strip('!')}", "a1b2c3d4e5f6", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9eyJhbGciOiJIUzI1NiIs.a.b"]
)
def test_a_key_in_place_of_an_address_is_not_quoted(given: str) -> None:
    assert given not in (base_url_problem(given) or "")


def rich_repr(printed: object) -> object:
    shown = getattr(printed, "__rich_repr__", None)
    return shown() if shown is not None else ""


def test_each_type_that_holds_an_address_or_a_key_says_itself_what_is_shown_of_it() -> None:
    for package in (headrace, headrace_engine, headrace_workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and ".testing" not in module.name:
                importlib.import_module(module.name)
    kinds = [kind for kind in structs_below(msgspec.Struct) if OURS.match(kind.__module__)]
    showing = [
        f"{kind.__module__}.{kind.__qualname__}"
        for kind in kinds
        if SECRET_FIELDS & set(kind.__struct_fields__) and kind not in HARMLESS and "__repr__" not in vars(kind)
    ]

    assert len(kinds) > 50
    assert showing == []


OURS = re.compile(r"headrace(?!\.testing)")
SECRET_FIELDS = {"base_url", "url", "api_key", "headers", "environ", "environments", "proxy", "password"}
HARMLESS = {ImagePart}
"""An image's address is part of the request."""


def structs_below(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    for below in kind.__subclasses__():
        yield below
        yield from structs_below(below)
