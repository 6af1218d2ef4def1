"""``python -m tests.fuzz [SECONDS]``: fuzzes each target for that long.

The exit code says whether all promises held.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from types import FrameType

from tests.fuzz import size
from tests.fuzz.fuzz_runner import FuzzError, HangError, fuzz, replay
from tests.fuzz.targets import TARGETS
from tests.workers.corpus import WIRE

_FAILED = 1
_FOLDER = Path(tempfile.gettempdir()) / "headrace-fuzz"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be given again")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run; else it is random, and printed")
    parser.add_argument("--keep", type=Path, default=_FOLDER, help=f"folder for inputs that fail ({_FOLDER})")
    parser.add_argument("--replay", type=Path, help="puts one kept input in again, and nothing else")
    parser.add_argument(
        "--size", action="store_true", help="answers of up to 64 MiB instead; what follows are formats, and -k WORD"
    )
    if "--size" in sys.argv[1:]:
        return size.main([word for word in sys.argv[1:] if word != "--size"])
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    if arguments.replay is not None:
        print(replay(arguments.replay))
        return 0
    seed = random.SystemRandom().getrandbits(32) if arguments.seed is None else arguments.seed
    recordings = WIRE if (WIRE / "index.json").exists() else "none, own seeds only"
    print(f"seed {seed}; recordings: {recordings}", flush=True)
    failed = 0
    for name in arguments.target or TARGETS:
        try:
            report = fuzz(TARGETS[name], arguments.seconds, seed, arguments.keep, _set_alarm)
        except (FuzzError, AssertionError) as error:
            traceback.print_exc()
            print(f"FAILED {error}", flush=True)
            failed += 1
        else:
            print("\n".join(report.lines()), flush=True)
    return _FAILED if failed else 0


def _set_alarm(seconds: float) -> None:
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _hang(number: int, frame: FrameType | None) -> None:
    raise HangError


sys.exit(main())
