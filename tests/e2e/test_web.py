"""The views and commands of docs/guides/web-servers.md behind real servers.

Chunks leave at once, a run that fails before its first event has a status of its own, and a browser that leaves ends
its run.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlencode

import pytest

from headrace.testing import Script, SimulatedProvider
from tests.documentation import CodeBlock, code_block
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.slow

FASTAPI = ("docs/guides/web-servers.md", "FastAPI")
DJANGO_ASGI = ("docs/guides/web-servers.md", "Django under ASGI")
DJANGO_WSGI = ("docs/guides/web-servers.md", "Django under WSGI")
STATUSES = ("docs/guides/web-servers.md", "The status of an answer")
EVERY = [FASTAPI, DJANGO_ASGI, DJANGO_WSGI]
NOTICES_WHILE_SILENT = [FASTAPI, DJANGO_ASGI]
"""Servers that learn at once that a browser has left; one under WSGI learns it when it writes."""
CLOSED_WITHIN = 5.0
"""Seconds from a browser's leaving to the provider's closed connection; on an idle machine it takes 10 ms, or a chunk's pace."""

PROJECT = """
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="for tests only")
import django

django.setup()
import views
from django.core.{interface} import get_{interface}_application
from django.urls import path

urlpatterns = [path("chat", getattr(views, "chat", None) or views.view)]
application = get_{interface}_application()
"""
SERVING = {"uvicorn": "Uvicorn running on http://127.0.0.1:", "gunicorn": "Listening at: http://127.0.0.1:"}


