"""Many streams at once: held, in order, complete, checked against the simulated provider's log."""

from __future__ import annotations

import asyncio
import time

import pytest

from headrace import Client
from headrace.testing import SimulatedProvider
from tests.conftest import HELLO, simulate
from tests.e2e.slow_streams import AllOpen
from tests.waiting import busyness

STREAMS = 500
CHUNKS = 200
PACE = 0.02


@pytest.mark.slow
def test_500_streams_of_50_chunks_a_second_arrive_whole_and_in_order(
    client: Client, provider: SimulatedProvider
) -> None:
    """Each reader stops at its first chunk until all have one: a stream longer than its window cannot end before."""
    all_open = AllOpen(STREAMS)

    async def read(number: int) -> str:
        stream = await client.arun_local(
            model="gpt-4o",
            messages=HELLO,
            stream=True,
            user_id=str(number),
            provider_api_key="sk-scale",  # no failure of another test holds up these runs
            custom_options=simulate(repeat=CHUNKS, pace=PACE),
        )
        text = await all_open.read(stream)
        result = await stream.result
        assert result.text == text
        assert result.finish_reason == "stop"
        return result.text

    async def main() -> list[str]:
        return await asyncio.gather(*(read(number) for number in range(STREAMS)))

    started_at = time.monotonic()
    texts = asyncio.run(main())
    took = time.monotonic() - started_at

    expected = "".join(f"{number} " for number in range(CHUNKS))
    assert texts == [expected] * STREAMS
    records = provider.wait_until(lambda records: all(record.outcome == "complete" for record in records))
    assert len(records) == STREAMS
    assert all(record.sent_text == expected for record in records)
    print(f"{STREAMS * CHUNKS / took:,.0f} chunks/s of {STREAMS / PACE:,.0f} asked for")
    # Alone the pace would take 4 s; the bound leaves room for a machine that is busy with other things.
    assert took < 30 * busyness()
