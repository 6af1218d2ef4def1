"""Any exception in a run ends it with a terminal message at once, and no other run is affected."""

# ruff: noqa: ARG002 - fakes take what they are given

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace.process.history import History
from headrace.types import Message, Usage
from headrace.wire.messages import Chunk, Credit, Failed, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.limit_reports import LimitReports
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.live_run import ConnectedClient, LiveRun, messages_of
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.shared_deadlines import SharedDeadlines
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from headrace_workers.spans.tracer import Tracer

SENT = HttpRequest("http://x/y", (), b"{}")
TEXT = b'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'


class OddError(Exception):
    """An exception that no code expects."""


class FakeExchange:
    """An exchange that records whether it was closed."""

    is_connected = True
    is_read = False

    def __init__(self) -> None:
        self.is_closed = False

    def pause(self) -> None:
        raise OddError

    def resume(self) -> None:
        raise OddError

    def close(self) -> None:
        self.is_closed = True

    def release(self) -> None:
        raise OddError


class FakeHttp:
    """Starts exchanges, or fails to."""

    def __init__(self) -> None:
        self.exchange = FakeExchange()
        self.fault: Exception | None = None

    def send(self, request: HttpRequest, receiver: Any, on_whole: Any = None) -> FakeExchange:
        if self.fault is not None:
            raise self.fault
        return self.exchange


class OddMapper:
    """A mapper that fails in the method ``fails_in``."""

    usage = Usage()
    is_complete = False
    has_split_characters = False
    has_end = False
    continuation: str | None = None
    response_id: str | None = None

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def feed(self, name: str, data: bytes, events: list[Any]) -> None:
        if self._fails_in == "feed":
            raise OddError
        events.append("a")

    def finish(self, events: list[Any]) -> Any:
        raise OddError


class OddApi:
    """A wire format with faults."""

    def __init__(self, fails_in: str) -> None:
        self._fails_in = fails_in

    def __getattr__(self, name: str) -> Any:
        return getattr(WIRE_FORMATS["openai-chat"].api, name)

    def open_stream(self, request: RunRequest) -> Any:
        if self._fails_in == "open_stream":
            raise OddError
        return OddMapper(self._fails_in)

    def read_body(self, request: RunRequest, body: bytes) -> Any:
        raise OddError

    def read_error(self, status: int, headers: Any, body: bytes) -> Any:
        raise OddError


class FakeHost:
    """A worker with one run."""

    history: History | None = None
    tracer: Tracer | None = None

    def __init__(self, *, fails_in: str = "", stream: bool = True, sequence_limit: int = 64) -> None:
        self.loop = asyncio.get_running_loop()
        self.http: Any = FakeHttp()
        self.sent: list[Any] = []
        self.limits = LimitReports(self.loop.call_later, self.sent.append, lambda _headers: [])
        self.deadlines = self.early_deadlines = SharedDeadlines(self.loop, time.monotonic)
        self.client = ConnectedClient(b"c")
        self.is_told: Callable[[], None] = lambda: None
        request = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=stream)
        clocks = Clocks(ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf), 0.0)
        api: Any = OddApi(fails_in) if fails_in else WIRE_FORMATS["openai-chat"].api
        run = Run("sp_1", 1, 7, b"", sequence_limit, 65536)
        core = ProviderRun(run, request, api, clocks)
        self.run = LiveRun(self, self.client, core, SENT, None, 0, run)
        self.client.runs["sp_1"] = self.run

    def schedule(self, run: LiveRun) -> None:
        self.sent += messages_of([run], 0.0)
        self.is_told()

    def tell(self, client: ConnectedClient, message: msgspec.Struct) -> None:
        self.sent.append(message)

    def respond(self, status: int = 200) -> None:
        self.run.start()
        self.run.on_response(status, {"content-type": "text/event-stream"})


def _starts(host: FakeHost) -> None:
    host.http.fault = OddError()
    host.run.start_now()


def _opens(host: FakeHost) -> None:
    host.respond()


def _reads(host: FakeHost) -> None:
    host.respond()
    host.run.on_bytes(TEXT)


def _ends(host: FakeHost) -> None:
    host.respond()
    host.run.on_bytes(TEXT)
    host.run.on_complete()


def _is_cut(host: FakeHost) -> None:
    host.respond()
    host.run.on_bytes(TEXT)
    host.run.on_failure("read", "cut")


def _is_refused(host: FakeHost) -> None:
    host.respond(500)
    host.run.on_complete()


def _is_whole(host: FakeHost) -> None:
    host.respond()
    host.run.on_bytes(b"{}")
    host.run.on_complete()


def _is_paused(host: FakeHost) -> None:
    host.respond()
    host.run.on_bytes(TEXT)
    host.run.on_bytes(TEXT.replace(b'"a"', b'"' + b"b" * 70_000 + b'"'))


@pytest.mark.parametrize(
    ("fails_in", "story"),
    [
        ("start", _starts),
        ("open_stream", _opens),
        ("feed", _reads),
        ("finish", _ends),
        ("finish", _is_cut),
        ("read_error", _is_refused),
        ("read_body", _is_whole),
        ("", _is_paused),
    ],
)
def test_an_exception_in_a_run_ends_it_with_a_terminal_message(
    fails_in: str, story: Callable[[FakeHost], None]
) -> None:
    async def check() -> None:
        host = FakeHost(fails_in=fails_in, sequence_limit=1)
        story(host)

        *chunks, last = host.sent
        assert all(isinstance(message, Chunk) for message in chunks)
        assert isinstance(last, Failed)
        assert (last.kind, last.sequence) == ("worker_failed", len(chunks))
        assert last.reason == "the worker failed at the run: OddError"
        assert host.client.runs == {}
        assert host.http.exchange.is_closed or story is _starts

        host.run.on_bytes(TEXT)
        host.run.on_complete()
        host.run.carry_out(host.run.core.allow_more(Credit("sp_1", 1, 100, 100)))
        assert host.sent == [*chunks, last], "nothing follows it"

    asyncio.run(check())


def test_the_caller_hears_of_the_end_even_if_stopping_the_run_fails() -> None:
    async def check() -> None:
        host = FakeHost(fails_in="finish")
        host.respond()
        host.run.on_bytes(TEXT)
        host.run.core.clocks.finishing()
        host.run.stop("it stops")

        assert isinstance(host.sent[-1], Failed)
        assert host.client.runs == {}

    asyncio.run(check())


def test_a_run_waits_for_the_end_of_a_complete_answer_no_longer_than_the_grace() -> None:
    """The shell must set its timer for the grace. Without it, the next clock runs out after ten minutes."""

    async def check() -> None:
        host = FakeHost()
        host.respond()
        began = host.loop.time()
        host.run.on_bytes(TEXT + b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n')
        ended = asyncio.Event()
        host.is_told = ended.set
        await asyncio.wait_for(ended.wait(), 20)

        assert 1.9 < host.loop.time() - began < 10
        assert host.sent[-1].finish_reason == "stop"
        assert host.http.exchange.is_closed

    asyncio.run(check())
