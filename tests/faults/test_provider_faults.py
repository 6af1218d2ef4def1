"""Whatever a provider does, a run ends with the error that says so, is never taken for a success, and holds nobody else up."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from headrace import (
    AuthenticationError,
    HeadraceError,
    InvalidRequestError,
    LocalStream,
    ProviderProtocolError,
    RunTimeoutError,
)
from headrace.testing import SimulatedProvider
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.load import MODEL
from tests.repetition import repeated, times
from tests.waiting import busyness

pytestmark = pytest.mark.timeout(180)

TIMES = times(3, 20)
REPEATS = repeated(3, 20)
SHORT_CLOCKS = "[engine]\nfirst_chunk_timeout = {0}\nidle_timeout = {0}\ntotal_timeout = {1}\n"

REFUSALS: dict[int, type[HeadraceError]] = {
    400: InvalidRequestError,
    401: AuthenticationError,
    403: AuthenticationError,
    404: InvalidRequestError,
    413: InvalidRequestError,
}
ENDINGS: list[tuple[str, dict[str, Any], type[HeadraceError], str | None]] = [
    ("silence instead of an answer", {"silent": True}, RunTimeoutError, "first_chunk"),
    ("headers, then silence", {"repeat": 30, "stall_after": 0}, RunTimeoutError, "first_chunk"),
    ("silence in the middle", {"repeat": 30, "pace": 0.002, "stall_after": 9}, RunTimeoutError, "idle"),
    ("a dribble without end", {"repeat": 10_000, "pace": 0.5, "split_bytes": 1}, RunTimeoutError, "total"),
    ("a cut in mid-body", {"repeat": 30, "pace": 0.002, "cut_after": 9}, ProviderProtocolError, None),
    ("an end without the last event", {"repeat": 30, "pace": 0.002, "end_after": 9}, ProviderProtocolError, None),
]


def ended(stream: LocalStream) -> HeadraceError:
    """Return the error that a stream ends with; fails for one that ends well."""
    try:
        list(stream)
    except HeadraceError as error:
        return error
    raise AssertionError("the run is reported as a success")


@TIMES
def test_a_refusal_is_a_typed_error_asked_once_that_holds_nobody_up(provider: SimulatedProvider, times: int) -> None:
    with faulty_engine(provider, workers=1) as engine:
        load = engine.load(streams=5)
        load.wait_for(5)
        client = engine.client()
        spans = []
        for _ in engine.moments(times, 0.0, 0.1):
            streams = {status: engine.stream(client, status=status) for status in REFUSALS}
            spans += [stream.span_id for stream in streams.values()]

            for status, stream in streams.items():
                error = ended(stream)

                assert type(error) is REFUSALS[status]
                assert getattr(error, "status_code", None) == status

    assert sorted(call.span_id for call in engine.calls() if call.span_id in spans) == sorted(spans), "asked once each"
    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@pytest.mark.slow
@pytest.mark.tries(REPEATS)
def test_a_stream_that_stops_or_breaks_is_never_a_success(provider: SimulatedProvider) -> None:
    slower = min(busyness(), 5.0)
    with faulty_engine(provider, workers=2, config=SHORT_CLOCKS.format(2.0 * slower, 4.0 * slower)) as engine:
        load = engine.load(streams=3, chunks=(2, 5))
        load.wait_for(3)
        client = engine.client()
        # All at once: most of them take a clock's time.
        streams = [(case, engine.stream(client, **case[1])) for case in ENDINGS for _ in range(REPEATS)]
        began = time.monotonic()

        for (name, _, kind, clock), stream in streams:
            error = ended(stream)

            assert type(error) is kind, name
            assert getattr(error, "clock", None) == clock, name
            assert time.monotonic() - began < 20 * busyness(), name
            is_late = clock != "first_chunk"
            assert bool(getattr(error, "partial_text", "")) is is_late, name

    assert {outcome.kind for outcome in engine.outcomes()} == {"done"}


@pytest.mark.slow
def test_a_provider_that_is_not_there_is_said_to_be_so(provider: SimulatedProvider) -> None:
    config = '[providers.nowhere]\napi = "openai-chat"\nbase_url = "http://127.0.0.1:9/v1"\n'
    with faulty_engine(provider, workers=1, config=config) as engine:
        client = engine.client()
        for number in range(REPEATS):
            with pytest.raises(HeadraceError, match=r"127\.0\.0\.1:9"):
                client.run_local(
                    model=MODEL,
                    provider="nowhere",
                    messages=[{"role": "user", "content": "Hello"}],
                    provider_api_key=f"sk-{number}",  # after some failures all runs of a key wait
                )


@TIMES
def test_an_abort_at_any_moment_ends_the_run_once_and_closes_the_connection(
    provider: SimulatedProvider, times: int
) -> None:
    with faulty_engine(provider, workers=2) as engine:
        client = engine.client()
        for _ in range(times):
            for stream, moment in _aborted_at_all_moments(engine, client):
                result = stream.result.result(90)

                assert result.aborted or moment in ("with the last chunk", "after the end"), moment
                assert result is stream.result.result()
                stream.abort()
                assert stream.result.result() is result, "the outcome never changes once it was seen"


def _aborted_at_all_moments(engine: FaultyEngine, client: Any) -> list[tuple[LocalStream, str]]:
    random = engine.random
    long, short = {"repeat": 400, "pace": 0.003}, {"repeat": 3, "pace": 0.001}
    streams = []
    for moment, script in (
        ("before the lease", long),
        ("before the start", long),
        ("before the first chunk", {**long, "first_token_delay": 0.2}),
        ("in the middle", long),
        ("with the last chunk", short),
        ("after the end", short),
        ("twice", long),
        ("from another thread", long),
    ):
        stream = engine.stream(client, **script)
        streams.append((stream, moment))
        match moment:
            case "before the lease":
                stream.abort()
            case "before the start":
                threading.Event().wait(random.uniform(0, 0.005))
                stream.abort()
            case "before the first chunk":
                threading.Event().wait(random.uniform(0.005, 0.1))
                stream.abort()
            case "with the last chunk":
                iterator = iter(stream)
                next(iterator, None)
                threading.Event().wait(random.uniform(0, 0.004))
                stream.abort()
            case "after the end":
                assert "".join(stream) == "0 1 2 "
                stream.abort()
            case _:
                next(iter(stream))
                threads = [threading.Thread(target=stream.abort) for _ in range(1 if moment == "in the middle" else 3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
    return streams
