"""Many client processes of one engine, as one program: opens streams, notes each chunk, and answers commands with figures.

``python -m bench.scale.client_group SPEC``, where SPEC is a ClientGroup as JSON. Each line of its standard input is a command for all
processes, and its answer is a line with a list of their figures. ``bench/scale/measured_engine.py`` is the other side.

The processes are forked before anything connects, so that all of them can begin at the same moment.
"""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import sys
from array import array
from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec
import uvloop

import headrace

# Before the fork, so that what is measured is not how Python loads modules.
import headrace.async_streams
import headrace.client
import headrace.connections.client_process
from bench.works import MESSAGES, MODEL, STAMP_LENGTH
from headrace.process.descriptors import raise_limit

_PATIENCE = 300.0
"""Seconds after which a command is given up, and its answer says what is missing."""


class ClientGroup(msgspec.Struct, frozen=True, kw_only=True):
    """``processes`` client processes, each with ``streams`` streams of ``chunks`` chunks, one each ``pace`` seconds."""

    address: str
    processes: int
    streams: int
    chunks: int
    pace: float


class ClientFigures(msgspec.Struct, kw_only=True):
    """What one process says after a command. ``seconds``: how long the command took.

    ``latencies``: seconds of each chunk since the last ``mark``, from the provider's write to the reader.
    """

    seconds: float
    open: int = 0
    """Streams that have begun and not ended."""
    complete: int = 0
    """Streams that ended with each chunk, in order."""
    chunks: int = 0
    """Chunks since the last ``mark``."""
    deltas: int = 0
    """How many pieces these chunks came in."""
    latencies: list[float] = []
    firsts: list[float] = []
    """Seconds of each first chunk, from the call."""
    faults: dict[str, int] = {}
    """What went wrong, and how often."""


class _SlowStream:
    """One stream as its reader sees it."""

    __slots__ = ("count", "last_stamp")

    def __init__(self) -> None:
        self.count = 0
        self.last_stamp = 0


