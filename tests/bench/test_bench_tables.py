"""The benchmark's tables."""

from __future__ import annotations

from bench.contestant_list import CONTESTANTS, QUICK, USUAL, named
from bench.start import StartFigures
from bench.start_table import start_rows
from bench.summary import Result, summaries
from bench.table import by_streams_rows, latency_rows, markdown, process_rows, provider_line, ratio_rows
from bench.works import USUAL_WORKS, WORKS
from tests.bench.rounds_of_works import measured

W1 = [work for work in WORKS if work.name == "W1"]
W2 = [work for work in WORKS if work.name == "W2"]
W4 = [work for work in WORKS if work.name == "W4"]


def test_a_ratio_stands_with_its_smallest_and_its_largest() -> None:
    results = []
    for number, cpu in enumerate((8.0, 10.0, 24.0)):
        results += [measured("floor", "W1", 4.0, number=number), measured("aiohttp", "W1", cpu, number=number)]

    rows = ratio_rows(["floor", "aiohttp", "httpx"], W1, summaries(results))

    assert rows == [["", "W1"], ["floor", "1.0 = 4.0 µs"], ["aiohttp", "2.5 (2.0 to 6.0)"]]
    assert ratio_rows(["aiohttp"], W1, summaries(results), absolute=True)[1] == ["aiohttp", "2.5 (2.0 to 6.0), 10.0 µs"]


def test_the_table_has_what_the_work_shows() -> None:
    results = [
        measured("floor", "W2", 1.0),
        measured("httpx", "W2", 32.0, held=350, p99=3500.0, faults=2),
        measured("httpx", "W4", 1.0, kilobytes=32.0),
    ]

    titles, row = ratio_rows(["httpx"], [*W2, *W4], summaries(results))

    assert titles == ["", "W2", "W2 chunks/s", "W2 held", "W2 p99", "W4 KB"]
    assert row == ["httpx", "32, 2 faults", "100,000", "350", "3,500 ms", "32"]


def test_a_contestant_that_failed_is_shown() -> None:
    rows = ratio_rows(["httpx"], W1, summaries([Result("httpx", "W1", fault="killed")]))

    assert rows[1] == ["httpx", "failed"]


def test_only_a_contestant_of_several_processes_has_rows_by_process() -> None:
    results = [measured("floor", "W1", 1.0), measured("headrace", "W1", {"client": 2.0, "broker": 0.5})]

    rows = process_rows(["floor", "headrace"], W1, summaries(results))

    assert rows[1:] == [["headrace", "broker", "0.5"], ["headrace", "client", "2.0"]]


def test_latencies_are_told_for_a_chunk_and_for_the_first_chunk() -> None:
    rows = latency_rows(["floor"], W2, summaries([measured("floor", "W2", 1.0, p99=30.0, first=(4.0, 100.0))]))

    assert rows == [["", "W2 chunk", "W2 first"], ["floor", "15 / 30", "4.0 / 100"]]


def test_the_cost_by_streams_has_a_column_for_each_number_that_was_measured() -> None:
    works = [work for work in WORKS if work.is_by_streams]

    rows = by_streams_rows(["floor"], works, summaries([measured("floor", "C20", 31.0)]))

    assert rows == [["streams at once", "20"], ["floor", "31.0"]]


def test_the_provider_is_told_by_its_share_of_a_core() -> None:
    assert provider_line([measured("floor", "W1", 1.0)], "W1") == "floor 50%"


def test_the_start_is_held_against_its_targets() -> None:
    figures = StartFigures(
        ready=0.25,
        first_chunk=0.6,
        memory={"client": 100.0, "workers": 30.0, "broker": 24.0},
        processor={"client": 5.0, "workers": 0.1},
        wake_ups={},
    )

    assert [row[2:] for row in start_rows(figures)[1:]] == [
        ["250 ms", "yes"],
        ["600 ms", "no"],
        ["54 MiB", "yes"],
        ["0.10 %", "yes"],
    ]


def test_markdown_has_one_line_for_each_row() -> None:
    assert (
        markdown([["", "W1"], ["headrace", "1.4"]], bold="headrace")
        == "|  | W1 |\n| --- | --- |\n| **headrace** | 1.4 |"
    )


def test_each_named_contestant_is_in_the_list() -> None:
    assert [contestant.name for contestant in named(USUAL)] == USUAL
    assert [contestant.name for contestant in named(QUICK)] == QUICK


def test_a_slow_contestant_works_in_the_first_round_alone() -> None:
    slow = next(contestant for contestant in CONTESTANTS if contestant.is_slow and contestant.counts_streams)

    assert all(slow.does(work.name, 0) for work in WORKS)
    assert not any(slow.does(work.name, 1) for work in WORKS)


def test_few_contestants_do_the_works_by_streams() -> None:
    by_streams = [work.name for work in WORKS if work.is_by_streams]
    does = {one.name for one in CONTESTANTS if any(one.does(name, 0) for name in by_streams)}

    assert does == {"floor", "headrace", "aiohttp", "openai SDK"}
    assert not set(by_streams) & set(USUAL_WORKS)
