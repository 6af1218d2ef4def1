"""``headrace batch --dry-run``: counts and checks rows, estimates tokens and cost, sends nothing, in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from headrace.cli.batch.dry_run_report import DryRun, report_lines
from headrace.cli.shared.exit_codes import ExitCode
from headrace.pricing.prices import Price, PriceTable
from tests.cli.batch.conftest import Batch, openai_row
from tests.repetition import repeated

PRICES = PriceTable({"model": Price(input=1.0, output=2.0), "vectors": Price(input=1.0)})
MEASURED = """
import re, sys
from headrace.cli.main import main
code = main(["batch", *sys.argv[1:]])
most = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
print(int(most) // 1024, file=sys.stderr)
sys.exit(code)
"""


def texts(report: DryRun) -> list[str]:
    return [line.text for line in report_lines(report)]


def test_the_cost_is_told_as_far_as_it_is_known() -> None:
    report = DryRun(PRICES)
    for _ in range(1000):
        report.note(("openai", "model"), 2000, None, embeds=False)
        report.note(("openai", "vectors"), 500, None, embeds=True)
        report.note(("local", "unknown"), 10, 5, embeds=False)

    head, unknown, model, vectors, end = texts(report)

    assert head == "3,000 rows can run"
    assert unknown == "  local/unknown: 1,000 rows, about 10,000 tokens of prompts; its price is not known"
    assert model == (
        "  openai/model: 1,000 rows, about 2,000,000 tokens of prompts for $2.00; answers of 1,000 tokens each would cost $2.00 more"
    )
    assert vectors == "  openai/vectors: 1,000 rows, about 500,000 tokens of prompts for $0.50"
    assert end.startswith("Nothing was sent.")


def test_the_most_is_told_if_each_answer_has_one_and_a_batch_of_the_provider_costs_less() -> None:
    report = DryRun(PRICES, price_share=0.5)
    report.note(("openai", "model"), 1_000_000, 1_000_000, embeds=False)

    assert texts(report)[1] == (
        "  openai/model: 1 row, about 1,000,000 tokens of prompts for $0.50; answers of at most 1,000,000 tokens for $1.00; "
        "$1.50 in all at most"
    )


@pytest.mark.slow
def test_a_dry_run_checks_rows_as_a_run_would_and_sends_nothing(batch: Batch) -> None:
    wrong = openai_row(3)
    wrong["body"]["temperature"] = "hot"
    batch.write("in.jsonl", [openai_row(1), "no JSON", wrong, openai_row(4)])

    done = batch.run("in.jsonl", "--dry-run")
    found = json.loads(batch.run("in.jsonl", "--dry-run", "--json", "--limit", "1").stdout)

    assert done.returncode == ExitCode.ROWS_FAILED
    assert done.stdout.startswith("2 of 4 rows can run, 2 cannot:\n  line 2 (line-2): ")
    assert "  line 3 (row 3): temperature: takes " in done.stdout
    assert "openai/gpt-4o-mini: 2 rows, about " in done.stdout
    assert (found["rows"], found["bad"], found["models"][0]["rows"]) == (1, 0, 1)
    assert batch.provider.requests() == []
    assert [path.name for path in batch.directory.iterdir()] == ["in.jsonl"]


@pytest.mark.slow
@pytest.mark.timeout(repeated(60, 300))
def test_memory_does_not_grow_with_the_rows(own_engine: Batch) -> None:
    batch = own_engine
    few, many = 1_000, repeated(50_000, 1_000_000)

    def lines(count: int) -> Iterator[str]:
        line = json.dumps(openai_row(0))
        return (line.replace("row 0", f"row {number}") for number in range(count))

    used: list[int] = []
    for count in (few, many):
        batch.write("in.jsonl", lines(count))
        done = subprocess.run(
            [sys.executable, "-c", MEASURED, "in.jsonl", "--dry-run", "--quiet"],
            capture_output=True,
            text=True,
            check=True,
            cwd=batch.directory,
            env=batch.commands.environment,
        )
        assert done.stdout.startswith(f"{count:,} rows can run\n")
        used.append(int(done.stderr))

    print(f"{few:,} and {many:,} rows: {used} MiB")
    assert used[1] - used[0] < 40
