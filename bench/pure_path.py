"""Counts what Python executes for one chunk of a stream, without processes, sockets or clocks: the same figures on every machine.

``python -m bench.pure_path`` prints them. ``--record`` keeps them in ``bench/pure_path.json``; ``tests/bench/test_pure_path.py`` compares
with that file. ``--times`` prints microseconds instead, for work on one part.

The path of a chunk: bytes of an HTTP response → connection → server-sent events → mapper → pending events → chunk → frame (worker),
then frame → messages → session → text (client).
"""

from __future__ import annotations

import argparse
import math
import sys
import timeit
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

import msgspec

from headrace.answers.assembly import joined_text
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.types import Message
from headrace.wire.codec import encode_frame, from_worker
from headrace.wire.messages import Chunk, Grant, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.http.direct_exchange import DirectExchange
from headrace_workers.http.http1_connection import Http1Connection
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.limit_reports import LimitReports
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.live_run import ConnectedClient, LiveRun, messages_of
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import ClockLimits, Clocks

RECORDED = Path(__file__).with_suffix(".json")
EPOCH = 7
_SPAN = "sp_0123456789abcdef"
_PLENTY = 1 << 40
_WARM_UP = 20
_READS = 50
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Kind(msgspec.Struct, frozen=True):
    """One kind of stream. ``before`` and ``after`` are the bytes of an event around its text; ``%d`` in them is its number."""

    api: str
    before: bytes
    after: bytes
    chunks_per_read: int = 1
    opening: bytes = b""


_CHAT = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m-1","choices":[{"index":0,"delta":{"content":'
_CHAT_END = b'},"logprobs":null,"finish_reason":null}]}\n\n'
_PADDED_END = b'},"logprobs":null,"finish_reason":null}],"obfuscation":"%d"}\n\n'
_MESSAGE = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":'
)
_BLOCK = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
_RESPONSE = (
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%d,"delta":'
)
_GEMINI = b'data: {"candidates":[{"content":{"role":"model","parts":[{"text":'
_GEMINI_END = (
    b'}]},"index":0}],"usageMetadata":{"promptTokenCount":1,"candidatesTokenCount":%d},"modelVersion":"m-1"}\n\n'
)

KINDS = {
    "chat, one chunk a read": Kind("openai-chat", _CHAT, _CHAT_END),
    "chat, 50 chunks a read": Kind("openai-chat", _CHAT, _CHAT_END, chunks_per_read=50),
    "chat with other bytes in each chunk": Kind("openai-chat", _CHAT, _PADDED_END),
    "messages, one chunk a read": Kind("anthropic", _MESSAGE, b"}}\n\n", opening=_BLOCK),
    "responses, one chunk a read": Kind("openai-responses", _RESPONSE, b"}\n\n"),
    "gemini, one chunk a read": Kind("google", _GEMINI, _GEMINI_END),
}


class Counts(msgspec.Struct, frozen=True):
    """What is executed for one chunk: Python's instructions (bytecodes), and calls of functions, of Python's and of C's."""

    instructions: float
    calls: float


class PathCounts(msgspec.Struct, frozen=True):
    """The counts of one kind of stream."""

    worker: Counts
    client: Counts


class QuietLoop:
    """In place of the event loop: nothing is ever due."""

    def time(self) -> float:
        return 0.0

    def call_soon(self, *_: object) -> None:
        pass

    def call_later(self, *_: object) -> QuietLoop:
        return self

    def add(self, *_: object) -> None:
        """As of deadlines: there is none."""

    def cancel(self) -> None:
        pass


