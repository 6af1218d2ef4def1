"""Which values count as secrets, and that a process's output has none of them."""

from __future__ import annotations

import base64
import io
import logging
import re
import sys
import threading
import time
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

from headrace.process.masked_output import mask_output, masking
from headrace.settings.known_secrets import (
    address_secrets,
    provider_secrets,
    proxy_secrets,
    request_secrets,
    sink_secrets,
    without_credentials,
)
from headrace.settings.settings import ProviderConfig, Settings, SinkConfig
from headrace.spans.encoded_span import request_content
from headrace.types import Message, Tool
from headrace.wire.run_request import RunRequest
from headrace_workers.masking import RunMasks

KEY = "sk-proj-9fQ2mZx7Lw4vTb81KcYd0R6s"


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("http://me:w0rd@host/v1", {"w0rd", "me:w0rd"}),
        ("http://me:w%40rd@host", {"w%40rd", "w@rd", "me:w@rd"}),
        ("http://me:w/o@rd@host/v1", {"w/o@rd", "me:w/o@rd"}),
        ("me:w0rd@host:1", {"w0rd", "me:w0rd"}),
        (f"https://{KEY}@host", {KEY}),
        (f"https://{KEY}:@host", {KEY}),
        (f"https://host/v1?key={KEY}&api-version=2024-10-21", {KEY}),
        (f"https://host/v1?a=b&Access_Token={KEY}#x", {KEY}),
        ("https://host/v1?api-version=2024-10-21", set()),
        ("https://host:8080/v1", set()),
        ("", set()),
    ],
)
def test_the_secrets_in_an_address_are_found(address: str, found: set[str]) -> None:
    assert set(address_secrets(address)) == found


def test_an_address_of_megabytes_is_looked_through_at_once() -> None:
    began = time.process_time()
    for address in ("?" * 3_000_000, "?a" * 1_000_000, "http://" + "@" * 1_000_000, "&" + "a" * 1_000_000):
        address_secrets(address)
    assert time.process_time() - began < 3.0


def test_the_secrets_of_settings_are_those_that_are_used() -> None:
    settings = Settings(
        providers={
            "a": ProviderConfig(api="google", base_url=f"https://x.test?key={KEY}1", api_key_env=["A", "B"]),
            "c": ProviderConfig(api="google", base_url="https://x.test", api_key_env="C"),
        },
        sinks={
            "s": SinkConfig(type="http", url=f"http://u:{KEY}2@x", headers={"a": f"Basic {KEY}3"}, api_key_env="S"),
        },
    )
    environ = {
        "B": f"{KEY}4",
        "C": f"{KEY}5",
        "S": f"{KEY}6",
        "OTHER": f"{KEY}7",
        "OPENAI_BASE_URL": f"http://u:{KEY}8@x",
    }
    environ |= {"all_proxy": f"http://u:{KEY}9@x", "no_proxy": "a@b"}

    def last(secrets: list[str]) -> set[str]:
        return {secret[-1] for secret in secrets if secret.startswith(KEY)}

    assert last(provider_secrets(settings, environ)) == {"1", "4", "5", "8"}
    assert last(sink_secrets(settings, environ)) == {"2", "3", "6"}
    assert last(proxy_secrets(environ)) == {"9"}


@pytest.mark.parametrize("password", ["swordfish", "s3cret", "hunter", "Zx9-1q2w-3e4r"])
def test_a_password_that_is_a_word_is_as_secret_in_a_log_line_as_in_a_run(password: str) -> None:
    """A key that is a word is a dummy, and blots out no word; a password may be one."""
    address = f"http://me:{password}@x.test/v1?key=none"
    login = base64.b64encode(f"me:{password}".encode()).decode()
    settings = Settings(
        providers={"p": ProviderConfig(api="google", base_url=address, api_key_env="A")},
        sinks={
            "s": SinkConfig(type="http", url=address, api_key_env="S"),
            "t": SinkConfig(type="http", url="http://x.test", headers={"a": f"Basic {login}", "b": "none"}),
        },
    )
    environ = {"A": "none", "S": "none", "OPENAI_BASE_URL": address, "http_proxy": address}
    said = f"none of me said {password} as {login} or {quote(login)}, but {password}s are words"
    for secrets in (
        provider_secrets(settings, {"A": "none"}),
        provider_secrets(Settings(), environ),
        sink_secrets(msgspec.structs.replace(settings, sinks={"s": settings.sinks["s"]}), environ),
        sink_secrets(msgspec.structs.replace(settings, sinks={"t": settings.sinks["t"]}), environ),
        proxy_secrets(environ),
    ):
        masks = RunMasks(secrets)
        lines = {masking(secrets)(said), masks.masked_line(said), masks.mask_of(None, None).masked(said)}

        assert len(lines) == 1, "log lines and runs go by one rule"
        (line,) = lines
        assert line.startswith("none of me said [key] as")
        assert not {password, login, quote(login)} & set(re.split(r"[ ,]", line))
        assert line.endswith("s are words")


