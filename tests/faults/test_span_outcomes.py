"""However a run ends, its span says so: status, error, usage and attempts, and the text that its caller saw."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace import Client, HeadraceError, LocalStream
from headrace.spans.span import Rank
from headrace.spans.span_database import StoredSpan
from headrace.testing import SimulatedProvider
from tests.conftest import simulate
from tests.faults.harness import FaultyEngine, faulty_engine
from tests.faults.span_sets import admitted, check_set, content, stored, wait_for_all
from tests.history.model import read_histories
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

OPENAI, ANTHROPIC = "gpt-4o", "claude-sonnet-4-6"


class EndOfRun(msgspec.Struct, frozen=True):
    """A run, and what its span is to say of its end."""

    model: str
    script: dict[str, Any]
    status: str
    error_type: str | None
    source: str
    aborts_after: int | None = None
    options: dict[str, Any] = {}


LONG = {"repeat": 500, "pace": 0.02}
CASES = {
    "done": EndOfRun(OPENAI, {"repeat": 20}, "ok", None, "provider"),
    "done at Anthropic": EndOfRun(ANTHROPIC, {"repeat": 20}, "ok", None, "provider"),
    "aborted": EndOfRun(OPENAI, LONG, "aborted", None, "estimated", aborts_after=5),
    "aborted at Anthropic": EndOfRun(ANTHROPIC, LONG, "aborted", None, "partial", aborts_after=5),
    "400": EndOfRun(OPENAI, {"status": 400}, "error", "InvalidRequestError", "none"),
    "401": EndOfRun(OPENAI, {"status": 401}, "error", "AuthenticationError", "none"),
    "429": EndOfRun(ANTHROPIC, {"status": 429}, "error", "RateLimitError", "none"),
    "500": EndOfRun(OPENAI, {"status": 500}, "error", "ProviderUnavailableError", "none"),
    "529": EndOfRun(ANTHROPIC, {"status": 529}, "error", "ProviderUnavailableError", "none"),
    "cut": EndOfRun(OPENAI, {"repeat": 20, "cut_after": 7}, "error", "ProviderProtocolError", "estimated"),
    "cut at Anthropic": EndOfRun(
        ANTHROPIC, {"repeat": 20, "cut_after": 7}, "error", "ProviderProtocolError", "partial"
    ),
    "ended early": EndOfRun(OPENAI, {"repeat": 20, "end_after": 7}, "error", "ProviderProtocolError", "estimated"),
    "garbage": EndOfRun(OPENAI, {"repeat": 20, "garbage_after": 7}, "error", "ProviderProtocolError", "estimated"),
    "silent": EndOfRun(OPENAI, {"silent": True}, "error", "RunTimeoutError", "none", options={"timeout_ms": 300}),
    "stalled": EndOfRun(
        OPENAI, {"repeat": 20, "stall_after": 7}, "error", "RunTimeoutError", "estimated", options={"idle_timeout_ms": 300}
    ),
    "too long": EndOfRun(ANTHROPIC, LONG, "error", "RunTimeoutError", "partial", options={"timeout_ms": 5000}),
}  # fmt: skip


def begin(engine: FaultyEngine, client: Client, case: EndOfRun) -> LocalStream:
    span_id = f"sp_{engine.random.getrandbits(64):016x}"
    stream: LocalStream = client.run_local(
        model=case.model,
        messages=[{"role": "user", "content": span_id}],
        stream=True,
        span_id=span_id,
        custom_options=simulate(**case.script),
        **case.options,
    )
    return stream


def read(stream: LocalStream, count: int | None = None) -> str:
    """Return what a caller sees, of which it reads so many chunks before it aborts."""
    seen: list[str] = []
    try:
        for chunk in stream:
            seen.append(chunk)
            if len(seen) == count:
                stream.abort()
        return stream.result.result().text
    except HeadraceError as error:
        return getattr(error, "partial_text", "".join(seen))


def check_text(engine: FaultyEngine, row: StoredSpan, seen: str) -> None:
    """Check that what the caller saw begins what is stored, and that begins what the provider sent."""
    sent = [call.sent_text for call in engine.calls() if call.span_id == row.span.span_id]
    text = content(row).text
    assert text.startswith(seen), (text[-80:], seen[-80:])
    assert sent[-1].startswith(text), (sent[-1][-80:], text[-80:])


def test_each_end_is_on_record_with_its_text_and_usage(provider: SimulatedProvider, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with faulty_engine(provider, workers=2, data=data, is_young=True) as engine:
        client = engine.client()
        streams = {name: begin(engine, client, case) for name, case in CASES.items()}
        seen = {name: read(stream, CASES[name].aborts_after) for name, stream in streams.items()}
        client.flush(60)

        rows = stored(data)
        for name, stream in streams.items():
            row, case = rows[stream.span_id], CASES[name]
            said = (row.span.status, row.span.error_type, row.span.usage.source, row.span.rank)
            assert said == (case.status, case.error_type, case.source, Rank.WORKER), (name, row.span.error)
            # What passes is tried again: each attempt is on record.
            assert {attempt.outcome for attempt in row.span.attempts} == {case.error_type or case.status}, name
            check_text(engine, row, seen[name])
            assert bool(seen[name]) == (case.source != "none"), name


def test_runs_whose_worker_or_client_died_are_on_record_with_their_text(
    provider: SimulatedProvider, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    with faulty_engine(provider, workers=1, data=data) as engine:
        client = engine.client()
        lost = {
            model: begin(engine, client, EndOfRun(model, LONG, "error", "WorkerLostError", ""))
            for model in (OPENAI, ANTHROPIC)
        }
        slow = begin(engine, client, EndOfRun(OPENAI, {"repeat": 9, "first_token_delay": 3.0}, "ok", None, "provider"))
        first = {model: next(iter(stream)) for model, stream in lost.items()}
        wait_until(lambda: slow.span_id in {call.span_id for call in engine.calls()}, 10.0, "the slow run's call")
        engine.signal("w1", signal.SIGKILL)
        seen = {model: first[model] + read(stream) for model, stream in lost.items()}
        assert read(slow) == "0 1 2 3 4 5 6 7 8 "

        load = engine.load(streams=5, chunks=(300, 300))
        load.wait_for(5)
        engine.signal(load, signal.SIGKILL)
        engine.settle()
        wait_for_all(data, admitted(engine).must)
        wait_until(
            lambda: {row.span.rank for row in stored(data).values()} == {Rank.WORKER, Rank.CLIENT}, 10.0, "ranks"
        )

        rows = dict(stored(data))
        check_set(rows, admitted(engine))
        for model, source in ((OPENAI, "none"), (ANTHROPIC, "partial")):
            row = rows.pop(lost[model].span_id)
            said = (row.span.status, row.span.error_type, row.span.usage.source, row.span.rank)
            assert said == ("error", "WorkerLostError", source, Rank.CLIENT)
            assert [(attempt.number, attempt.maybe_billed) for attempt in row.span.attempts] == [(1, True)]
            check_text(engine, row, seen[model])
        row = rows.pop(slow.span_id)
        assert (row.span.status, row.span.usage.source) == ("ok", "provider")
        attempts = [(attempt.number, attempt.worker, attempt.outcome) for attempt in row.span.attempts]
        assert attempts == [(1, "w1", "lost"), (2, "w1", "ok")]
        assert len(rows) == 5
        for row in rows.values():
            assert (row.span.status, row.span.error_type, row.span.usage.source) == (
                "aborted",
                "client_lost",
                "estimated",
            )
            check_text(engine, row, read_by(load.pid, engine, row.span.span_id))


def read_by(pid: int, engine: FaultyEngine, span_id: str) -> str:
    """Return the text that had reached a client which is dead."""
    return "".join(
        event.text
        for history in read_histories(engine.history)
        if (history.role, history.pid) == ("client", pid)
        for event in history.events
        if (event.event, event.span_id) == ("received chunk", span_id)
    )
