"""Batch benchmark: lm-deluge's ``LLMClient``, which gets all prompts at once, with limits that never hold it back."""

from __future__ import annotations

import os
from typing import Any

from lm_deluge import LLMClient
from lm_deluge.models import register_model

from bench.batch_tools.rows import CONCURRENCY, OUTPUT, prompt_of, read_rows, write_answer


def main() -> None:
    """Run the job."""
    rows, bodies = zip(*read_rows(), strict=True)
    register_model(
        id="simulated",
        name=bodies[0]["model"],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key_env_var="OPENAI_API_KEY",
        api_spec="openai",
    )
    client = LLMClient(
        model_names="simulated",
        max_requests_per_minute=10_000_000,
        max_tokens_per_minute=1_000_000_000,
        max_concurrent_requests=CONCURRENCY,
    )
    answers: Any = client.process_prompts_sync([prompt_of(body) for body in bodies], show_progress=False)
    with OUTPUT.open("w") as output:
        for row, answer in zip(rows, answers, strict=True):
            write_answer(output, row, answer.completion or "")


if __name__ == "__main__":
    main()