MCP: list[tuple[dict[str, Any], list[str]]] = [
    ({"headers": {"Authorization": f"Bearer {KEY}", "X-Team": "payments-and-more"}}, [f"Bearer {KEY}", KEY]),
    ({"authorization": KEY, "server_url": "https://mcp.test"}, [KEY]),
    ({"mcp_servers": [{"authorization_token": KEY, "name": "calendar-of-mine"}]}, [KEY]),
    ({"data_sources": [{"parameters": {"authentication": {"type": "api_key", "key": KEY}}}]}, [KEY]),
    ({"apiAuth": {"apiKeyConfig": {"apiKeyString": KEY}}}, [KEY]),
    ({"headers": {"x-mcp-token": KEY, "x-word": "none", "x-secret": "none"}}, [KEY]),
    ({"prompt_cache_key": "gpt-4o-mini-2024", "stop": ["token"], "eos_token": "<|endoftext|>", "key": KEY[1:]}, []),
]


@pytest.mark.parametrize(("options", "found"), MCP)
def test_the_credentials_for_servers_of_tools_are_secrets_of_their_run(
    options: dict[str, Any], found: list[str]
) -> None:
    tool = Tool("t", type="mcp", extra=options)
    masks = RunMasks(["another-key-0123456789"])

    assert sorted(request_secrets([tool], {})) == sorted(request_secrets([], options)) == sorted(found)
    (stored,) = request_content(
        RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=True, tools=[tool])
    ).tools
    assert not found or KEY not in f"{stored}"
    assert found or stored == tool
    assert tool.extra == options, "what is sent stays as it is"
    others = request_secrets([tool], {})
    said = f"{KEY} and another-key-0123456789 and {KEY[::-1]} of payments-and-more"
    assert (KEY in masks.mask_of(KEY[::-1], None, others).masked(said)) == (not found)
    assert masks.mask_of(KEY[::-1], None, others).masked(said).endswith("and [key] and [key] of payments-and-more")


def test_only_some_of_millions_of_options_are_looked_at() -> None:
    nested: Any = {"a": 1}
    for _ in range(900):
        nested = [nested]
    tools = [
        Tool("t", extra={"a": [{}] * 1_000_000, "b": [[""] * 1_000] * 1_000, "headers": {"token": KEY}, "c": nested})
    ]
    began = time.process_time()
    request_secrets(tools, {"a": ["x"] * 1_000_000})
    without_credentials(tools)
    assert time.process_time() - began < 1.0


def test_no_way_of_writing_shows_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, written)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.StreamHandler(written)])
    other = KEY[::-1]
    mask_output(masking([other]))
    mask_output(masking([KEY, other]))

    print("print", KEY, "of the mocking mock")
    print("errors", KEY[:-1], file=sys.stderr, flush=True)
    sys.stderr.writelines([f"lines {other}\n", f"{KEY}\n"])
    logging.getLogger("anybody").error("log of %s", KEY, extra={"key": KEY})
    try:
        int(f"{KEY} is no number")
    except ValueError as error:
        logging.getLogger("anybody").exception("failed")
        sys.excepthook(ValueError, error, error.__traceback__)
    thread = threading.Thread(target=lambda: print("thread", KEY, file=sys.stderr))
    thread.start()
    thread.join()

    said = written.getvalue()
    assert KEY[:12] not in said
    assert other[:12] not in said
    assert "print [key] of the mocking mock" in said
    for way in ("errors", "lines", "log of", "thread"):
        assert f"{way} [key]" in said, way
    assert said.count("with base 10: '[key] is no number'") == 2
