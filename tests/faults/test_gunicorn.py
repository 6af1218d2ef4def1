"""A web process that is killed takes its own answers along, frees what they held, and disturbs no other."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from headrace.process.history import VARIABLE
from headrace.testing import SimulatedProvider
from tests.conftest import processes
from tests.faults.harness import FaultyEngine, faulty_engine, percentile
from tests.faults.web import APPLICATION, WARM_APPLICATION, Aftermath, Visitors, aftermath, kill_at_random, web_server
from tests.history.facts import Limits
from tests.repetition import repeated
from tests.waiting import busyness, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CLOSED_WITHIN = 0.5
"""Seconds from a client's death to its closed provider connections, p99."""
BUSY = 4
"""By how much the worst may be slower on any machine: on an idle one it is a tenth of what is promised."""
VISITORS = 24
GUNICORN = ["gunicorn", "--preload", "--workers", "4", "--threads", "16", "--bind", "127.0.0.1:0", "application:wsgi"]
UVICORN = ["uvicorn", "--workers", "2", "--port", "0", "--lifespan", "off", "application:asgi"]


def report(server: str, killed: dict[int, float], figures: Aftermath) -> None:
    p50, p99 = percentile(figures.delays, 0.5) * 1000, percentile(figures.delays, 0.99) * 1000
    print(
        f"{len(killed)} processes of {server} killed; {len(figures.delays)} provider connections closed after "
        f"p50 {p50:.0f} ms, p99 {p99:.0f} ms, most {max(figures.delays) * 1000:.0f} ms; "
        f"{figures.whole} answers whole, {figures.lost} lost with their process"
    )


@pytest.mark.tries(3)
@pytest.mark.parametrize(("server", "times"), [(GUNICORN, repeated(3, 20)), (UVICORN, 3)], ids=["gunicorn", "uvicorn"])
def test_the_others_never_notice_that_a_web_process_was_killed(
    server: list[str], times: int, provider: SimulatedProvider, tmp_path: Path
) -> None:
    (tmp_path / "application.py").write_text(APPLICATION)
    marker = "http://127.0.0.1:"
    with faulty_engine(provider, workers=2) as engine:
        with web_server(server, tmp_path, marker, HEADRACE_ENGINE=engine.address) as (_, port):
            with Visitors(port, VISITORS, engine.random) as visitors:
                killed = kill_at_random(engine, visitors, times)
                visitors.wait_for_all()
            wait_until(lambda: not engine.status().leases, 10.0, "an engine without leases")
        figures = aftermath(engine, visitors.answers, killed)

    report(server[0], killed, figures)
    assert len(figures.delays) > times
    check_delays(figures)


@pytest.mark.tries(3)
def test_neither_when_the_engine_is_the_preloading_masters_own(
    provider: SimulatedProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "application.py").write_text(WARM_APPLICATION)
    history = tmp_path / "history"
    history.mkdir()
    monkeypatch.setenv(VARIABLE, str(history))
    for name, value in provider.environment.items():
        monkeypatch.setenv(name, value)
    with web_server(GUNICORN, tmp_path, "http://127.0.0.1:") as (master, port):
        engine = FaultyEngine(provider, embedded_engine(master), history, Random().getrandbits(32), Limits())
        with Visitors(port, VISITORS, engine.random) as visitors:
            killed = kill_at_random(engine, visitors, 3)
            visitors.wait_for_all()
        wait_until(lambda: not engine.status().leases, 10.0, "an engine without leases")
    figures = aftermath(engine, visitors.answers, killed)
    wait_until(lambda: not engine_processes_in(engine.address), 10.0, "no process of the engine")
    engine.check()

    report("gunicorn with an engine of its own", killed, figures)
    check_delays(figures)


def check_delays(figures: Aftermath) -> None:
    # A process has about ten connections, which close together: one late kill is all of the last percent.
    assert percentile(figures.delays, 0.5) < CLOSED_WITHIN * busyness()
    assert percentile(figures.delays, 0.99) < BUSY * CLOSED_WITHIN * busyness()


def embedded_engine(owner: int) -> str:
    """Return the address of the engine that a process has started for itself."""
    [line] = [line for _, above, line in processes() if above == owner and "-m headrace_engine" in line]
    return "ipc://" + line.split("--directory ")[1].split()[0]


def engine_processes_in(address: str) -> list[str]:
    return [line for _, _, line in processes() if address.removeprefix("ipc://") in line]
