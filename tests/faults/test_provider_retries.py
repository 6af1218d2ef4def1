"""A run that the provider fails is tried again until its first chunk, within a budget, and on other models where it says so."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from headrace import Client, HeadraceError, LocalStream, RunLocalResult
from headrace.testing import SimulatedProvider
from tests.faults.flows import LimitedEngine, limited_engine, times_of
from tests.faults.harness import faulty_engine
from tests.faults.limited_load import Flow
from tests.history.facts import Limits
from tests.repetition import is_long, times
from tests.waiting import busyness, wait_until

pytestmark = pytest.mark.timeout(180)

STATUSES = (408, 409, 429, 500, 502, 503, 504, 529)
CAUSES: dict[str, dict[str, Any]] = {
    **{str(status): {"status": status} for status in STATUSES},
    "reset": {"reset": True},
    "cut before the first content": {"cut_after": 0},
    "ended before the first content": {"end_after": 0, "omit_done": True},
    "an error in the stream before the first content": {"error_after": 0},
}
NOWHERE = """
[providers.refused]
api = "openai-chat"
base_url = "http://127.0.0.1:{port}/v1"

[providers.no_such_host]
api = "openai-chat"
base_url = "http://no-such-host.invalid/v1"

[providers.no_tls]
api = "openai-chat"
base_url = "https://127.0.0.1:{second}/v1"

[providers.returning]
api = "openai-chat"
base_url = "http://127.0.0.1:{second}/v1"
"""


def free_port() -> int:
    """Return a port at which nobody listens."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def second_provider() -> Iterator[SimulatedProvider]:
    with SimulatedProvider() as provider:
        yield provider


@pytest.fixture(scope="module")
def engine(second_provider: SimulatedProvider) -> Iterator[LimitedEngine]:
    config = NOWHERE.format(port=free_port(), second=second_provider.port)
    names = ("down", *(f"cause{place}" for place in range(len(CAUSES))))
    with limited_engine(config, names=names, workers=1) as running:
        yield running


@pytest.fixture
def client(engine: LimitedEngine) -> Iterator[Client]:
    with engine.client() as made:
        yield made


def run(
    client: Client, provider: str, script: dict[str, Any], *, stream: bool = False, **arguments: Any
) -> RunLocalResult:
    """Run to the end, and return the result."""
    said: dict[str, Any] = {
        "provider": provider,
        "model": "gpt-4o",
        "messages": "Hello",
        "provider_api_key": "sk-retried",
        "custom_options": {"simulate": script},
        **arguments,
    }
    result: RunLocalResult
    if stream:
        streamed: LocalStream = client.run_local(**said, stream=True)
        text = "".join(streamed)
        result = streamed.result.result()
        assert result.text == text
    else:
        result = client.run_local(**said)
    return result


@pytest.mark.tries(2 * len(CAUSES))
def test_each_passing_failure_before_the_first_chunk_ends_in_a_normal_answer(
    engine: LimitedEngine, client: Client
) -> None:
    # Each cause at a provider of its own, so that no pool is held up by what another run met.
    cases = [
        (f"cause{place}", {"text": f"{name}, then {how}", "failures": [failure]}, how)
        for place, (name, failure) in enumerate(CAUSES.items())
        for how in ("streamed", "whole")
    ]
    with ThreadPoolExecutor(len(cases)) as threads:
        started = [threads.submit(run, client, name, script, stream=how == "streamed") for name, script, how in cases]
        for (_, script, _), future in zip(cases, started, strict=True):
            result = future.result(60 * busyness())

            assert result.text == script["text"]
            # A kept connection that is reset may be idle for too long: the worker itself takes a new one.
            assert result.attempts == 2 or "reset" in script["text"]


@pytest.mark.parametrize("name", ["refused", "no_such_host", "no_tls"])
@pytest.mark.tries(3)
def test_a_provider_that_cannot_be_reached_is_tried_again_and_then_the_next(
    engine: LimitedEngine, client: Client, name: str
) -> None:
    result = run(client, name, {"text": "from the other"}, fallbacks=["cause0/gpt-4o"])

    assert (result.text, result.provider, result.model) == ("from the other", "cause0", "gpt-4o")
    assert result.attempts == 4
    with pytest.raises(HeadraceError) as caught:
        run(client, name, {}, max_retries=1)
    assert len(caught.value.attempts) == 2
    assert "2 attempts" in str(caught.value)


