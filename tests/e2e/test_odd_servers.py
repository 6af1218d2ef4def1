"""Servers that answer in another form than was asked for, and surroundings in which no request can leave, seen by a caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import pytest

from headrace import Client, ConfigurationError, LocalStream, ProviderProtocolError
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.repetition import only_long
from tests.waiting import busyness
from tests.workers.providers.example_answers import APIS, events, whole

pytestmark = pytest.mark.slow

PROVIDERS = {
    "openai-chat": "openai",
    "openai-responses": "openai-responses",
    "anthropic": "anthropic",
    "google": "google",
}
VARIABLES = {"OPENAI_BASE_URL": "/v1", "ANTHROPIC_BASE_URL": "", "GOOGLE_GEMINI_BASE_URL": ""}
KEYS = {"OPENAI_API_KEY": "sk-x", "ANTHROPIC_API_KEY": "sk-x", "GEMINI_API_KEY": "sk-x"}

Answer = Callable[[BaseHTTPRequestHandler], None]


class Environment:
    """What an engine is started with, in place of that of a simulated provider."""

    def __init__(self, **variables: str) -> None:
        self.environment = {**KEYS, **variables}


class OddServer:
    """An HTTP server that answers each request with ``answer``. It is the provider of all four formats."""

    def __init__(self) -> None:
        self.answer: Answer = saying(b"", "text/plain", 500)
        server = self

        class OddHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                server.answer(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), OddHandler)
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        base = f"http://127.0.0.1:{self._server.server_port}"
        self.environment = {**KEYS, **{name: base + path for name, path in VARIABLES.items()}}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def saying(body: bytes, label: str, status: int = 200) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("content-type", label)
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture(scope="module")
def server() -> Iterator[OddServer]:
    made = OddServer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def engine(server: OddServer) -> Iterator[str]:
    with running_engine(server, "--workers", "1") as address:  # type: ignore[arg-type]
        yield address


def check(client: Client, api: str, *, stream: bool) -> None:
    said = client.run_local(model="m", provider=PROVIDERS[api], messages=HELLO, stream=stream)
    if isinstance(said, LocalStream):
        assert "".join(said) == "Hello"
        said = said.result.result(90)
    assert said.text == "Hello"
    assert [(call.name, call.arguments) for call in said.tool_calls] == [("look", {"at": 1})]


@pytest.mark.parametrize("api", APIS)
def test_an_answer_in_another_form_than_was_asked_for_is_whole(api: str, engine: str, server: OddServer) -> None:
    forms = [
        saying(b"".join(events(api)), "text/event-stream"),
        saying(b"".join(events(api)), "application/json", 201),
        saying(b"\xef\xbb\xbf" + whole(api), "application/json"),
        saying(whole(api), "text/event-stream", 203),
    ]
    with Client(engine) as client:
        for form in forms:
            server.answer = form
            check(client, api, stream=False)
            check(client, api, stream=True)


@pytest.mark.parametrize("api", ["openai-chat", "anthropic", "google"])
def test_a_connection_that_stays_open_after_the_finish_reason_is_closed_and_the_run_a_success(
    api: str, engine: str, server: OddServer
) -> None:
    closed = Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        said = events(api)
        handler.wfile.write(b"".join(said if api == "google" else said[:-1]))
        handler.wfile.flush()
        if not handler.rfile.read(1):
            closed.set()

    server.answer = answer
    with Client(engine) as client:
        began = time.monotonic()
        check(client, api, stream=True)

        assert 1.9 < time.monotonic() - began < 10 * busyness()
        assert closed.wait(60)


@pytest.mark.parametrize(
    ("variables", "causes"),
    [
        (
            {
                "http_proxy": "http://proxy:port",
                "ALL_PROXY": "gopher://x",
                "OPENAI_BASE_URL": "http://provider.test/v1",
                "ANTHROPIC_BASE_URL": "https://provider.test",
                "GEMINI_API_KEY": "sk-secret\n",
            },
            {"openai": "http_proxy", "anthropic": "all_proxy", "google": "GEMINI_API_KEY"},
        ),
        (
            {
                "http_proxy": "socks5://127.0.0.1:9",
                "OPENAI_BASE_URL": "127.0.0.1:9/v1",
                "ANTHROPIC_BASE_URL": "http://provider.test",
                "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9/v1\n",
            },
            {
                "openai": "did you mean http://127.0.0.1:9/v1?",
                "anthropic": "socksio",
                "google": "GOOGLE_GEMINI_BASE_URL",
            },
        ),
        *only_long(
            ({"OPENAI_BASE_URL": "http://127.0.0.1:9/v1\n"}, {"openai": "OPENAI_BASE_URL"}),
            (
                {"OPENAI_BASE_URL": "http://provider.test/v1", "OPENAI_API_KEY": "sk-secret\n"},
                {"openai": "OPENAI_API_KEY"},
            ),
            ({"OPENAI_BASE_URL": "http://provider.test/v1", "ALL_PROXY": "gopher://x"}, {"openai": "all_proxy"}),
        ),
    ],
)
def test_a_request_that_cannot_leave_fails_at_once_with_the_cause(
    variables: dict[str, str], causes: dict[str, str]
) -> None:
    environment = Environment(NO_PROXY="fd00::/8", **variables)
    with running_engine(environment, "--workers", "1") as address, Client(address) as client:  # type: ignore[arg-type]
        for provider, said in causes.items():
            began = time.monotonic()
            with pytest.raises(ConfigurationError) as caught:
                client.run_local(model="m", provider=provider, messages=HELLO)
            with pytest.raises(ConfigurationError):
                list(client.run_local(model="m", provider=provider, messages=HELLO, stream=True))

            assert said in str(caught.value)
            assert "secret" not in str(caught.value)
            assert time.monotonic() - began < 8 * busyness()


def test_a_coding_that_was_not_asked_for_is_named(engine: str, server: OddServer) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("content-encoding", "br")
        handler.send_header("content-length", "5")
        handler.end_headers()
        handler.wfile.write(b"hello")

    server.answer = answer
    with Client(engine) as client, pytest.raises(ProviderProtocolError, match="'br'") as caught:
        client.run_local(model="gpt-4o", messages=HELLO)
    assert caught.value.status_code == 200