class ClientProcess:
    """One client process."""

    def __init__(self, group: ClientGroup) -> None:
        self._group = group
        self._client = headrace.Client(group.address, connect_timeout=60.0)
        self._tasks: list[asyncio.Task[None]] = []
        self._begun = asyncio.Event()
        self._waiting = 0  # streams without a first chunk
        self._ended = 0
        self._complete = 0
        self._chunks = self._deltas = 0
        self._latencies = array("f")
        self._firsts = array("f")
        self._faults: Counter[str] = Counter()

    async def carry_out(self, command: str) -> ClientFigures:
        """Carry out a command, and return the figures."""
        started = monotonic()
        word, *numbers = command.split()
        match word:
            case "connect":
                await self._guarded(self._call())
            case "open":
                await self._open(int(numbers[0]) if numbers else self._group.streams)
            case "calls":
                await self._make_calls(int(numbers[0]), int(numbers[1]))
            case "end":
                await asyncio.wait(self._tasks, timeout=self._group.chunks * self._group.pace + _PATIENCE)
        return self._figures(monotonic() - started)

    def _figures(self, seconds: float) -> ClientFigures:
        firsts, latencies, chunks, deltas = self._firsts, self._latencies, self._chunks, self._deltas
        self._firsts, self._latencies = array("f"), array("f")
        self._chunks = self._deltas = 0
        return ClientFigures(
            seconds=seconds,
            open=len(self._tasks) - self._waiting - self._ended,
            complete=self._complete,
            chunks=chunks,
            deltas=deltas,
            latencies=list(latencies),
            firsts=list(firsts),
            faults=dict(self._faults),
        )

    async def _open(self, streams: int) -> None:
        """Open further streams at once, and wait until each has a chunk or has failed."""
        self._begun.clear()
        self._waiting += streams
        self._tasks += [asyncio.create_task(self._guarded(self._read())) for _ in range(streams)]
        try:
            await asyncio.wait_for(self._begun.wait(), _PATIENCE)
        except TimeoutError:
            self._faults[f"no first chunk within {_PATIENCE:g} s"] = self._waiting

    async def _read(self) -> None:
        seen = _SlowStream()
        try:
            await self._read_into(seen)
        finally:
            if not seen.count:
                self._has_begun()
            self._ended += 1

    async def _read_into(self, seen: _SlowStream) -> None:
        started = monotonic()
        group = self._group
        script = {"repeat": group.chunks, "pace": group.pace}
        stream = await self._client.arun_local(
            stream=True, model=MODEL, messages=MESSAGES, custom_options={"simulate": script}
        )
        async for text in stream:
            now = monotonic()
            if not seen.count:
                self._firsts.append(now - started)
                self._has_begun()
            self._note(seen, text, now)
        if seen.count != group.chunks:
            raise ValueError(f"{seen.count} of {group.chunks} chunks came")
        self._complete += 1

    def _note(self, seen: _SlowStream, text: str, now: float) -> None:
        self._deltas += 1
        for at in range(0, len(text), STAMP_LENGTH):
            stamp = int(text[at : at + STAMP_LENGTH])
            if stamp <= seen.last_stamp:
                raise ValueError("a chunk came twice, or out of order")
            seen.last_stamp = stamp
            seen.count += 1
            self._chunks += 1
            self._latencies.append(now - stamp / 1e6)

    def _has_begun(self) -> None:
        self._waiting -= 1
        if not self._waiting:
            self._begun.set()

    async def _make_calls(self, count: int, at_once: int) -> None:
        """Make short calls without a stream."""
        waiting = iter(range(count))

        async def lane() -> None:
            for _ in waiting:
                await self._guarded(self._call())

        await asyncio.gather(*(lane() for _ in range(at_once)))

    async def _call(self) -> None:
        await self._client.arun_local(model=MODEL, messages=MESSAGES, custom_options={"simulate": {"repeat": 1}})

    async def _guarded(self, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the table
            self._faults[f"{type(error).__name__}: {error}"[:200]] += 1


def main() -> None:
    """Fork the processes, pass commands to them, and print their answers."""
    group = msgspec.json.decode(sys.argv[1], type=ClientGroup)
    raise_limit()
    gc.freeze()
    links: list[tuple[int, int, int]] = []
    for _ in range(group.processes):
        links.append(_forked(group, links))
    for line in sys.stdin:
        command = line.strip()
        if command == "kill":
            for pid, _, _ in links:
                os.kill(pid, signal.SIGKILL)
            for pid, _, _ in links:
                os.waitpid(pid, 0)
            print("[]", flush=True)
            return
        for _, commands, _ in links:
            os.write(commands, f"{command}\n".encode())
        print(f"[{','.join(_answers([answers for _, _, answers in links]))}]", flush=True)
    for pid, commands, _ in links:
        os.close(commands)
        os.waitpid(pid, 0)


def _answers(pipes: list[int]) -> list[str]:
    """Return one line from each pipe."""
    received: dict[int, list[bytes]] = {pipe: [] for pipe in pipes}
    poll = select.poll()
    for pipe in pipes:
        poll.register(pipe, select.POLLIN | select.POLLHUP)
    left = len(pipes)
    while left:
        for pipe, _ in poll.poll():
            data = os.read(pipe, 1 << 20)
            received[pipe].append(data)
            if not data or data.endswith(b"\n"):
                poll.unregister(pipe)
                left -= 1
    ended = msgspec.json.encode(ClientFigures(seconds=0.0, faults={"a client process has ended": 1})).decode()
    return [b"".join(received[pipe]).decode().strip() or ended for pipe in pipes]


def _forked(group: ClientGroup, links: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """Fork a client process. Return its id, the pipe for its commands, and the pipe of its answers."""
    its_commands, commands = os.pipe()
    answers, its_answers = os.pipe()
    pid = os.fork()
    if pid:
        os.close(its_commands)
        os.close(its_answers)
        return pid, commands, answers
    code = 1
    try:
        for pipe in [commands, answers, *(pipe for _, *pipes in links for pipe in pipes)]:
            os.close(pipe)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(group, its_commands, its_answers))
        code = 0
    finally:
        os._exit(code)


async def _serve(group: ClientGroup, commands: int, answers: int) -> None:
    process = ClientProcess(group)
    reader = asyncio.StreamReader()
    make: Callable[[], asyncio.StreamReaderProtocol] = lambda: asyncio.StreamReaderProtocol(reader)  # noqa: E731
    await asyncio.get_running_loop().connect_read_pipe(make, os.fdopen(commands, "rb", buffering=0))
    while line := await reader.readline():
        figures = await process.carry_out(line.decode())
        _write_all(answers, msgspec.json.encode(figures) + b"\n")


def _write_all(pipe: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe, view) :]


if __name__ == "__main__":
    main()
