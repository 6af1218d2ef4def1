"""``python -m tests.simulation``: runs schedules until one breaks a promise.

The exit code says whether all were kept.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.simulation.guards import GUARDS, IO_GUARDS, without
from tests.simulation.schedule_search import explain, search_in_parallel, simulating

_TOLD_EACH = 10_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/simulate", description=__doc__)
    parser.add_argument("--schedules", type=int, default=10_000, help="how many, one for each seed (10000)")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; else it is random, and printed")
    parser.add_argument("--processes", type=int, default=0, help="how many to use (one for each core)")
    parser.add_argument("--guard", choices=[*GUARDS, *IO_GUARDS], help="switches this guard of the product off")
    parser.add_argument(
        "--trace", action="store_true", help="tells what happens in the first schedule, and nothing else"
    )
    parser.add_argument("--io-thread", action="store_true", help="hurts the client's I/O thread too")
    arguments = parser.parse_args()
    seed = random.SystemRandom().getrandbits(31) if arguments.seed is None else arguments.seed
    if arguments.trace:
        return _explain(seed, arguments.guard, hurts_io=arguments.io_thread)
    print(f"{arguments.schedules} schedules from seed {seed}", flush=True)
    hurts_io: bool = arguments.io_thread
    report = search_in_parallel(
        seed, arguments.schedules, arguments.processes, arguments.guard, _tell, hurts_io=hurts_io
    )
    print(report.line(), flush=True)
    if report.finding is None:
        return 0
    _explain(report.finding.seed, arguments.guard, hurts_io=hurts_io)
    return 1


def _tell(done: int) -> None:
    if done % _TOLD_EACH == 0:
        print(f"{done} done", file=sys.stderr, flush=True)


def _explain(seed: int, guard: str | None, *, hurts_io: bool) -> int:
    with without(guard), simulating():
        print("\n".join(explain(seed, guard, hurts_io=hurts_io)))
    return 0


sys.exit(main())
