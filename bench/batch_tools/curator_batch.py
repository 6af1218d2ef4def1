"""Batch benchmark: Bespoke Curator's ``LLM``, with limits that never hold it back. Runs in an environment of its own."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

# Curator counts tokens with an encoding that it would fetch from the network. Litellm, which it brings along, has a copy.
_litellm = importlib.util.find_spec("litellm")
assert _litellm is not None
assert _litellm.origin is not None
os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(_litellm.origin).parent / "litellm_core_utils" / "tokenizers")

from bespokelabs import curator  # pyright: ignore[reportMissingImports] # noqa: E402 - after the encoding's place is set

from bench.batch_tools.rows import CONCURRENCY, OUTPUT, prompt_of, read_rows, write_answer  # noqa: E402


class SimulatedAnswers(curator.LLM):  # type: ignore[misc] # it is not in the project's environment
    """Asks the prompt of each row."""

    def prompt(self, row: dict[str, Any]) -> str:
        """Return the prompt of a row."""
        return str(row["prompt"])

    def parse(self, row: dict[str, Any], answer: str) -> dict[str, str]:
        """Return the record of a row."""
        return {"row": row["row"], "text": answer}


def main() -> None:
    """Run the job."""
    rows = [{"row": row, "prompt": prompt_of(body), "model": body["model"]} for row, body in read_rows()]
    limits = {
        "base_url": os.environ["OPENAI_BASE_URL"],
        "api_key": os.environ["OPENAI_API_KEY"],
        "max_requests_per_minute": 10_000_000,
        "max_tokens_per_minute": 1_000_000_000,
        "max_concurrent_requests": CONCURRENCY,
    }
    model = SimulatedAnswers(model_name=rows[0]["model"], backend="openai", backend_params=limits)
    with tempfile.TemporaryDirectory() as cache:
        answers = model(rows, working_dir=cache)
        with OUTPUT.open("w") as output:
            for answer in answers.dataset:
                write_answer(output, answer["row"], answer["text"])


if __name__ == "__main__":
    main()
