"""Batch benchmark: the official openai SDK, ``AsyncOpenAI`` under a semaphore, as people write it by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from openai import AsyncOpenAI

from bench.batch_tools.rows import CONCURRENCY, OUTPUT, read_rows, write_answer


async def main() -> None:
    """Run the job."""
    slots = asyncio.Semaphore(CONCURRENCY)
    with OUTPUT.open("w") as output:
        async with AsyncOpenAI() as client:

            async def one(row: str, body: dict[str, Any]) -> None:
                async with slots:
                    completion = await client.chat.completions.create(**body)
                write_answer(output, row, completion.choices[0].message.content or "")

            await asyncio.gather(*(one(row, body) for row, body in read_rows()))


if __name__ == "__main__":
    uvloop.run(main())
