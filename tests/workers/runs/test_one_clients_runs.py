"""A client without leases gets a bounded number of runs on a worker, and other clients are still served."""

from __future__ import annotations

from pathlib import Path

from headrace.testing import SimulatedProvider
from headrace.types import Message
from headrace.wire.codec import encode_request
from headrace.wire.messages import NOT_BEGUN, Abort, Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from tests.waiting import wait_until
from tests.workers.spans.span_worker import EPOCH, span_worker


def test_a_client_without_leases_has_a_bounded_number_of_runs(provider: SimulatedProvider, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    config.write_text("[engine]\nmax_runs_per_worker = 4\n")
    with span_worker(provider, HEADRACE_CONFIG=str(config)) as worker:
        runs = [worker.run(simulate={"repeat": 1, "first_token_delay": 30.0}) for _ in range(30)]

        def has_turned_away() -> bool:
            worker.poll()
            return len(worker.terminals) == 17

        wait_until(has_turned_away, what="the runs that are too many")
        # Four by the settings, one more for a run that is ending, and eight.
        assert sorted(worker.terminals) == runs[13:]
        for terminal in worker.terminals.values():
            assert isinstance(terminal, Failed)
            assert terminal.code == NOT_BEGUN


def test_the_bytes_of_requests_that_a_worker_holds_are_bounded(provider: SimulatedProvider, tmp_path: Path) -> None:
    """The bounds are a thousandth of the real ones.

    One process may use half of them. Small requests are not counted.
    """
    (tmp_path / "sitecustomize.py").write_text(
        "from headrace_workers import run_limits\nrun_limits._MAX_REQUEST_BYTES //= 1024\nrun_limits._SMALL_REQUEST //= 64\n"
    )
    large = [Message("user", "x" * 300_000)]
    slow = {"repeat": 1, "first_token_delay": 30.0}
    with span_worker(provider, PYTHONPATH=str(tmp_path)) as worker:
        first = worker.run(messages=large, simulate=slow)
        refused = worker.terminal(worker.run(messages=large))
        assert isinstance(refused, Failed)
        assert refused.code == NOT_BEGUN
        assert "their limit of bytes" in refused.reason

        # Other clients are served, and small requests, too.
        assert isinstance(worker.terminal(worker.run()), Finished)
        assert isinstance(worker.terminal(worker.run(messages=[Message("user", "x" * 150_000)])), Finished)

        worker.tell(Abort(first, 1))
        worker.terminal(first)
        assert isinstance(worker.terminal(worker.run(messages=large)), Finished)


def test_each_turn_reads_a_bounded_number_of_values_and_turns_other_requests_away(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    """The requests come in one frame. Reading all would take the worker half a minute, and gigabytes of memory. A turn begins 12 of them."""
    request = RunRequest(
        provider="openai",
        model="gpt-4o",
        messages=[Message("user", "x")],
        stream=True,
        response_format={"x": [[]] * 150_000},
        custom_options={"simulate": {"repeat": 1}},
    )
    encoded = encode_request(request)
    with span_worker(provider) as worker:
        runs = [Run(f"sp_{number}", 1, EPOCH, encoded, 64, 65536) for number in range(200)]
        worker.tell(*runs)

        def are_over() -> bool:
            worker.poll()
            return len(worker.terminals) == 200

        wait_until(are_over, 60.0, "all")
        turned_away = [
            each for each in worker.terminals.values() if isinstance(each, Failed) and each.code == NOT_BEGUN
        ]
        assert len(turned_away) >= 200 * (12 - 7) // 12
