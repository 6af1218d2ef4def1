"""The tables and plots of the documentation are those of the run that the pages name."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.kept_results import KeptResults, Machine, encoded, load
from bench.plots import plots
from bench.publish import IMAGES, PAGES, TABLES, files_named, filled
from tests.bench.rounds_of_works import measured

ROOT = Path(__file__).parent.parent.parent
MACHINE = Machine(processor="Some CPU", cores=2, kernel="Linux 6", python="3.11.7", load=0.1)
KEPT = KeptResults(
    commit="0123456789",
    date="2026-11-29",
    machine=MACHINE,
    versions={"aiohttp": "3.14.5"},
    rounds=3,
    seconds=100.0,
    results=[measured("floor", "W1", 4.0), measured("headrace", "W1", 5.8765432)],
)


def test_the_pages_have_what_the_kept_run_gives() -> None:
    for page in PAGES:
        text = page.read_text("utf-8")
        assert files_named(text), f"{page.name} names no kept run"
        for file in files_named(text):
            assert filled(text, load(ROOT / file)) == text, f"run python -m bench.publish {file}"


def test_the_plots_are_those_of_the_kept_run() -> None:
    (file,) = {file for page in PAGES for file in files_named(page.read_text("utf-8"))}
    images = plots(load(ROOT / file).results)

    assert images
    for name, image in images.items():
        assert (IMAGES / name).read_text("utf-8") == image, f"run python -m bench.publish {file}"


def test_a_table_is_replaced_between_its_comments() -> None:
    page = "before\n<!-- bench: ratios of bench/results/a.json -->\nold\n<!-- bench: end -->\nafter\n"

    new = filled(page, KEPT, "bench/results/b.json")

    assert new.startswith("before\n<!-- bench: ratios of bench/results/b.json -->\n|  | W1 |\n")
    assert new.endswith("| **headrace** | 1.5 |\n<!-- bench: end -->\nafter\n")
    assert "old" not in new
    assert filled(new, KEPT) == new


@pytest.mark.parametrize("table", TABLES)
def test_each_table_can_be_made(table: str) -> None:
    assert TABLES[table](KEPT).strip()


def test_a_table_that_nobody_makes_is_an_error() -> None:
    with pytest.raises(ValueError, match="no table is named 'odd'"):
        filled("<!-- bench: odd of bench/results/a.json -->\n<!-- bench: end -->", KEPT)


def test_a_run_is_kept_with_four_digits_and_a_result_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(encoded(KEPT))

    kept = load(path)

    assert kept.machine == MACHINE
    assert kept.results[1].cpu == {"client": 5.877}
    assert len([line for line in path.read_text().splitlines() if '"contestant"' in line]) == 2
    assert encoded(kept) == encoded(KEPT)