class Browser:
    """Asks for an answer, and reads it as it comes."""

    def __init__(self, port: int) -> None:
        self.received = b""
        self._socket = socket.create_connection(("127.0.0.1", port), 60.0)
        form = urlencode({"message": "Hello"})
        head = f"POST /chat?{form} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(form)}\r\n"
        self._socket.sendall(f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}".encode())

    def read_until(self, text: str) -> None:
        """Read until a chunk has come; it is an error if the answer ends before."""
        while f"\r\n{text}\r\n".encode() not in self.received:
            data = self._socket.recv(65536)
            assert data, self.received
            self.received += data

    def read_to_the_end(self) -> bytes:
        """Return all that came, however the answer ends."""
        while data := self._socket.recv(65536):
            self.received += data
        return self.received

    def leave(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


@contextmanager
def server(example: tuple[str, str], folder: Path, *options: str) -> Iterator[int]:
    """Serve an example's view by the command that is documented with it; yield the port."""
    command = shlex.split(code_block("sh", *example).text)
    write_application(code_block("python", *example), command, folder)
    module, arguments = command[0], [*command[1:], *options]
    pytest.importorskip(module)
    arguments += ["--port", "0"] if module == "uvicorn" else ["--bind", "127.0.0.1:0"]
    log_path = folder / "log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: SERVING[module] in log_path.read_text(), 30.0, "a server", log_path.read_text)
        yield int(log_path.read_text().split(SERVING[module], 1)[1].split()[0])
    finally:
        # A server that is told kindly waits for its answers, of which some never end.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def write_application(view: CodeBlock, command: list[str], folder: Path) -> None:
    """Write the modules that the command names; ``project`` is what a Django project would be."""
    name = "chat.py" if "FastAPI" in view.text else "views.py"
    pytest.importorskip("fastapi" if name == "chat.py" else "django")
    (folder / name).write_text(view.text)
    (folder / "statuses.py").write_text(code_block("python", *STATUSES).text)
    interface = "asgi" if "asgi" in command[-1] else "wsgi"
    (folder / "project").mkdir()
    (folder / "project" / f"{interface}.py").write_text(PROJECT.format(interface=interface))


@pytest.fixture(scope="module", params=EVERY, ids=str)
def port(
    request: pytest.FixtureRequest, session_provider: SimulatedProvider, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    with server(request.param, tmp_path_factory.mktemp("web")) as port:
        yield port


def test_chunks_reach_the_browser_while_the_answer_goes_on(port: int, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=10, stall_after=3))
    with Browser(port) as browser:
        browser.read_until("2 ")

        assert provider.requests()[0].outcome == "open"


def test_the_providers_connection_is_closed_when_the_browser_leaves_between_chunks(
    port: int, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(repeat=1_000_000, pace=0.01))
    with Browser(port) as browser:
        browser.read_until("5 ")

        browser.leave()

        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", CLOSED_WITHIN)


def test_the_providers_connection_is_closed_when_a_browser_that_did_not_read_leaves(
    port: int, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(repeat=1_000_000))
    with Browser(port) as browser:
        provider.wait_until(lambda records: records and records[0].chunks_sent > 1000)

        browser.leave()

        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", CLOSED_WITHIN)


@pytest.mark.parametrize("port", NOTICES_WHILE_SILENT, ids=str, indirect=True)
def test_under_asgi_the_providers_connection_is_closed_while_the_provider_is_silent(
    port: int, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(repeat=10, stall_after=3))
    with Browser(port) as browser:
        browser.read_until("2 ")

        browser.leave()

        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", CLOSED_WITHIN)


REFUSALS = [
    (Script(status=401), 401, b""),
    # All later runs of the model wait so long.
    (Script(status=429, headers={"retry-after": "1"}), 429, b"retry-after: 1"),
    (Script(status=503), 503, b""),
    (Script(status=400), 400, b""),
    (Script(html=True), 502, b""),
]
"""What the provider does, the status that the browser gets, and a header of its answer."""


@pytest.mark.parametrize(
    ("script", "status", "header"), REFUSALS, ids=lambda value: str(value) if type(value) is int else ""
)
def test_a_run_that_fails_before_its_first_event_has_a_status_of_its_own(
    port: int, provider: SimulatedProvider, script: Script, status: int, header: bytes
) -> None:
    provider.enqueue(script)
    with Browser(port) as browser:
        head, _, body = browser.read_to_the_end().partition(b"\r\n\r\n")

    assert head.split()[1] == str(status).encode()
    assert header in head.lower()
    assert body in (b"", b"0\r\n\r\n"), "nothing, in one piece or in chunks"


def test_a_run_that_fails_after_its_first_event_cuts_the_body(port: int, provider: SimulatedProvider) -> None:
    provider.enqueue(Script(repeat=10, cut_after=3))
    with Browser(port) as browser:
        received = browser.read_to_the_end()

    assert received.split()[1] == b"200"
    assert b"\r\n2 \r\n" in received
    assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("port", NOTICES_WHILE_SILENT, ids=str, indirect=True)
def test_under_asgi_the_providers_connection_is_closed_though_the_provider_has_said_nothing_yet(
    port: int, provider: SimulatedProvider
) -> None:
    provider.enqueue(Script(silent=True))
    with Browser(port) as browser:
        provider.wait_until(lambda records: records and records[0].outcome == "open")

        browser.leave()

        provider.wait_until(lambda records: records[0].outcome == "closed_by_client", CLOSED_WITHIN)


def test_a_stream_may_last_longer_than_gunicorns_timeout(provider: SimulatedProvider, tmp_path: Path) -> None:
    timeout = round(2 * busyness())  # seconds, in which a worker must also start
    chunks = 20 * timeout  # twice as long
    provider.enqueue(Script(repeat=chunks, pace=0.1))
    with server(DJANGO_WSGI, tmp_path, "--timeout", str(timeout)) as port, Browser(port) as browser:
        received = browser.read_to_the_end()

    assert f"\r\n{chunks - 1} \r\n".encode() in received
    assert received.endswith(b"0\r\n\r\n")


def test_gunicorns_sync_worker_is_killed_in_the_middle_of_a_longer_stream(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    """Why docs/guides/web-servers.md asks for another worker class; when this no longer holds the page may say so."""
    timeout = round(2 * busyness())  # seconds, in which the worker must also start its engine
    chunks = 50 * timeout
    provider.enqueue(Script(repeat=chunks, pace=0.1))
    options = ["--worker-class", "sync", "--threads", "1", "--timeout", str(timeout)]
    with server(DJANGO_WSGI, tmp_path, *options) as port, Browser(port) as browser:
        received = browser.read_to_the_end()

    assert f"\r\n{chunks - 1} \r\n".encode() not in received
    wait_until(lambda: provider.requests()[0].outcome == "closed_by_client", 5, "the end of the provider's connection")
