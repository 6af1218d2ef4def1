"""The display of ``headrace batch``, with fixed figures: what it shows, and in which words."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console, RenderableType

from headrace.batch.driver.progress import BatchProgress
from headrace.batch.journal.job_records import ChosenRows, JobStatus, JobTotals
from headrace.batch.provider_batches.batch_status import ProviderBatchStatus
from headrace.cli.batch.batch_status_command import status_lines, status_object
from headrace.cli.batch.figures import duration, money, rate, share
from headrace.cli.batch.live_display import drawn, drawn_reading
from headrace.cli.batch.progress_view import JobView, batches_lines, expected_cost, plain_line
from headrace.cli.batch.summary import JobSummary, summary_lines

PROGRESS = BatchProgress(
    phase="running",
    total=100_000,
    done=63_480,
    failed=32,
    running=512,
    waiting=64,
    waiting_for="limit",
    window=576,
    rate=884.2,
    tokens_per_second=203_400,
    input_tokens=10_000_000,
    output_tokens=4_600_512,
    cost=4.13,
    rate_limited=14,
    elapsed=72,
    seconds_left=41.2,
    errors={"output_validation": 3, "rate_limit": 28, "bad_row": 1},
)


def text_of(renderable: RenderableType, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def changed(**figures: object) -> BatchProgress:
    return msgspec.structs.replace(PROGRESS, **figures)


def test_the_display_shows_all_figures_of_a_job() -> None:
    title, bar, *below = text_of(drawn("reviews.jsonl → answers.jsonl", JobView(PROGRESS))).splitlines()

    assert title == "reviews.jsonl → answers.jsonl"
    assert set(bar) == {"━", "╸"}
    assert below == [
        "63,512 of 100,000 rows, 63 %                                                         about 41 s left",
        "",
        "done      63,480   rows/s           884   cost           $4.13",
        "failed        32   tokens/s     203,400   in all   about $6.50",
        "running      512   429s              14   time      1 min 12 s",
        "waiting       64   at once    up to 576   tokens    14,600,512",
        "",
        "Failed: 28 rate_limit, 3 output_validation, 1 bad_row",
        "Held back: a limit of the provider, or of your settings (64 rows wait).",
        "Ctrl-C finishes the rows that run, and stops. The same command goes on from there.",
    ]


@pytest.mark.parametrize("width", [20, 40, 69, 70, 200])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    shown = text_of(drawn("reviews.jsonl → answers.jsonl", JobView(PROGRESS)), width)

    for figure in ("63,480", "203,400", "$4.13", "1 min 12 s", "14,600,512"):
        assert figure in shown
    assert max(map(len, shown.splitlines())) <= min(width, 100)


def test_a_name_cannot_steer_the_terminal() -> None:
    from headrace.cli.batch.live_display import LiveDisplay

    out = io.StringIO()
    with LiveDisplay(out, "a\x1b]0;title\x07b") as display:
        display.watch(lambda: JobView(PROGRESS))
        display.note("c\x1b[2Jd")

    assert "\x1b]0" not in out.getvalue()
    assert "c\\u001b[2Jd" in out.getvalue()


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"total": None}, "63,512 rows"),
        ({"seconds_left": None}, "63,512 of 100,000 rows, 63 %"),
        ({"rows_without_price": 4}, "$4.13 or more"),
        ({"cost": 0.0, "rows_without_price": 4}, "not known"),
        ({"done_before": 1000, "cached": 2}, "Not run again: 1,000 rows from an earlier start, 2 rows from the cache."),
        ({"shared": 1}, "Not run again: 1 row with the answer of an equal row."),
        ({"waiting_for": "blocked"}, "Held back: the provider asked for a pause (64 rows wait)."),
        ({"waiting_for": "breaker", "waiting": 1}, "until it works again (1 row waits)."),
        ({"waiting_for": "engine", "waiting": 0}, "Held back: no engine answers now; one row is tried now and then."),
        ({"is_held_by_reader": True}, "Held back by whoever reads the results"),
        (
            {"phase": "finishing", "stop_reason": "interrupted"},
            "Stopping: waits for 512 rows that run. Ctrl-C again stops at once",
        ),
        (
            {"phase": "finishing", "stop_reason": "max_cost"},
            "Stopping: waits for 512 rows that run. Ctrl-C stops at once",
        ),
        ({"phase": "aborting"}, "Stopping."),
        ({"done": 0, "failed": 0, "total": 0, "cost": 0.0}, "0 of 0 rows, 100 %"),
    ],
)
def test_the_display_says_what_is_special(figures: dict[str, object], words: str) -> None:
    assert words in text_of(drawn("in → out", JobView(changed(**figures))))


def test_a_job_that_the_provider_runs_shows_its_batches() -> None:
    few = [
        ProviderBatchStatus("openai", "running", 50_000, "batch_1", 9, 1),
        ProviderBatchStatus("google", "waiting", 1),
    ]
    many = [*few, *(ProviderBatchStatus("openai", "running", 1, f"resp_{number}") for number in range(9))]
    shown = text_of(drawn("in → out", JobView(PROGRESS, few)))

    assert "openai batch_1: running, 10 of 50,000 rows ended\ngoogle batch: waiting, 0 of 1 row ended\n" in shown
    assert "Ctrl-C leaves the rows with the provider, which goes on." in shown
    assert plain_line(JobView(PROGRESS, many)).endswith(
        "google: 1 batch waiting, 0 of 1 row ended; openai: 10 batches running, 10 of 50,009 rows ended"
    )


def test_the_status_is_about_the_rows_that_were_chosen() -> None:
    totals = JobTotals(rows=20_000, done=1_010, failed=2)
    status = JobStatus(directory="job", results="out", errors_file="bad", totals=totals)
    chosen = msgspec.structs.replace(status, chosen=ChosenRows(limit=6_000, rows=6_000, others_ended=12))

    assert "  1,012 of 20,000 rows ended, 5 %; 18,988 left" in [*status_lines(status, [], 0.0)]
    assert [*status_lines(chosen, [], 0.0)][1:3] == [
        "  1,000 of 6,000 rows ended, 16 %; 5,000 left",
        "  6,000 of 20,000 rows chosen by --limit; 12 of the others ended before",
    ]
    assert status_object(chosen, [])["waiting"] == 5_000


def test_the_cost_that_is_expected_is_about_a_figure_or_less_than_one() -> None:
    assert expected_cost(changed(total=63_512, cost=0.5)) == "about $0.50"
    assert expected_cost(changed(total=63_512, cost=0.000001)) == "less than $0.0001"


def test_responses_in_the_background_are_not_called_batches() -> None:
    running = [ProviderBatchStatus("openai", "running", 1, f"resp_{number}", is_background=True) for number in range(9)]

    assert batches_lines(running) == ["openai: 9 background responses running"]
    assert batches_lines(running[:1]) == ["openai resp_0: running"]


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({"timeout": 1}, "--retry-failed runs these rows again"),
        ({"bad_row": 1}, "correct this line, and --changed runs it"),
        ({"bad_row": 2}, "correct these lines, and --changed runs them"),
        (
            {"bad_row": 1, "timeout": 1},
            "--retry-failed runs these rows again; correct the lines with bad_row, and --changed runs them",
        ),
    ],
)
def test_the_summary_says_what_helps_the_rows_that_failed(errors: dict[str, int], words: str) -> None:
    summary = JobSummary(
        progress=PROGRESS,
        errors=errors,
        examples={},
        results="out",
        errors_file="bad",
        directory="job",
        session_id="s",
    )
    assert f"Errors: bad; {words}" in [line.text for line in summary_lines(summary)]


def test_while_the_input_is_read_the_display_counts_rows() -> None:
    assert text_of(drawn_reading("in → out", 1)).splitlines() == ["in → out", "Reading the input: 1 row"]


def test_a_pipe_gets_the_figures_on_one_line() -> None:
    assert plain_line(JobView(PROGRESS)) == (
        "63,512 of 100,000 rows, 63 %; 32 failed; 884 rows/s; 203,400 tokens/s; cost $4.13; 512 running; "
        "64 waiting (a limit of the provider, or of your settings); 14 times 429; about 41 s left"
    )
    calm = changed(failed=0, errors={}, waiting=0, waiting_for="", rate_limited=0, seconds_left=None)
    assert (
        plain_line(JobView(calm))
        == "63,480 of 100,000 rows, 63 %; 884 rows/s; 203,400 tokens/s; cost $4.13; 512 running"
    )


def test_figures_are_short_and_never_promise_too_much() -> None:
    assert [rate(each) for each in (0, 0.04, 3.44, 9.94, 10, 1234.5)] == [
        "0",
        "less than 0.1",
        "3.4",
        "9.9",
        "10",
        "1,234",
    ]
    assert [share(each, 100_000) for each in (0, 999, 99_999, 100_000)] == ["0 %", "0 %", "99 %", "100 %"]
    assert [money(each) for each in (0, 0.00001, 0.00012, 0.004, 0.014, 1234.567)] == [
        "$0",
        "less than $0.0001",
        "$0.0001",
        "$0.0040",
        "$0.01",
        "$1,234.57",
    ]
    assert [duration(each) for each in (0.94, 59.9, 61, 3600, 90_000)] == [
        "0.9 s",
        "59 s",
        "1 min 1 s",
        "1 h 0 min",
        "1 d 1 h",
    ]
