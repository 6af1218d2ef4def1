"""What the tools of the batch benchmark share: reading the input file and writing the output file. Only the standard library."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

INPUT, OUTPUT, CONCURRENCY = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])


def read_rows() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and the body of each row of the input, in the form of OpenAI's Batch API."""
    with INPUT.open() as lines:
        for line in lines:
            row = json.loads(line)
            yield row["custom_id"], row["body"]


def prompt_of(body: dict[str, Any]) -> str:
    """Return the text of the only message of a body."""
    return str(body["messages"][0]["content"])


def write_answer(output: TextIO, row: str, text: str) -> None:
    """Write the answer to a row as one line."""
    output.write(json.dumps({"custom_id": row, "text": text}) + "\n")
