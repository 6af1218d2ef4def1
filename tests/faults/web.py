"""Web servers with several processes that stream completions, and their visitors."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

import msgspec

from tests.faults.harness import FaultyEngine
from tests.history.model import read_histories
from tests.waiting import busyness, wait_until

APPLICATION = """
import os
from headrace import Client

client = Client()  # before the fork


def run_arguments(query):
    span_id, count = query.split(".")
    return {
        "model": "gpt-4o", "messages": [{"role": "user", "content": span_id}], "span_id": span_id, "stream": True,
        "custom_options": {"simulate": {"repeat": int(count), "pace": 0.03}},
    }


def wsgi(environ, start_response):
    stream = client.run_local(**run_arguments(environ["QUERY_STRING"]))
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", str(os.getpid()))])
    return (chunk.encode() for chunk in stream)


async def asgi(scope, receive, send):
    stream = await client.arun_local(**run_arguments(scope["query_string"].decode()))
    headers = [(b"content-type", b"text/plain"), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in stream:
        await send({"type": "http.response.body", "body": chunk.encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})
"""
WARM_APPLICATION = APPLICATION.replace(
    "# before the fork",
    '\nclient.run_local(model="gpt-4o", messages=[{"role": "user", "content": "Hello"}])  # in the master, as a warm-up',
)


class WebAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a visitor got. ``error`` is empty where the response came whole."""

    span_id: str
    text: str
    error: str
    ended_at: float


class Visitors:
    """Threads that visit a server again and again, within ``with``."""

    def __init__(self, port: int, count: int, random: Random) -> None:
        self.answers: list[WebAnswer] = []
        self.serving: dict[str, int] = {}
        """The web processes that have begun to answer, by span id."""
        self._port = port
        self._is_over = threading.Event()
        seeds = [random.getrandbits(32) for _ in range(count)]
        self._threads = [threading.Thread(target=self._visit_again_and_again, args=[Random(seed)]) for seed in seeds]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_all(self) -> None:
        """Wait until as many more visits have gone well as there are visitors."""
        wanted = self._served() + len(self._threads)
        wait_until(lambda: self._served() >= wanted, 60.0, "whole answers")

    def _served(self) -> int:
        return sum(not answer.error for answer in list(self.answers))

    def _visit_again_and_again(self, random: Random) -> None:
        while not self._is_over.is_set():
            self.answers.append(self._visit(f"sp_{random.getrandbits(64):016x}", random.randint(5, 70)))

    def _visit(self, span_id: str, count: int) -> WebAnswer:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        data, error = b"", ""
        try:
            connection.request("GET", f"/?{span_id}.{count}")
            response = connection.getresponse()
            if response.status == http.client.OK:
                self.serving[span_id] = int(response.headers["X-Worker"])
            else:
                error = f"status {response.status}"
            while piece := response.read1():
                data += piece
        except (OSError, http.client.HTTPException) as failure:
            error = repr(failure)
        finally:
            self.serving.pop(span_id, None)
            connection.close()
        return WebAnswer(span_id=span_id, text=data.decode(), error=error, ended_at=time.monotonic())


@contextmanager
def web_server(module: Sequence[str], folder: Path, marker: str, **environment: str) -> Iterator[tuple[int, int]]:
    """Run a web server; yield its process and its port. The server logs the port after ``marker``."""
    log_path = folder / "log"
    with log_path.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", *module], cwd=folder, stdout=log, stderr=log, env={**os.environ, **environment}
        )
    try:
        wait_until(lambda: marker in log_path.read_text(), 30.0, f"{marker!r} in {log_path}")
        port = int(log_path.read_text().split(marker, 1)[1].split()[0])
        wait_until(lambda: _is_listening(port), 30.0, f"a listener on port {port}")
        yield server.pid, port
        server.terminate()
        assert server.wait(30 * busyness()) in (0, -signal.SIGTERM)
    finally:
        server.kill()
        server.wait()


def _is_listening(port: int) -> bool:
    with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def kill_at_random(engine: FaultyEngine, visitors: Visitors, times: int) -> dict[int, float]:
    """Kill web processes in the midst of answers; return when, by process."""
    killed: dict[int, float] = {}
    for _ in engine.moments(times, 0.3, 1.0):
        wait_until(lambda: set(visitors.serving.values()) - killed.keys(), 30.0, "a web process that answers")
        pid = engine.random.choice(sorted(set(visitors.serving.values()) - killed.keys()))
        killed[pid] = engine.signal(pid, signal.SIGKILL)
    return killed


class Aftermath(msgspec.Struct, frozen=True):
    """What the kills did: seconds to the closed provider connections, answers that were whole, answers that were lost."""

    delays: list[float]
    whole: int
    lost: int


def aftermath(engine: FaultyEngine, answers: Sequence[WebAnswer], killed: dict[int, float]) -> Aftermath:
    """Check that all visitors of the other web processes have whole answers, and return the figures."""
    spans_of = {
        history.pid: {event.span_id for event in history.events if event.span_id}
        for history in read_histories(engine.history)
        if history.role == "client"
    }
    hit = {span_id: at for pid, at in killed.items() for span_id in spans_of.get(pid, ())}
    known = set().union(*spans_of.values())
    calls = {call.span_id: call for call in engine.calls()}
    whole = [answer for answer in answers if not answer.error]
    for answer in whole:
        assert answer.text == calls[answer.span_id].sent_text
        assert calls[answer.span_id].is_complete
    # A visitor whose connection the killed process had taken, and not looked at yet, has no run.
    noticed = [answer for answer in answers if answer.error and answer.span_id not in hit and answer.span_id in known]
    assert not noticed, noticed[:3]
    assert all(
        any(0 <= answer.ended_at - at < 2.0 * busyness() for at in killed.values())
        for answer in answers
        if answer.error and answer.span_id not in known
    )
    delays = [
        (call.ended_at or float("inf")) - hit[call.span_id]
        for call in calls.values()
        if call.span_id in hit and not call.is_complete
    ]
    return Aftermath(delays, len(whole), len(answers) - len(whole))
