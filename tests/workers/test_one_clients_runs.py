"""A client that asks a worker for runs without leases has as many as one client may, and others are served."""

from __future__ import annotations

from pathlib import Path

from headrace.testing import SimulatedProvider
from headrace.wire.messages import NOT_BEGUN, Failed
from tests.waiting import wait_until
from tests.workers.span_worker import span_worker


def test_a_client_without_leases_has_a_bounded_number_of_runs(provider: SimulatedProvider, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text("[engine]\nmax_runs_per_worker = 4\n")
    with span_worker(provider, HEADRACE_CONFIG=str(config)) as worker:
        runs = [worker.run(simulate={"repeat": 1, "first_token_delay": 30.0}) for _ in range(30)]

        def has_turned_away() -> bool:
            worker.poll()
            return len(worker.terminals) == 17

        wait_until(has_turned_away, what="the runs that are too many")
        # Four by the settings, one more that may be ending of each four, and eight.
        assert sorted(worker.terminals) == runs[13:]
        for terminal in worker.terminals.values():
            assert isinstance(terminal, Failed)
            assert terminal.code == NOT_BEGUN
