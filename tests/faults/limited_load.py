"""A program with many runs at once, for tests of limits: ``python -m tests.faults.limited_load ADDRESS``.

Each line of its standard input is an order, as JSON: a list of flows, which begin now; ``"stop"``, which ends all flows and
waits for no run; or ``"finish"``, which lets the runs end that have begun, and flows of so many
runs all of them. After either of the two it writes one line: what
it saw. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

import msgspec

from headrace import Client, RunLocalResult
from headrace.errors import HeadraceError

MODEL = "gpt-4o"


class Flow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Runs of one kind. ``streams``: how many at a time, each followed by another. ``runs``: how many in all; 0: until told to stop."""

    name: str
    provider: str = "openai"
    model: str = MODEL
    key: str = "sk-flow"
    streams: int = 1
    runs: int = 0
    script: dict[str, Any] = {}
    arguments: dict[str, Any] = {}
    """Further arguments of ``run_local``."""


class SeenRun(msgspec.Struct, frozen=True, array_like=True):
    """What became of one run. ``kind``: done, or the name of an error's class. Times are ``time.monotonic()``."""

    flow: str
    began_at: float
    first_at: float | None
    ended_at: float
    kind: str
    reason: str = ""
    queue_ms: float = 0.0
    queue_reason: str = ""
    attempts: int = 0


class FlowingLoad:
    """All flows of one program."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._tasks: list[asyncio.Task[None]] = []
        self._seen: list[SeenRun] = []
        self._is_over = False
        self._number = 0

    def begin(self, flow: Flow) -> None:
        """Begin a flow."""
        share, rest = divmod(flow.runs, flow.streams)
        for number in range(flow.streams):
            left = share + (number < rest) if flow.runs else sys.maxsize
            self._tasks.append(asyncio.create_task(self._follow(flow, left)))

    async def end(self, is_patient: bool) -> list[SeenRun]:
        """End all flows; return what was seen since they began. Runs that have begun end by themselves only if patient."""
        self._is_over = True
        for task in self._tasks:
            if not is_patient:
                task.cancel()
        for outcome in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, asyncio.CancelledError):
                raise outcome
        seen, self._seen, self._tasks, self._is_over = self._seen, [], [], False
        return seen

    async def _follow(self, flow: Flow, left: int) -> None:
        while left and (flow.runs or not self._is_over):
            left -= 1
            await self._run(flow)

    async def _run(self, flow: Flow) -> None:
        self._number += 1
        began = time.monotonic()
        first: float | None = None
        stream = None
        try:
            stream = await self._client.arun_local(
                provider=flow.provider,
                model=flow.model,
                messages=[{"role": "user", "content": f"{os.getpid()} {self._number}"}],
                stream=True,
                provider_api_key=flow.key or None,
                custom_options={"simulate": flow.script},
                **flow.arguments,
            )
            async for _ in stream:
                first = first or time.monotonic()
            result: RunLocalResult = await stream.result
        except HeadraceError as error:
            self._seen.append(
                SeenRun(
                    flow.name,
                    began,
                    first,
                    time.monotonic(),
                    type(error).__name__,
                    str(error),
                    attempts=len(getattr(error, "attempts", ())),
                )
            )
        except asyncio.CancelledError:
            if stream is not None:
                stream.abort()
            raise
        else:
            self._seen.append(
                SeenRun(
                    flow.name,
                    began,
                    first,
                    time.monotonic(),
                    "done",
                    queue_ms=getattr(result, "queue_ms", 0.0),
                    queue_reason=getattr(result, "queue_reason", "") or "",
                    attempts=result.attempts,
                )
            )


async def _main(address: str) -> None:
    lines = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    with Client(address, connect_timeout=60.0) as client:
        load = FlowingLoad(client)
        while line := await lines.readline():
            order = msgspec.json.decode(line, type=list[Flow] | str)
            if isinstance(order, list):
                for flow in order:
                    load.begin(flow)
            else:
                seen = await load.end(is_patient=order == "finish")
                sys.stdout.buffer.write(msgspec.json.encode(seen) + b"\n")
                sys.stdout.buffer.flush()
        await load.end(is_patient=False)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
