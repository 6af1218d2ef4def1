"""A sink uses the proxy that applies to it, and reports at once what it cannot use: an address, a proxy, a certificate."""

from __future__ import annotations

import os

import pytest

from headrace.settings.settings import SinkConfig
from headrace_engine.spans.sinks.answer_policy import Blocked, Retry
from headrace_engine.spans.sinks.http_post import HttpPost
from headrace_engine.spans.sinks.sink import SinkUnusableError

NOBODY = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith("SSL_CERT"):
            monkeypatch.delenv(name)


def posted(url: str = NOBODY) -> object:
    post = HttpPost(url, SinkConfig(type="http", url=url, timeout=5.0), {}, "application/json")
    try:
        return post.send(b"{}")
    finally:
        post.close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [("no_proxy", "fd00::/8"), ("no_proxy", "/,,[::1"), ("https_proxy", "http://proxy:port"), ("all_proxy", "")],
)
def test_proxy_variables_that_do_not_apply_keep_no_sink_from_sending(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    answer = posted()

    assert isinstance(answer, Retry)
    assert "refused" in answer.reason


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "http_proxy",
            "http://proxy:port",
            "the proxy of the environment (http_proxy or HTTP_PROXY) is not an address",
        ),
        ("http_proxy", "ftp://proxy:1", "begins with ftp://"),
        ("SSL_CERT_FILE", "/nowhere/ca.pem", "the certificates cannot be read (No such file or directory)"),
    ],
)
def test_a_setting_that_a_sink_cannot_use_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SinkUnusableError) as caught:
        posted()

    assert said in str(caught.value)
    assert variable in str(caught.value) or value.partition(":")[0] in str(caught.value)


def test_the_package_that_socks_needs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(SinkUnusableError, match="SOCKS"):
        posted()


def test_spans_for_an_impossible_host_wait_until_somebody_mends_it() -> None:
    assert isinstance(posted("http://xn--a"), Blocked)


@pytest.mark.parametrize("host", ["a..b", "$HOST", "x" * 64, "x%00", "{region}.test"])
def test_an_invalid_host_is_reported(host: str) -> None:
    with pytest.raises(SinkUnusableError, match="must be an http:// or https:// address"):
        posted(f"http://{host}/v1")
