"""A program with many streams at once: ``python -m tests.faults.load PLAN``.

If it is killed, what it saw until then is kept.

Each run's prompt is its span id, and its chunks hold the end of that id, so that no run's text can pass for another's. It begins
no more runs once its standard input has ended, waits for those that run, and ends.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from random import Random
from typing import Any

import msgspec

from headrace import Client
from headrace.errors import HeadraceError
from headrace.process.history import History, open_history
from tests.faults.other_runs import run_other

MODEL = "gpt-4o"
FALLBACK = "openai/gpt-4.1"
_ATTEMPTS = 3
"""With the engine's own number of retries."""
_FAILURES: list[dict[str, Any]] = [{"status": 409}, {"status": 503}, {"reset": True}, {"cut_after": 0}]
BEYOND_A_WINDOW: dict[str, Any] = {"chunks": (70, 120), "pace": 0.02}
"""For runs that get credit more than once, in one or two seconds. The runs of the default plan end within their first window."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the program does. Ranges are (least, most), drawn for each run; durations in seconds."""

    address: str = ""
    seed: int = 0
    streams: int = 10
    """Runs at a time; each is followed by another."""
    runs: int = 0
    """Runs in all; 0 for as many as there is time for."""
    chunks: tuple[int, int] = (2, 16)
    pace: float = 0.06
    """Streams take up to a second. Faster ones would take the processors from what the test hurts."""
    first_delay: tuple[float, float] = (0.0, 0.05)
    abort_share: float = 0.0
    """The share of runs that are aborted, at a random moment."""
    pause_share: float = 0.0
    """The share of readers that pause once, for ``pause``."""
    pause: tuple[float, float] = (0.5, 4.0)
    other_share: float = 0.0
    """The share of runs that are no streams, or fail."""
    failing_share: float = 0.0
    """The share of runs whose first request fails, before the first chunk, in a way that passes."""
    fallback_share: float = 0.0
    """The share of runs that their model fails for good, and that go on to another one."""
    calm_runs: int = 0
    """So many runs of each stream come first, none of which fails: half of a few runs would open the circuit breaker."""
    connect_timeout: float = 30.0


class LoadRun(msgspec.Struct, frozen=True):
    """What is done with one run. Counts are chunks read; ``None`` for never."""

    span_id: str
    script: dict[str, object]
    abort_after: int | None
    pause_after: int | None
    pause: float
    fallbacks: list[str] = []


def choose(plan: LoadPlan, random: Random) -> LoadRun:
    """Draw one run."""
    span_id = f"sp_{random.getrandbits(64):016x}"
    count = random.randint(*plan.chunks)
    script = {
        "chunks": [f"{span_id[-4:]}-{number} " for number in range(count)],
        "pace": plan.pace,
        "first_token_delay": random.uniform(*plan.first_delay),
    }
    if random.random() < plan.failing_share:
        script["failures"] = [random.choice(_FAILURES)]
    fallbacks = [FALLBACK] if random.random() < plan.fallback_share else []
    if fallbacks:
        script["failures"] = random.choices(_FAILURES, k=_ATTEMPTS)
    abort_after = random.randrange(count) if random.random() < plan.abort_share else None
    pause_after = random.randrange(count) if random.random() < plan.pause_share else None
    return LoadRun(span_id, script, abort_after, pause_after, random.uniform(*plan.pause), fallbacks)


async def run_one(client: Client, choice: LoadRun, seen: History) -> None:
    """Read one stream, and write down what came of it."""
    span_id = choice.span_id
    seen.note("begin", span_id=span_id)
    read: list[str] = []
    try:
        stream = await client.arun_local(
            model=MODEL,
            messages=[{"role": "user", "content": span_id}],
            stream=True,
            span_id=span_id,
            custom_options={"simulate": choice.script},
            fallbacks=choice.fallbacks or None,
        )
        if choice.abort_after == 0:
            stream.abort()
        async for chunk in stream:
            if not read:
                seen.note("first", span_id=span_id)
            read.append(chunk)
            if len(read) == choice.pause_after:
                await asyncio.sleep(choice.pause)
            if len(read) == choice.abort_after:
                stream.abort()
        result = await stream.result
    except HeadraceError as error:
        kind, text, reason, attempts = (
            type(error).__name__,
            getattr(error, "partial_text", "".join(read)),
            str(error),
            0,
        )
    else:
        kind, text, reason, attempts = "aborted" if result.aborted else "done", result.text, "", result.attempts
    # Both at once: a program that is killed has seen both or neither.
    seen.note("read", span_id=span_id, text="".join(read))
    seen.note("saw", span_id=span_id, kind=kind, text=text, reason=reason, attempt=attempts)


async def follow(plan: LoadPlan, number: int, client: Client, seen: History, is_over: threading.Event) -> None:
    """One run after the other."""
    random = Random(f"{plan.seed}-{number}")
    share, rest = divmod(plan.runs, plan.streams)
    left = share + (number < rest) if plan.runs else sys.maxsize
    calm, calm_plan = plan.calm_runs, msgspec.structs.replace(plan, failing_share=0.0, fallback_share=0.0)
    while left and not is_over.is_set():
        left -= 1
        calm -= 1
        if random.random() < plan.other_share:
            await run_other(client, random, seen)
        else:
            await run_one(client, choose(plan if calm < 0 else calm_plan, random), seen)


async def main(plan: LoadPlan, seen: History, is_over: threading.Event) -> None:
    """All streams."""
    with Client(plan.address, connect_timeout=plan.connect_timeout) as client:
        await asyncio.gather(*(follow(plan, number, client, seen, is_over) for number in range(plan.streams)))


def _wait_for_the_end(is_over: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    is_over.set()


if __name__ == "__main__":
    history = open_history("caller", 0)
    assert history is not None
    over = threading.Event()
    threading.Thread(target=_wait_for_the_end, args=[over], daemon=True).start()
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=LoadPlan), history, over))