def test_a_provider_that_listens_again_answers_the_run_that_it_refused(
    engine: LimitedEngine, client: Client, second_provider: SimulatedProvider
) -> None:
    second_provider.begin_outage("refused")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(run, client, "returning", {"text": "back"}, max_retries=50)
        wait_until(lambda: any(pool.retries_total for pool in engine.pools("returning")), 20.0, "a retry")
        second_provider.end_outage()
        result = waiting.result(60 * busyness())

    assert result.text == "back"
    assert result.attempts > 1


@pytest.mark.tries(6)
def test_nothing_is_tried_again_after_the_first_chunk_of_a_stream_and_what_nobody_saw_is(
    engine: LimitedEngine, client: Client
) -> None:
    for place, end in enumerate(("cut_after", "end_after", "error_after")):
        provider = f"cause{place}"
        script = {"text": f"one two three {end}", "failures": [{"chunks": ["one ", "two "], end: 1, "omit_done": True}]}
        before = len(engine.arrivals("sk-retried"))

        with pytest.raises(HeadraceError) as caught:
            run(client, provider, script, stream=True)

        assert getattr(caught.value, "partial_text", None) == "one "
        assert len(engine.arrivals("sk-retried")) == before + 1
        whole = {**script, "text": f"whole {end}"}
        assert run(client, provider, whole).text == f"whole {end}"
        assert len(engine.arrivals("sk-retried")) == before + 3


@pytest.mark.tries(3)
def test_no_storm_reaches_a_provider_that_is_down_and_one_probe_finds_it_again(engine: LimitedEngine) -> None:
    provider = engine.provider
    flow = Flow(
        name="down", provider="down", key="sk-down", streams=50, script={"text": "up", "first_token_delay": 0.02}
    )
    with engine.programs(1) as programs:
        provider.begin_outage(503, key="sk-down")
        programs.begin(flow)
        wait_until(lambda: any(pool.breaker == "open" for pool in engine.pools("down")), 30.0, "an open breaker")
        if is_long():  # the first probe fails, and the next one comes later
            engine.wait_for(len(engine.arrivals("sk-down")) + 1, "sk-down", 60.0)
        provider.end_outage(key="sk-down")
        answered = wait_until(
            lambda: [arrival for arrival in engine.arrivals("sk-down") if arrival.status == 200], 60.0, "an answer"
        )
        wait_until(lambda: all(pool.breaker == "closed" for pool in engine.pools("down")), 30.0, "a closed breaker")
        engine.wait_for(len(engine.arrivals("sk-down")) + 20, "sk-down")
        seen = programs.stop()

    requests = engine.arrivals("sk-down")
    during = [arrival for arrival in requests if arrival.status == 503]
    firsts = 50 + sum(run.kind != "done" for run in seen["down"])
    assert len(during) <= firsts + 0.2 * firsts + 100
    probe = min(answered, key=lambda arrival: arrival.at)
    others = [at for at in times_of(requests) if during[-1].at < at < (probe.first_chunk_at or 0.0) and at != probe.at]
    assert others == [], "one probe alone"
    print(f"{len(during)} attempts while the provider was down, for {firsts} runs")


MIXED = Limits(max_calls=8)


@times(2, 20)
def test_dead_workers_retries_and_fallbacks_mixed_leave_each_run_one_outcome(
    provider: SimulatedProvider, times: int
) -> None:
    with faulty_engine(provider, workers=3, limits=MIXED) as engine:
        load = engine.load(streams=20, failing_share=0.15, fallback_share=0.05, calm_runs=1)
        load.wait_for(10)
        for _ in engine.moments(times, 0.3, 1.0):
            engine.signal(engine.some_worker(), signal.SIGKILL)
        load.wait_for(60)

    of_dead_workers = {"WorkerLostError", "PoisonRunError"}  # PoisonRunError: three workers died with this run
    others = [outcome for outcome in engine.outcomes() if outcome.kind not in {"done", *of_dead_workers}]
    assert not others, others[:3]
    assert any(outcome.attempts > 1 for outcome in engine.outcomes("done"))
