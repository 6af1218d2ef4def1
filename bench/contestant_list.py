"""Who takes part in the benchmark: the programs of ``bench/contestants``, and how each is run.

Starts nothing itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.works import WORKS

_LITELLM = Path(__file__).resolve().parent.parent / ".venv-litellm" / "bin" / "python"


class Contestant(msgspec.Struct, frozen=True, kw_only=True):
    """One way to do the works.

    ``module`` is in ``bench/contestants``. ``environ`` is added to the environment of its process. ``works``: the only works that it
    does; ``None``: all. With ``is_slow`` one round is enough: more would take minutes, and its figures are far from the others.
    ``counts_streams``: it also does the works that show the cost by the number of streams. ``packages``: their versions are told
    with the results. ``starting`` is how many seconds it may take for its start, its warm-up and its report.
    """

    name: str
    module: str
    environ: dict[str, str] = {}
    works: frozenset[str] | None = None
    is_slow: bool = False
    counts_streams: bool = False
    python: str = sys.executable
    packages: tuple[str, ...] = ()
    starting: float = 30.0

    @property
    def is_installed(self) -> bool:
        """Whether its Python is there. ``scripts/bench --full`` makes a virtual environment for LiteLLM."""
        return Path(self.python).exists()

    def does(self, work: str, number: int) -> bool:
        """Return whether it does the work in the round with this number, from 0."""
        if number and self.is_slow:
            return False
        if work in _BY_STREAMS:
            return self.counts_streams
        return self.works is None or work in self.works


_NO_FETCH = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
"""LiteLLM fetches its prices from the web when it is imported, unless it is told not to."""
_STREAMS_AND_CALLS = frozenset({"W1", "W1b", "W2", "W2M", "W2L", "W3"})
_BY_STREAMS = frozenset(work.name for work in WORKS if work.is_by_streams)

CONTESTANTS = [
    Contestant(name="floor", module="floor", counts_streams=True, packages=("uvloop", "httptools", "msgspec")),
    Contestant(name="headrace", module="headrace", environ={"HEADRACE_WORKERS": "1"}, counts_streams=True),
    Contestant(name="headrace, 2 workers", module="headrace", environ={"HEADRACE_WORKERS": "2"}),
    Contestant(name="headrace, 4 workers", module="headrace", environ={"HEADRACE_WORKERS": "4"}),
    Contestant(
        name="headrace, threads",
        module="headrace_threads",
        environ={"HEADRACE_WORKERS": "1"},
        works=_STREAMS_AND_CALLS,  # a thread that waits in a stream left open cannot be ended
    ),
    Contestant(name="headrace, 2 clients", module="headrace_clients", works=_STREAMS_AND_CALLS),
    Contestant(name="aiohttp", module="plain_aiohttp", counts_streams=True, packages=("aiohttp",)),
    Contestant(name="httpx", module="plain_httpx", is_slow=True, packages=("httpx",)),
    Contestant(name="openai SDK", module="openai_sdk", is_slow=True, counts_streams=True, packages=("openai",)),
    Contestant(
        name="LiteLLM SDK",
        module="litellm_sdk",
        environ=_NO_FETCH,
        is_slow=True,
        python=str(_LITELLM),
        packages=("litellm",),
        starting=60.0,
    ),
    Contestant(
        name="LiteLLM proxy",
        module="litellm_proxy",
        environ=_NO_FETCH,
        is_slow=True,
        python=str(_LITELLM),
        starting=120.0,
    ),
]
QUICK = ["floor", "headrace"]
USUAL = ["floor", "headrace", "headrace, threads", "aiohttp", "httpx", "openai SDK"]


def named(names: Sequence[str]) -> list[Contestant]:
    """Return the contestants with these names, in the order of the list. Raises ValueError if a name is unknown."""
    known = [contestant.name for contestant in CONTESTANTS]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no contestant is named {', '.join(map(repr, unknown))}; there are: {'; '.join(known)}")
    return [contestant for contestant in CONTESTANTS if contestant.name in names]
