"""What a span costs the worker that hands it over.

CPU per run for record, encoding, spool and batch, in a process of its own.

Run ``python -m bench.spans_worker``. Nothing of the run itself is counted, only what would not happen without spans: the transcript,
the stub, the span with 4 kB of content, the writes, the batches and their acknowledgements (by a collector in another process).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from headrace.files.engine_directory import collector_endpoint
from headrace.settings.settings import SpansConfig
from headrace.transport.router import Router
from headrace.types import Message, RunEvent
from headrace.wire.codec import encode_frame, encode_request, to_collector
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    Hello,
    Run,
    SpanAck,
    SpanBatch,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.run_commands import Command
from headrace_workers.runs.timeouts import ClockLimits, Clocks
from headrace_workers.runs.transcript import Transcript
from headrace_workers.spans.tracer import Tracer, TracerSettings

PROMPT = "What do you know of millraces? " * 64
DELTAS = [f"word{number:04} " for number in range(222)]
LIMITS = ClockLimits(connect=10.0, first_chunk=300.0, idle=120.0, total=600.0, reader=300.0)
STREAM = {"content-type": "text/event-stream", "x-request-id": "req_1"}
END = b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
TARGET = 50.0
"""Microseconds for one run."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.spans_worker", description="What spans cost a worker.")
    parser.add_argument("--runs", type=int, default=480)
    parser.add_argument("--rounds", type=int, default=40, help="the best counts: what else the machine does costs too")
    parser.add_argument("--collector", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.collector is not None:
        collect(arguments.collector)
    elif arguments.worker is not None:
        report(arguments.worker, arguments)
    else:  # a worker and its collector have the same parent: else they do not trust each other
        with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp") as name, collector(Path(name)):
            command = [sys.executable, "-m", "bench.spans_worker", *sys.argv[1:], "--worker", name]
            sys.exit(subprocess.run(command, check=False).returncode)


def report(directory: Path, arguments: argparse.Namespace) -> None:
    """Measure as a worker of the collector in ``directory``, and print."""
    gc.collect()
    gc.freeze()  # as a worker does at its start
    print(
        f"{len(PROMPT)} bytes asked, {sum(map(len, DELTAS))} answered in {len(DELTAS)} deltas; {arguments.runs} runs, the best of {arguments.rounds} rounds"
    )
    print(f"a delta in the transcript: {measure_transcript():.3f} us")
    for content in ("full", "none"):
        for at_once in (1, 16):
            cost = measure(directory, SpansConfig(content=content), arguments.runs, at_once, arguments.rounds)
            what = f"content={content}, {at_once} runs in a turn of the loop"
            print(f"{what}: {cost:.1f} us of CPU for a run" + (f" (target: {TARGET:g})" if content == "full" else ""))


def measure(directory: Path, config: SpansConfig, runs: int, at_once: int, rounds: int) -> float:
    """Return the microseconds of CPU that a run costs with spans beyond what it costs without."""
    with_spans = min(_cpu_of(directory, config, runs, at_once) for _ in range(rounds))
    without = min(_cpu_of(directory, None, runs, at_once) for _ in range(rounds))
    return (with_spans - without) / runs * 1e6


def measure_transcript() -> float:
    """Return the microseconds that a delta costs which comes in a chunk of its own."""
    chunks: list[list[RunEvent]] = [[delta] for delta in DELTAS]
    best = float("inf")
    for _ in range(200):
        transcript = Transcript()
        began = time.thread_time_ns()
        for chunk in chunks:
            transcript.add(chunk)
        best = min(best, (time.thread_time_ns() - began) / len(chunks) / 1000)
    return best


def _cpu_of(directory: Path, config: SpansConfig | None, runs: int, at_once: int) -> float:
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(_work(directory, config, runs, at_once))


def _new_loop() -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _work(directory: Path, config: SpansConfig | None, runs: int, at_once: int) -> float:
    """Return the seconds of CPU of so many runs."""
    tracer = None
    if config is not None:
        settings = TracerSettings(slot=directory, endpoint=collector_endpoint(directory), worker="w1", epoch=7)
        tracer = Tracer(settings, config, _hello, asyncio.get_running_loop())
        tracer.open()
    request = RunRequest(provider="openai", model="gpt-4o", messages=[Message("user", PROMPT)], stream=True)
    encoded = encode_request(request)
    began = time.process_time()
    for first in range(0, runs, at_once):
        await _turn(tracer, request, [Run(f"sp_{first + n:016x}", 1, 7, encoded, 64, 65536) for n in range(at_once)])
    while tracer is not None and not tracer.is_idle:  # noqa: ASYNC110 - nothing of it is there to be waited for
        await asyncio.sleep(0.005)
    cost = time.process_time() - began
    if tracer is not None:
        await tracer.close()
    return cost


async def _turn(tracer: Tracer | None, request: RunRequest, runs: list[Run]) -> None:
    """Have runs begin together and end together."""
    spans = [tracer.begin(run, request) if tracer is not None else None for run in runs]
    await asyncio.sleep(0)  # the stubs are written at the end of the turn
    for run, span in zip(runs, spans, strict=True):
        transcript = Transcript() if span is not None and span.keeps_content else None
        core = ProviderRun(run, request, WIRE_FORMATS["openai-chat"].api, Clocks(LIMITS, 0.0), transcript=transcript)
        core.responded(200, STREAM, 0.0)
        for start in range(0, len(DELTAS), 4):
            events: list[RunEvent] = [*DELTAS[start : start + 4]]
            if transcript is not None:
                transcript.add(events)
        assert Command.SEND in core.received(END, 1.0)
        core.take(1.0)
        if tracer is not None and span is not None:
            tracer.end(span, core.for_span)
    if tracer is not None:
        tracer.commit()
    await asyncio.sleep(0)


def _hello() -> Hello:
    return Hello("worker", PROTOCOL_MINOR, os.getpid(), CAPABILITIES, "w1")


@contextmanager
def collector(directory: Path) -> Iterator[None]:
    """Run a process that acknowledges what it is sent."""
    command = [sys.executable, "-m", "bench.spans_worker", "--collector", str(directory)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        process.stdout.readline()
        yield
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def collect(directory: Path) -> None:
    """Acknowledge what comes, every 50 ms, as the collector does with what it has committed."""
    router = Router(collector_endpoint(directory))
    print("ready", flush=True)
    while True:
        last: dict[bytes, int] = {}
        for identity, frame in router.receive():
            for message in to_collector.decode(frame)[1]:
                if isinstance(message, SpanBatch):
                    last[identity] = message.sequence
        for identity, sequence in last.items():
            router.send(identity, encode_frame(1, [SpanAck(sequence)]))
        time.sleep(0.05)


if __name__ == "__main__":
    main()
