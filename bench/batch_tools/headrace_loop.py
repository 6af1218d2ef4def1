"""Batch benchmark: a plain loop over ``arun_local`` without streaming, under a semaphore, with the embedded engine."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

import headrace
from bench.batch_tools.rows import CONCURRENCY, OUTPUT, read_rows, write_answer


async def main() -> None:
    """Run the job."""
    slots = asyncio.Semaphore(CONCURRENCY)
    client = headrace.Client()
    with OUTPUT.open("w") as output:

        async def one(row: str, body: dict[str, Any]) -> None:
            try:
                result = await client.arun_local(priority="batch", **body)
                write_answer(output, row, result.text)
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            for row, body in read_rows():
                await slots.acquire()
                group.create_task(one(row, body))
    await client.aclose()


if __name__ == "__main__":
    uvloop.run(main())
