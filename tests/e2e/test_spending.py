"""Spending limits of a real engine: a run that may cost too much is refused before anything is sent, also by the next broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace import Client
from headrace.cli.status_command import engine_status
from headrace.errors import BudgetExceededError
from headrace.testing import Script, SimulatedProvider
from tests.conftest import HELLO
from tests.e2e.engines import running_engine
from tests.e2e.spans_of_runs import MODEL, PATIENCE, kill
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

_DAY = 86_400.0


@pytest.fixture
def settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings in which a user's first run of 400 dollars may go, and no second one."""
    monkeypatch.setenv("HEADRACE_DATA", str(tmp_path / "data"))
    path = tmp_path / "headrace.toml"
    path.write_text(
        f'[prices."{MODEL}"]\ninput = 0\noutput = 1_000_000\n'  # a dollar for each token of the answer
        "[spending.each]\nmax_cost = 700\nuser_id = '*'\n"
    )
    return path


def spent(engine: str) -> float:
    [status] = engine_status(engine, PATIENCE).spending
    return status.spent


def test_a_run_that_may_cost_too_much_is_refused_before_anything_is_sent_also_by_the_next_broker(
    provider: SimulatedProvider, settings_file: Path
) -> None:
    with (
        running_engine(provider, "--workers", "1", settings_file=settings_file) as engine,
        Client(engine, connect_timeout=PATIENCE) as client,
    ):
        provider.enqueue(Script(usage={"prompt_tokens": 9, "completion_tokens": 400, "total_tokens": 409}))
        client.run_local(model=MODEL, messages=HELLO, user_id="ann")
        wait_until(lambda: spent(engine) > 0, PATIENCE, "the cost of the run")
        with pytest.raises(BudgetExceededError) as caught:
            client.run_local(model=MODEL, messages=HELLO, user_id="ann")
        kill(engine, "headrace_engine broker")
        with pytest.raises(BudgetExceededError):
            client.run_local(model=MODEL, messages=HELLO, user_id="ann")
        assert spent(engine) == 400.0
        assert len(provider.requests()) == 1
        client.run_local(model=MODEL, messages=HELLO, user_id="bob")

        assert "[spending.each] allows $700.00 a day (UTC) for each user: $400.00 is spent" in str(caught.value)
        assert caught.value.retry_after is not None
        assert 0 < caught.value.retry_after <= _DAY
