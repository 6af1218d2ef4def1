"""The engine's promises in virtual time, under seeded faults; and that whoever breaks one is found out.

``scripts/simulate`` runs more of the same. A failure prints its seed, its faults, and the command that shows it again.
"""

from __future__ import annotations

import pytest

from tests.repetition import long_test, only_long, repeated
from tests.simulation.guards import GUARDS, IO_GUARDS, without
from tests.simulation.plans import BYTE_SEEDS
from tests.simulation.schedule_search import Finding, explain, run_one, search, simulating

MANY_SEED = 5_000_000
FIRST_SEED = 1
SCHEDULES = repeated(200, 700)
IO_SCHEDULES = repeated(100, 300)
BYTE_SCHEDULES = repeated(20, 500)
GUARD_SEED = 100_000
IO_GUARD_SEED = 100_600
FIRST_SEEDS: dict[str, int] = repeated(
    {
        "epoch-fence": 100_070,
        "newer-connection": 100_470,
        "suspect": 100_110,
        "frozen": 100_130,
        "reader-pause": 100_060,
        "given-up-before-submission": 100_665,
    },
    {},
)
"""First seeds for guards that few schedules need: from these seeds on, the search finds a violation early."""


def check(seeds: range, *, hurts_io: bool = False) -> None:
    with simulating():
        finding = search(seeds, hurts_io=hurts_io)
        assert finding is None, "\n".join(explain(finding.seed, hurts_io=hurts_io))


@pytest.mark.timeout(300)
@pytest.mark.tries(SCHEDULES)
def test_no_schedule_breaks_a_promise() -> None:
    check(range(FIRST_SEED, FIRST_SEED + SCHEDULES))


@pytest.mark.timeout(300)
@pytest.mark.tries(IO_SCHEDULES)
def test_no_run_outlives_its_bound_whatever_becomes_of_the_io_thread() -> None:
    check(range(FIRST_SEED, FIRST_SEED + IO_SCHEDULES), hurts_io=True)


@pytest.mark.timeout(300)
@pytest.mark.tries(BYTE_SCHEDULES)
@pytest.mark.parametrize("hurts_io", [False, *only_long(True)])
def test_no_schedule_breaks_a_promise_where_sockets_carry_bytes_in_pieces(hurts_io: bool) -> None:
    check(range(BYTE_SEEDS, BYTE_SEEDS + BYTE_SCHEDULES), hurts_io=hurts_io)


@long_test
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_run_of_a_thousand_schedules_outlives_its_bound_whatever_becomes_of_the_io_thread() -> None:
    check(range(MANY_SEED, MANY_SEED + 1000), hurts_io=True)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", list(IO_GUARDS))
def test_a_guard_against_a_hurt_io_thread_that_is_switched_off_is_missed(guard: str) -> None:
    first = FIRST_SEEDS.get(guard, IO_GUARD_SEED)
    with without(guard), simulating():
        finding = search(range(first, first + 3000), hurts_io=True)

    check_finding(guard, finding, first)


@long_test
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_schedule_of_many_breaks_a_promise() -> None:
    # The same ones each time: `scripts/simulate` looks for new ones, and what it finds has a test of its own afterwards.
    check(range(MANY_SEED, MANY_SEED + 5_800))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("guard", list(GUARDS))
def test_a_guard_that_is_switched_off_is_missed_within_a_thousand_schedules(guard: str) -> None:
    first = FIRST_SEEDS.get(guard, GUARD_SEED)
    with without(guard), simulating():
        finding = search(range(first, first + 1000))

    check_finding(guard, finding, first)


def check_finding(guard: str, finding: Finding | None, first_seed: int) -> None:
    assert finding is not None
    print(f"{guard}: schedule {finding.seed - first_seed + 1}: {finding.what}")
    assert not finding.what.startswith("TypeError"), "what replaces the guard has not the arguments of the guard"


def test_a_seed_stands_for_one_schedule() -> None:
    with simulating():
        first = explain(FIRST_SEED)
        assert explain(FIRST_SEED) == first


@pytest.mark.timeout(300)
def test_what_is_found_is_found_again() -> None:
    with without("credit"), simulating():
        finding = search(range(GUARD_SEED, GUARD_SEED + 1000))
        assert finding is not None
        assert run_one(finding.seed) == Finding(finding.seed, finding.what)
        assert f"--seed {finding.seed} --guard credit" in explain(finding.seed, "credit")[-1]
