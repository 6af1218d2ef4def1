"""The arguments of ``headrace batch``, as the command line declares them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import get_args

from headrace.batch.driver.options import DEFAULT_CONCURRENCY, BackgroundWindow
from headrace.batch.rows.row_options import InputFormat
from headrace.cli.shared.option_types import count, json_field, number, positive_count, timeout

_EXAMPLES = """\
examples:
  headrace batch requests.jsonl -o results.jsonl
  headrace batch reviews.csv -o answers.jsonl --model gpt-4o-mini --prompt 'Is this review friendly? {review}'
  headrace batch reviews.csv -o answers.jsonl --model gpt-4o-mini --prompt '...' --dry-run
  headrace batch requests.jsonl -o - --ordered | jq .response.body
  zcat rows.jsonl.gz | headrace batch - -o - --job rows.job > results.jsonl
  headrace batch status answers.jsonl

Stop a job as you like, or let it be killed: the same command goes on, and no finished row is sent again.

exit codes: 0 all rows done, 7 some rows failed, 8 stopped at --max-cost, 130 stopped by Ctrl-C, 2 refused: see the text,
5 another process runs this job
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = _EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "input",
        metavar="IN",
        help="the rows: a .jsonl, .csv, .tsv, .parquet or .txt file, also as .gz or .zst; - reads standard input",
    )
    parser.add_argument(
        "--output",
        "-o",
        metavar="OUT",
        help="the results, one JSON line for each row; .gz and .zst are compressed; - writes to standard output",
    )
    _add_row_arguments(parser.add_argument_group("rows"))
    _add_output_arguments(parser.add_argument_group("restart and output"))
    _add_run_arguments(parser.add_argument_group("speed and cost"))


def _add_row_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--model", "-m", help="the model of rows that name none, such as gpt-4o or provider/model")
    group.add_argument(
        "--provider", metavar="NAME", help="the provider of all rows, if the models' names do not tell it"
    )
    group.add_argument(
        "--prompt",
        metavar="TEMPLATE",
        help="the prompt of each row, with the names of columns in braces, such as 'Summarise: {text}'",
    )
    group.add_argument("--embed", metavar="COLUMN", help="embed the texts of this column, instead of a prompt")
    group.add_argument("--system", "-s", metavar="TEXT", help="the system message of rows that have none")
    group.add_argument("--temperature", type=float, metavar="NUMBER", help="of rows that have none; 0 to 2")
    group.add_argument("--max-output-tokens", type=positive_count, metavar="N", help="of rows that have none")
    group.add_argument(
        "--option",
        type=json_field,
        action="append",
        default=[],
        metavar="KEY=JSON",
        help="a field to add to each request of rows without options of their own; may be repeated",
    )
    group.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="a JSON schema: each answer is an object that fits it; an answer that does not fit is asked for again",
    )
    group.add_argument(
        "--input-format", choices=get_args(InputFormat), help="how IN is written; default: by the ending of its name"
    )
    group.add_argument("--limit", type=positive_count, metavar="N", help="run only the first N rows")
    group.add_argument(
        "--sample", type=positive_count, metavar="N", help="run only N rows, drawn at random: the same ones each time"
    )


def _add_output_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--ordered", action="store_true", help="write the results in the order of the rows")
    group.add_argument(
        "--errors", type=Path, metavar="FILE", help="where rows that fail go; default: out.errors.jsonl for out.jsonl"
    )
    group.add_argument(
        "--job", type=Path, metavar="DIR", help="the journal of a job that writes to standard output; default: IN.job"
    )
    group.add_argument("--retry-failed", action="store_true", help="run the rows again that failed before")
    group.add_argument(
        "--changed", action="store_true", help="if IN or the options have changed, run the rows that are different now"
    )
    group.add_argument("--force", action="store_true", help="begin anew: forget all results of this job")
    group.add_argument("--quiet", "-q", action="store_true", help="show no progress, only errors")
    group.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")


def _add_run_arguments(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--concurrency",
        type=positive_count,
        default=DEFAULT_CONCURRENCY,
        metavar="N",
        help="the most rows at once; the job itself finds how many are useful; default: %(default)s",
    )
    group.add_argument(
        "--max-retries", type=count, default=5, metavar="N", help="retries of each row; default: %(default)s"
    )
    group.add_argument(
        "--timeout", type=timeout, metavar="SECONDS", help="the longest time of a row; default: as in the settings"
    )
    group.add_argument(
        "--max-cost", type=_dollars, metavar="USD", help="start no more rows if the job would cost more than this"
    )
    group.add_argument(
        "--via-provider",
        action="store_true",
        help="send the rows to the provider's own batch API: half the price, within a day; OpenAI, Anthropic, Google",
    )
    group.add_argument(
        "--background",
        choices=get_args(BackgroundWindow),
        help="have OpenAI run each row in the background, within 2 or 8 hours: 30 or 40 %% cheaper",
    )
    group.add_argument(
        "--cancel",
        action="store_true",
        help="run nothing: cancel what an earlier start has left with the provider; what is done is kept",
    )
    group.add_argument("--dedupe", action="store_true", help="ask only once for rows that are equal but for their id")
    group.add_argument(
        "--cache",
        nargs="?",
        type=Path,
        const=Path(),
        metavar="FILE",
        help="keep answers in FILE, and take those that are in it; without FILE: a file of this user for all jobs",
    )
    group.add_argument(
        "--engine", metavar="ADDRESS", help="the engine; default: $HEADRACE_ENGINE, else an engine for this job only"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="send nothing: check and count the rows, estimate tokens and cost"
    )


def _dollars(text: str) -> float:
    dollars = number(text)
    if not 0 < dollars < math.inf:
        raise argparse.ArgumentTypeError("takes US dollars, more than 0")
    return dollars
