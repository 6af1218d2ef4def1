"""Summarises 30 texts in parallel, and prints each summary as soon as it is there.

python examples/summaries.py [MODEL]
"""

from __future__ import annotations

import asyncio
import sys

from headrace import Client, HeadraceError, RunLocalResult

TEXTS = [f"Report {number}: the river rose by {number} cm, and the mill ran all day." for number in range(1, 31)]


async def summarise(client: Client, model: str, text: str) -> RunLocalResult:
    """Return the summary of one text."""
    return await client.arun_local(
        model=model,
        messages=[
            {"role": "system", "content": "Summarise the text in one short sentence."},
            {"role": "user", "content": text},
        ],
        max_output_tokens=200,
        tags=["summaries"],
    )


async def main(model: str = "gpt-4o") -> None:
    """Start all runs at once. The engine spreads them over its workers."""
    tokens = failed = 0
    async with Client() as client:
        for run in asyncio.as_completed([summarise(client, model, text) for text in TEXTS]):
            try:
                result = await run
            except HeadraceError as error:
                failed += 1
                print(f"failed: {error}", file=sys.stderr)
            else:
                tokens += result.usage.total_tokens
                print(f"{result.latency_ms:6.0f} ms  {result.text}")
    print(f"{len(TEXTS) - failed} summaries, {tokens} tokens, {failed} failed")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
