"""Thousands of slow streams on one engine: all held at the same time, each chunk in order."""

from __future__ import annotations

import asyncio

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.engines import running_engine
from tests.e2e.slow_streams import AllOpen
from tests.repetition import long_test

STREAMS = 5000
CHUNKS = 70
"""More than the window of a stream: it cannot end before its reader reads on."""


@long_test
def test_one_worker_holds_5000_streams_at_once_with_default_settings(provider: SimulatedProvider) -> None:
    all_open = AllOpen(STREAMS)

    async def read(client: Client) -> str:
        stream = await client.arun_local(
            model="gpt-4o",
            messages=HELLO,
            stream=True,
            timeout_ms=300_000,
            provider_api_key="sk-slow-streams",
            custom_options=simulate(repeat=CHUNKS, pace=0.1),
        )
        return await all_open.read(stream)

    async def main(address: str) -> list[str]:
        async with Client(address, connect_timeout=60.0) as client:
            return await asyncio.gather(*(read(client) for _ in range(STREAMS)))

    with running_engine(provider, "--workers", "1") as address:
        texts = asyncio.run(main(address))

    assert texts == ["".join(f"{number} " for number in range(CHUNKS))] * STREAMS