class QuietTransport:
    """In place of the socket to the provider, and of the owner of its connection."""

    def is_closing(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class PurePath:
    """One stream from its provider's bytes to its reader's text. In place of a worker for its run: a :class:`WorkerServices`."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._made = 0
        quiet: Any = QuietLoop()
        self.loop: Any = quiet
        self.http: Any = self
        self.history: Any = None
        self.tracer: Any = None
        self.deadlines: Any = self.loop
        self.early_deadlines: Any = self.loop
        self.limits = LimitReports(self.loop.call_later, lambda _: None, lambda _: [])
        transport: Any = QuietTransport()
        self._connection = Http1Connection(quiet, transport, 1.0)
        self._connection.connection_made(transport)
        request = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=True)
        run = Run(_SPAN, 1, EPOCH, b"", _PLENTY, _PLENTY)
        limits = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
        core = ProviderRun(run, request, WIRE_FORMATS[kind.api].api, Clocks(limits, 0.0))
        self._ready: tuple[LiveRun, ...] = ()
        sent = HttpRequest(url="http://127.0.0.1/", headers=(), body=b"")
        live = LiveRun(self, ConnectedClient(b"c"), core, sent, None, 0, run)
        live.client.runs[_SPAN] = live
        live.start()
        self._session = Session(RunPlan(_SPAN, "p", "m", b"", streams=True))
        self._session.start(0.0)
        self._session.granted(Grant(_SPAN, 1, "w1", "ipc://w1", EPOCH), 0.0)
        self._connection.data_received(_HEAD)
        if kind.opening:
            self._connection.data_received(_http_chunk(kind.opening))

    # As the worker.

    def send(self, _: HttpRequest, receiver: Any) -> DirectExchange:
        exchange = DirectExchange(receiver, b"")
        self._connection.start(exchange, is_reused=False)
        return exchange

    def schedule(self, run: LiveRun) -> None:  # the form of WorkerServices
        self._ready = (run,)

    def tell(self, client: ConnectedClient, message: msgspec.Struct) -> None:  # noqa: ARG002
        raise AssertionError(message)

    # The two halves of the path.

    def read(self) -> bytes:
        """Return the bytes of the next read."""
        kind, data = self._kind, b""
        for number in range(self._made, self._made + kind.chunks_per_read):
            parts = (kind.before, b'"tok%d "' % number, kind.after)
            data += _http_chunk(b"".join(part.replace(b"%d", b"%d" % number) for part in parts))
        self._made += kind.chunks_per_read
        return data

    def frame(self, data: bytes) -> bytes:
        """The worker: return the frame that follows from a read."""
        self._connection.data_received(data)
        return encode_frame(EPOCH, messages_of(self._ready, 0.0))

    def deliver(self, frame: bytes) -> None:
        """The client: take a frame."""
        epoch, messages = from_worker.decode(frame)
        for message in messages:
            self._session.chunk(epoch, cast("Chunk", message))

    def text(self) -> str:
        """Return the text that has come."""
        return joined_text(self._session.events)


def _http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Counter:
    """Counts the instructions and calls of a function call."""

    def __init__(self) -> None:
        self.instructions = 0
        self.calls = 0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, and add what is executed in it."""
        self.start()
        try:
            return function(*arguments)
        finally:  # here, and not in stop(): a call of it would be counted
            sys.setprofile(None)
            sys.settrace(None)

    def start(self) -> None:
        """Count what this thread executes from here on, in functions that are called from here on."""
        sys.settrace(self._trace)
        sys.setprofile(self._profile)

    def stop(self) -> None:
        """Count no more."""
        sys.setprofile(None)
        sys.settrace(None)

    def reset(self) -> None:
        """Forget what was counted."""
        self.instructions = self.calls = 0

    def mean(self, chunks: int) -> Counts:
        """Return what was counted for one of so many chunks."""
        return Counts(self.instructions / chunks, self.calls / chunks)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:  # noqa: ARG002 - Python's form
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        self.instructions += event == "opcode"
        return self._trace

    def _profile(self, frame: FrameType, event: str, argument: object) -> None:  # noqa: ARG002
        self.calls += event in {"call", "c_call"}


def counts_of(kind: Kind) -> PathCounts:
    """Return what a chunk of a stream takes, once the stream goes on."""
    path = _warm(kind)
    worker, client = Counter(), Counter()
    for _ in range(_READS):
        data = path.read()
        frame = worker.call(path.frame, data)
        client.call(path.deliver, frame)
    client.call(path.text)
    chunks = _READS * kind.chunks_per_read
    return PathCounts(worker.mean(chunks), client.mean(chunks))


def microseconds_of(kind: Kind) -> tuple[float, float]:
    """Return the time that worker and client take for a chunk, in microseconds: the least of many tries."""
    path = _warm(kind)
    reads = [path.read() for _ in range(2000 // kind.chunks_per_read)]
    frames: list[bytes] = []
    worker = min(timeit.repeat(lambda: frames.append(path.frame(reads.pop())), number=1, repeat=len(reads)))
    client = min(timeit.repeat(lambda: path.deliver(frames.pop(0)), number=1, repeat=len(frames)))
    return worker / kind.chunks_per_read * 1e6, client / kind.chunks_per_read * 1e6


def _warm(kind: Kind) -> PurePath:
    path = PurePath(kind)
    for _ in range(_WARM_UP):
        path.deliver(path.frame(path.read()))
    assert path.text() == "".join(f"tok{number} " for number in range(_WARM_UP * kind.chunks_per_read))
    return path


def version() -> str:
    """Return the version of Python that the counts belong to: other versions have other instructions."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def recorded() -> dict[str, dict[str, PathCounts]]:
    """Return the recorded counts: version of Python → kind of stream → counts."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, dict[str, PathCounts]])


def main() -> None:
    """Print the counts, and record them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.pure_path", description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep the counts as those that the test expects")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--times", action="store_true", help="print microseconds instead of counts")
    arguments = parser.parse_args()
    if arguments.times:
        for name, kind in KINDS.items():
            worker, client = microseconds_of(kind)
            print(f"{name:40} worker {worker:6.2f} µs, client {client:6.2f} µs a chunk")
        return
    counts = {name: counts_of(kind) for name, kind in KINDS.items()}
    if arguments.json:
        print(msgspec.json.encode(counts).decode())
        return
    for name, path in counts.items():
        for half, count in (("worker", path.worker), ("client", path.client)):
            print(f"{name:40} {half} {count.instructions:8.2f} instructions {count.calls:7.2f} calls a chunk")
    if arguments.record:
        kept = recorded() if RECORDED.exists() else {}
        RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(kept | {version(): counts})) + b"\n")


if __name__ == "__main__":
    main()
