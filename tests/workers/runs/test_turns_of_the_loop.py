"""A turn of the loop is bounded in time: the other events, and the end after them, wait for the next turn in order."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from headrace.wire.messages import Abort, Chunk, Credit, Failed, Finished
from headrace_workers.runs.live_run import LiveRun
from tests.workers.runs.test_live_run import FakeHost

COUNT = 100
EVENTS = b"".join(b'data: {"choices": [{"delta": {"content": "%d "}}]}\n\n' % number for number in range(COUNT))
WHOLE = "".join(f"{number} " for number in range(COUNT))
END = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'


class CalmExchange:
    """An exchange that records its calls."""

    is_connected = True
    is_read = False

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return lambda: self.calls.append(name)


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each turn has time for its first events only."""
    monkeypatch.setattr(LiveRun, "_may_continue", lambda _: False)


def started(**settings: Any) -> tuple[FakeHost, CalmExchange]:
    host = FakeHost(**settings)
    exchange = host.http.exchange = CalmExchange()
    host.respond()
    return host, exchange


def text_of(host: FakeHost) -> str:
    return "".join(str(event) for message in host.sent if isinstance(message, Chunk) for event in message.events)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_events_that_take_too_long_are_mapped_over_many_turns_and_then_reading_resumes() -> None:
    async def story() -> None:
        host, exchange = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS)
        host.schedule(host.run)
        first = len(text_of(host))
        assert 0 < first < len(WHOLE) // 5
        assert exchange.calls[-1] == "pause"

        await turns(2)
        assert first < len(text_of(host)) < len(WHOLE)
        await turns(2 * COUNT)
        assert text_of(host) == WHOLE
        assert exchange.calls[-1] == "resume"

    asyncio.run(story())


@pytest.mark.parametrize("is_read_at_once", [True, False])
def test_the_end_of_the_response_comes_after_the_events_before_it(is_read_at_once: bool) -> None:
    async def story() -> None:
        host, _ = started(sequence_limit=1000)
        for piece in (EVENTS + END,) if is_read_at_once else (EVENTS, END):
            host.run.on_bytes(piece)
        host.run.on_complete()
        assert not isinstance(host.sent[-1], Finished)

        await turns(3 * COUNT)
        assert text_of(host) == WHOLE
        assert isinstance(host.sent[-1], Finished)

    asyncio.run(story())


def test_a_cut_is_reported_after_the_events_before_it() -> None:
    async def story() -> None:
        host, _ = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS)
        host.run.on_failure("read", "cut")

        await turns(3 * COUNT)
        assert text_of(host) == WHOLE
        assert isinstance(host.sent[-1], Failed)

    asyncio.run(story())


def test_between_turns_a_run_waits_for_credit() -> None:
    async def story() -> None:
        host, exchange = started(sequence_limit=1)
        large = EVENTS.replace(b' "}', b" " + b"x" * 10_000 + b'"}')
        host.run.on_bytes(large)
        host.run.on_complete()
        await turns(3 * COUNT)
        assert exchange.calls[-1] == "pause"
        assert host.run.core.is_behind

        for limit in range(1, 4000):
            host.run.carry_out(host.run.core.allow_more(Credit("sp_1", 1, limit, limit * 1000)))
            await turns(2)
        assert text_of(host).replace("x", "") == WHOLE
        assert isinstance(host.sent[-1], Failed)  # the response had no end

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["close", "drain"])
def test_an_abort_while_events_wait_ends_the_run(mode: Any) -> None:
    async def story() -> None:
        host, exchange = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS + END)
        host.run.on_complete()
        abort = Abort("sp_1", 1, mode)
        host.run.carry_out(host.run.core.aborted(abort.mode, 0.0))
        await turns(3 * COUNT)

        assert host.run.core.is_over
        assert not host.client.runs
        if mode == "close":
            assert "close" in exchange.calls

    asyncio.run(story())


def test_an_exception_in_waiting_events_ends_the_run_with_a_terminal_message() -> None:
    async def story() -> None:
        host, exchange = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS + b"data: {{\n\n")
        await turns(3 * COUNT)

        assert text_of(host) == WHOLE
        assert isinstance(host.sent[-1], Failed)
        assert "close" in exchange.calls

    asyncio.run(story())


def test_waiting_events_are_not_mapped_after_the_client_is_gone() -> None:
    async def story() -> None:
        host, exchange = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS + END)
        host.run.on_complete()
        host.run.abandon()
        said = len(host.sent)
        await turns(3 * COUNT)

        assert len(host.sent) == said
        assert exchange.calls[-1] == "close"

    asyncio.run(story())


def test_nothing_keeps_an_ended_run_in_memory() -> None:
    async def story() -> None:
        host, _ = started(sequence_limit=1000)
        host.run.on_bytes(EVENTS + END)
        host.run.on_complete()
        await turns(3 * COUNT)
        assert isinstance(host.sent[-1], Finished)
        del host.run

    gc.collect()
    gc.disable()
    try:
        before = _live_runs()
        asyncio.run(story())
        assert _live_runs() == before
    finally:
        gc.enable()


def _live_runs() -> int:
    return sum(type(each) is LiveRun for each in gc.get_objects())
