"""Counts what the client executes for one chunk, from the readable socket to the reader's next wait: for a task, and for a thread.

``python -m bench.client_path`` prints the counts, ``--record`` keeps them in ``bench/client_path.json``, for
``tests/bench/test_client_path.py``. No engine runs: this process is the worker too, on a real socket, and nothing of that is counted.
Each chunk comes alone, and wakes a reader that waits. The figures are Python's instructions and calls, the same on every machine.

* A task: its event loop (uvloop) is the guest of the reactor, and reads the socket itself. uvloop's own work is not counted.
* A thread: the I/O thread's turn and the reader's part, together.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import uvloop

from bench.pure_path import Counter, Counts, version
from headrace.async_streams import AsyncLocalStream
from headrace.connections.connection import Connection
from headrace.connections.engine_source import ExternalEngine
from headrace.files.engine_directory import broker_endpoint
from headrace.process.callbacks import mark_io_thread
from headrace.runs.delivery import Delivery
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.streams import LocalStream
from headrace.transport.reactor import Reactor
from headrace.transport.zmtp import ROUTER, frame_head, opening
from headrace.wire.codec import encode_frame
from headrace.wire.messages import CAPABILITIES, PROTOCOL_MINOR, Chunk, Grant, Welcome

RECORDED = Path(__file__).with_suffix(".json")
_SPAN, _EPOCH = "sp_0123456789abcdef", 7
_WARM_UP, _CHUNKS = 20, 50


class OwnPeer:
    """A process at the other end of a link of the client, as far as the client sees it. It is this process."""

    def __init__(self, endpoint: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(endpoint.removeprefix("ipc://"))
        self._listener.listen()

    def welcome(self) -> None:
        """Take the client's connection, and answer its hello."""
        self._connected, _ = self._listener.accept()
        self._listener.close()
        self._connected.send(opening(ROUTER))
        self.send(Welcome(PROTOCOL_MINOR, os.getpid(), CAPABILITIES))

    def send(self, message: msgspec.Struct) -> None:
        """Send a message in a frame of its own."""
        frame = encode_frame(_EPOCH, [message])
        self._connected.send(frame_head(len(frame)) + frame)

    def close(self) -> None:
        """End the connection."""
        self._connected.close()


class OwnWorker:
    """A client with one run on a worker. The worker and the broker are this process."""

    def __init__(self, reactor: Reactor, directory: str) -> None:
        endpoint = f"ipc://{directory}/worker-1"
        self.reactor = reactor
        self._numbers = itertools.count()
        self._broker, self._worker = OwnPeer(broker_endpoint(Path(directory))), OwnPeer(endpoint)
        connection = Connection(reactor, ExternalEngine(f"ipc://{directory}"), 1, 60.0)
        session = Session(RunPlan(_SPAN, "openai", "gpt-4o", b"", streams=True))
        self.delivery = Delivery(session, "tr_0123456789abcdef", time.monotonic(), connection, 1)
        connection.submit(self.delivery)
        reactor.turn()
        self._broker.welcome()
        reactor.turn()
        runs = connection._engine_runs  # noqa: SLF001 - in place of the broker
        reactor.call(lambda: runs.granted(Grant(_SPAN, 1, "bench", endpoint, _EPOCH)))
        reactor.turn()
        self._worker.welcome()
        reactor.turn()

    def say(self) -> None:
        """Send the next chunk."""
        number = next(self._numbers)
        self._worker.send(Chunk(_SPAN, 1, number, [f"tok{number} "]))

    def close(self) -> None:
        """Close all connections."""
        self._broker.close()
        self._worker.close()
        self.reactor.close()


@contextmanager
def _own_worker() -> Iterator[OwnWorker]:
    with tempfile.TemporaryDirectory() as directory:
        worker = OwnWorker(Reactor(), directory)
        try:
            yield worker
        finally:
            worker.close()


async def _read(worker: OwnWorker, counter: Counter) -> None:
    reactor, loop = worker.reactor, asyncio.get_running_loop()
    while reactor._candidate is None:  # noqa: SLF001 - as if many tasks had waited
        reactor.offer(loop)
    reactor._take_guest()  # noqa: SLF001 - as the I/O thread does
    received = 0
    worker.say()
    async for _ in AsyncLocalStream(worker.delivery):
        counter.stop()
        received += 1
        if received == _WARM_UP:
            counter.reset()
        elif received == _WARM_UP + _CHUNKS:
            return
        worker.say()
        counter.start()


def counts_of_task() -> Counts:
    """Return what the client executes for a chunk that wakes a task."""
    counter = Counter()
    with _own_worker() as worker, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_read(worker, counter))
    return counter.mean(_CHUNKS)


def counts_of_thread() -> tuple[Counts, Counts]:
    """Return what the client executes for a chunk that wakes a thread: in the I/O thread, and in the thread that reads."""
    mark_io_thread()
    its, own = Counter(), Counter()
    with _own_worker() as worker:
        delivery = worker.delivery
        reader = threading.Thread(target=_take, args=(LocalStream(delivery), its))
        reader.start()
        for number in range(_WARM_UP + _CHUNKS):
            if number == _WARM_UP:
                own.reset()
            while delivery._waiter is None:  # noqa: SLF001 - the reader waits
                time.sleep(0.0001)
            worker.say()
            own.start()
            worker.reactor.turn()
            own.stop()
        reader.join()
    return own.mean(_CHUNKS), its.mean(_CHUNKS)


def _take(stream: LocalStream[None], counter: Counter) -> None:
    chunks = iter(stream)
    for number in range(_WARM_UP + _CHUNKS):
        if number == _WARM_UP:
            counter.reset()
        counter.start()
        next(chunks)
        counter.stop()


def counts() -> dict[str, Counts]:
    """Return the counts of all ways."""
    task = counts_of_task()
    io, thread = counts_of_thread()  # from here on this is an I/O thread
    return {"a task": task, "a thread: I/O thread": io, "a thread: reader": thread}


def recorded() -> dict[str, dict[str, Counts]]:
    """Return the recorded counts: version of Python → way → counts."""
    return msgspec.json.decode(RECORDED.read_bytes(), type=dict[str, dict[str, Counts]])


def main() -> None:
    """Print the counts, and record them if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.client_path", description=__doc__)
    parser.add_argument("--record", action="store_true", help="keep the counts as those that the test expects")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    arguments = parser.parse_args()
    found = counts()
    if arguments.json:
        print(msgspec.json.encode(found).decode())
        return
    for way, count in found.items():
        print(f"{way:24} {count.instructions:8.2f} instructions {count.calls:7.2f} calls a chunk")
    if arguments.record:
        kept = recorded() if RECORDED.exists() else {}
        RECORDED.write_bytes(msgspec.json.format(msgspec.json.encode(kept | {version(): found})) + b"\n")


if __name__ == "__main__":
    main()
