"""What all contestants share.

The protocol with ``bench/run_bench.py``, the lanes that make a work's requests, and the check of the answers.

A contestant is a program whose argument is a Work as JSON. It warms up, prints ``warm`` and waits for a line; does the work, prints
``done`` and waits for a line; prints its Reading. Between the two lines it does nothing but the work and notes what it received. A
contestant that does a part of its work later, as Headrace stores spans, waits for this part before each of the two words.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from time import monotonic
from typing import Protocol, TypeVar

import msgspec
import uvloop

from bench.works import CURVE_SHARES, STAMP_LENGTH, Reading, Work

BASE_URL = os.environ.get("OPENAI_BASE_URL", "")
API_KEY = os.environ.get("OPENAI_API_KEY", "")


class TimedAnswer:
    """One answer as it came: its texts and when."""

    __slots__ = ("fault", "is_complete", "started", "texts", "times")

    def __init__(self) -> None:
        self.started = 0.0
        self.texts: list[str] = []
        self.times: list[float] = []
        self.is_complete = False
        self.fault = ""

    def add(self, text: str) -> None:
        """Note a piece of text."""
        self.texts.append(text)
        self.times.append(monotonic())


class AsyncContestant(Protocol):
    """A client in one event loop."""

    async def answer(self, work: Work, received: TimedAnswer) -> None:
        """Make one request, and note what comes until its end."""

    async def aclose(self) -> None:
        """Close all open connections."""


Made = TypeVar("Made", bound=AsyncContestant)


def run_async(make: Callable[[], Made], settle: Callable[[Made], Awaitable[None]] | None = None) -> None:
    """Be a contestant that is a client in a uvloop event loop. ``settle`` waits for what the contestant does later."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        contestant = runner.run(_made(make))

        async def settled() -> None:
            if settle is not None:
                await settle(contestant)

        _converse(lambda work: runner.run(_answers(contestant, work)), lambda: runner.run(settled()))
        runner.run(contestant.aclose())


def run_threads(answer: Callable[[Work, TimedAnswer], None], settle: Callable[[], object]) -> None:
    """Be a contestant that blocks, in a thread per request under way. ``settle`` waits for what the contestant does later."""
    _converse(lambda work: _thread_answers(answer, work), settle)


async def _made(make: Callable[[], Made]) -> Made:
    return make()


def _converse(do: Callable[[Work], list[TimedAnswer]], settle: Callable[[], object]) -> None:
    work = msgspec.json.decode(sys.argv[1], type=Work)
    warm_up = work.warm_up()
    if faults := _faults(warm_up, do(warm_up)):
        raise SystemExit(f"warm-up: {faults[0]}")
    settle()
    gc.collect()
    say("warm")
    started = monotonic()
    answers = do(work)
    seconds = monotonic() - started
    if not work.stays_open:
        settle()
    say("done")
    print(msgspec.json.encode(_reading(work, answers, seconds)).decode(), flush=True)


def say(word: str) -> None:
    """Tell the benchmark where the contestant is, and wait until it has measured."""
    print(word, flush=True)
    sys.stdin.readline()


async def _answers(contestant: AsyncContestant, work: Work) -> list[TimedAnswer]:
    answers = [TimedAnswer() for _ in range(work.requests)]
    waiting = iter(answers)

    async def lane() -> None:
        for received in waiting:
            received.started = monotonic()
            try:
                await contestant.answer(work, received)
                received.is_complete = True
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the contestant's and goes into the table
                received.fault = f"{type(error).__name__}: {error}"

    lanes = [asyncio.create_task(lane()) for _ in range(work.at_once)]
    if work.stays_open:
        await _wait_for_chunks(work, answers)
        return answers  # with the lanes waiting for more: the loop does not run while memory is measured
    _, late = await asyncio.wait(lanes, timeout=work.limit)
    for task in late:
        task.cancel()
    return answers


async def _wait_for_chunks(work: Work, answers: list[TimedAnswer]) -> None:
    deadline = monotonic() + work.limit
    # Costs no contestant anything: CPU is not what W4 measures.
    while monotonic() < deadline and any(  # noqa: ASYNC110
        len(answer.texts) < work.chunks and not answer.fault for answer in answers
    ):
        await asyncio.sleep(0.01)
    for answer in answers:
        answer.is_complete = len(answer.texts) == work.chunks


def _thread_answers(answer: Callable[[Work, TimedAnswer], None], work: Work) -> list[TimedAnswer]:
    answers = [TimedAnswer() for _ in range(work.requests)]
    waiting = iter(answers)

    def lane(waiting: Iterator[TimedAnswer]) -> None:
        for received in waiting:  # a list's iterator is safe with threads
            received.started = monotonic()
            try:
                answer(work, received)
                received.is_complete = True
            except Exception as error:  # noqa: BLE001 - as above
                received.fault = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=lane, args=(waiting,)) for _ in range(work.at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# After the work: none of this is measured.


def _reading(work: Work, answers: list[TimedAnswer], seconds: float) -> Reading:
    latency = _latency(answers) if work.is_stamped else []
    first = sorted(1000 * (answer.times[0] - answer.started) for answer in answers if answer.times)
    faults = _faults(work, answers)
    return Reading(
        seconds=seconds,
        chunks=sum(_chunks(work, answer) for answer in answers),
        deltas=sum(len(answer.texts) for answer in answers),
        complete=sum(answer.is_complete for answer in answers),
        held=_held(work, answers),
        first=[quantile(first, 0.5), quantile(first, 0.99)],
        latency=[quantile(latency, 0.5), quantile(latency, 0.99)],
        latency_curve=[quantile(latency, share) for share in CURVE_SHARES] if latency else [],
        faults=len(faults),
        fault=faults[0] if faults else "",
    )


def _faults(work: Work, answers: list[TimedAnswer]) -> list[str]:
    wrong = (answer.fault or (work.fault(answer.texts) if answer.is_complete else None) for answer in answers)
    return [fault for fault in wrong if fault]


def _chunks(work: Work, answer: TimedAnswer) -> int:
    """Return how many of the provider's chunks the texts hold."""
    text = "".join(answer.texts)
    return len(text) // STAMP_LENGTH if work.is_stamped else text.count(" ")


def _latency(answers: list[TimedAnswer]) -> list[float]:
    return sorted(
        1000 * time - int(stamp) / 1000
        for answer in answers
        for text, time in zip(answer.texts, answer.times, strict=True)
        for stamp in text.split()
    )


def _held(work: Work, answers: list[TimedAnswer]) -> int:
    """Return how many answers were between their first and their last chunk at the same time."""
    if work.stays_open:
        return sum(answer.is_complete for answer in answers)
    begun = [answer for answer in answers if answer.times]
    turns = sorted([(answer.times[0], 1) for answer in begun] + [(answer.times[-1], -1) for answer in begun])
    peak = now = 0
    for _, change in turns:
        now += change
        peak = max(peak, now)
    return peak


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the sorted values lie; 0 where there are none."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else 0.0
