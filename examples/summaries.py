"""Summarises 30 texts in parallel, and prints each summary as soon as it is there.

python examples/summaries.py [MODEL]
"""

from __future__ import annotations

import asyncio
import sys

from headrace import Client, HeadraceError

TEXTS = [f"Report {number}: the river rose by {number} cm, and the mill ran all day." for number in range(1, 31)]


async def summarise(client: Client, model: str, text: str) -> int:
    """Print the summary of one text. Return its tokens, or 0 if the run failed."""
    try:
        result = await client.arun_local(
            model=model,
            messages=[
                {"role": "system", "content": "Summarise the text in one short sentence."},
                {"role": "user", "content": text},
            ],
            max_output_tokens=200,
            tags=["summaries"],
        )
    except HeadraceError as error:
        print(f"failed: {error}", file=sys.stderr)
        return 0
    print(f"{result.latency_ms:6.0f} ms  {result.text}")
    return result.usage.total_tokens


async def main(model: str = "gpt-4o") -> int:
    """Start all runs at once: the engine spreads them over its workers. Return how many failed."""
    async with Client() as client, asyncio.TaskGroup() as group:
        runs = [group.create_task(summarise(client, model, text)) for text in TEXTS]
    tokens = [run.result() for run in runs]
    failed = tokens.count(0)
    print(f"{len(TEXTS) - failed} summaries, {sum(tokens)} tokens, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(min(asyncio.run(main(*sys.argv[1:])), 1))
