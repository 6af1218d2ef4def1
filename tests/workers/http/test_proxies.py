"""The proxy in the environment carries the requests to its origins; an unusable proxy is an error with its cause."""

from __future__ import annotations

import asyncio
import time

import pytest

from headrace.settings.proxy_choice import proxy_of
from headrace_workers.http.http_client import HttpClient
from tests.cases import each
from tests.waiting import busyness
from tests.workers.http.http_servers import SMALL, Peer, Recorder, Run, always, ask, talking

MALFORMED = "has a password or a user name with a character that must be percent-encoded: @, /, ? or #"
BAD = {
    "http://": "is not an address; write one such as http://HOST:PORT",
    "http://proxy:port": "is not an address; write one such as http://HOST:PORT",
    "http://proxy:99999": "is not an address; write one such as http://HOST:PORT",
    "http://[::1": "is not an address; write one such as http://HOST:PORT",
    "http://me:s3cret@": "is not an address; write one such as http://HOST:PORT",
    "http://pro xy:1": "is not an address; write one such as http://HOST:PORT",
    "http:/proxy:1": "is not an address; write one such as http://HOST:PORT",
    "http://$PROXY:1": "is not an address; write one such as http://HOST:PORT",
    "http://proxy..test:1": "is not an address; write one such as http://HOST:PORT",
    ":3128": "is not an address; write one such as http://HOST:PORT",
    "ftp://proxy:1": "begins with ftp://; it takes http://, https://, socks5://, socks5h://",
    "s3cret://proxy:1": "has an unknown scheme; it takes http://, https://, socks5://, socks5h://",
    "http://me:s3/cret@proxy:1": MALFORMED,
    "http://me:1/cret@proxy:1": MALFORMED,
    "http://me:s3@cret@proxy:1": MALFORMED,
    "http://me:s3#cret@proxy:1": MALFORMED,
    "http://me:s3?cret@proxy:1": MALFORMED,
    "me:s3/cret@proxy:1": MALFORMED,
    "socks4://me:s3cret@proxy:1": "begins with socks4://; it takes http://, https://, socks5://, socks5h://",
}


def failure_of(run: Run, url: str) -> tuple[str, str]:
    """Return how a request to an address without a server fails."""
    kept: list[Recorder] = []

    async def story() -> None:
        client = HttpClient(asyncio.get_running_loop(), connect_timeout=30)
        kept.append(await ask(client, url))
        await client.aclose()

    began = time.monotonic()
    run(story())
    assert time.monotonic() - began < 10 * busyness()
    assert kept[0].failure is not None
    return kept[0].failure


@pytest.mark.parametrize(
    ("variable", "scheme"),
    [("http_proxy", "http"), ("https_proxy", "https"), ("all_proxy", "http"), ("ALL_PROXY", "https")],
)
@each("value", BAD)
def test_an_invalid_proxy_address_is_a_failure_of_the_settings(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    stage, reason = failure_of(run, f"{scheme}://provider.test/v1")
    kind = variable.lower().removesuffix("_proxy")

    assert stage == "settings"
    assert reason == f"the proxy of the environment ({kind}_proxy or {kind.upper()}_PROXY) {BAD[value]}"


def test_a_missing_package_for_socks_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    stage, reason = failure_of(run, "http://provider.test/v1")

    assert stage == "settings"
    assert "socksio" in reason


@pytest.mark.parametrize(
    "excepted",
    ["fd00::/8", "fe80::1/64,::1", "[::1]", "10.0.0.0/8,fd00::/8", "::/0", "[fd00::]/8", "not a host at all", "/,,"],
)
def test_no_proxy_may_hold_addresses_and_networks_of_any_kind(
    run: Run, monkeypatch: pytest.MonkeyPatch, excepted: str
) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat?a=b"))
            monkeypatch.setenv("no_proxy", excepted)
            recorder = await ask(client, "http://provider.test/v1/chat")
            assert (recorder.failure, recorder.body) == (None, b"hello")

    run(story())


def test_cookies_of_a_server_are_not_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would be sent with the later requests of all runs, and each answer could add more."""
    response = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 5\r\n\r\nhello"
    requests: list[bytes] = []

    async def handle(peer: Peer) -> None:
        while True:
            requests.append(await peer.request())
            await peer.say(response)

    async def story() -> None:
        async with talking(handle) as (client, server):
            monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat?a=b"))
            for _ in range(2):
                assert (await ask(client, "http://provider.test/v1/chat")).body == b"hello"

    run(story())
    assert len(requests) == 2
    assert not any(b"cookie" in request.lower() for request in requests)


def test_only_the_proxy_that_applies_counts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with talking(always(SMALL)) as (client, server):
            monkeypatch.setenv("https_proxy", "no address at all://")
            monkeypatch.setenv("all_proxy", "socks9://")
            assert (await ask(client, server.url.replace("127.0.0.1", "localhost"))).failure is not None
            monkeypatch.setenv("http_proxy", server.url.removesuffix("/v1/chat?a=b"))
            assert (await ask(client, "http://provider.test/v1/chat")).body == b"hello"

    run(story())


@each(
    ("host", "excepted", "is_proxied"),
    [
        ("10.1.2.3", "10.0.0.0/8", False),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("fd00::1", "fd00::/8", False),
        ("fd00::1", "[fd00::]/8", False),
        ("fe80::1", "fd00::/8", True),
        ("::1", "::1", False),
        ("::1", "[::1]", False),
        ("::1", "::2", True),
        ("api.test", ".test", False),
        ("api.test", "test", False),
        ("api.test", "*", False),
        ("api.test", "other.test, *", False),
        ("api.test", "*.test", False),
        ("test", "*.test", False),
        ("api.test", "*.other.test", True),
        ("otherapi.test", "*api.test", True),
        ("api.test", "other.test api.test", False),
        ("api.test", "api.test.", False),
        ("api.test.", "API.test", False),
        ("api.test", "api.test:443", False),
        ("api.test", "api.test:80", True),
        ("api.test", "10.0.0.0/8", True),
        ("10.1.2.3", " 10.0.0.0/8 , x", False),
    ],
)
def test_hosts_in_no_proxy_are_reached_directly(
    run: Run, monkeypatch: pytest.MonkeyPatch, host: str, excepted: str, is_proxied: bool
) -> None:
    monkeypatch.setenv("https_proxy", "http://proxy:1")
    monkeypatch.setenv("no_proxy", excepted)

    assert proxy_of("https", host, 443) == ("http://proxy:1" if is_proxied else None)


def test_a_proxy_without_a_scheme_speaks_http(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "proxy.test:3128")

    assert proxy_of("https", "api.test", 443) == "http://proxy.test:3128"
    assert proxy_of("http", "api.test", 80) is None
