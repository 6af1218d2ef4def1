"""A large answer in one piece, mostly of vectors, is read in many turns of the loop."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import Any

import msgspec
import pytest

from headrace.types import Message
from headrace.wire.messages import Aborted, Credit, Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.embeddings.packed_vectors import SMALL
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.answer_limits import MIB, LimitError
from headrace_workers.providers.shared.wire_format import SteppedApi
from headrace_workers.runs.live_run import LiveRun
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import FINISH_GRACE, ClockLimits, Clocks
from tests.workers.runs.test_live_run import SENT, FakeHost
from tests.workers.runs.test_turns_of_the_loop import CalmExchange, turns

COUNT = 60
NUMBERS = ["956263361681119.4375"] * 1000
SLOW = ",".join(NUMBERS)
MANY_TURNS = 2 * COUNT + 20


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each turn of the loop time for only one step."""
    monkeypatch.setattr(LiveRun, "_may_continue", lambda _: False)


def body(api: str = "openai-chat", last: str = SLOW) -> bytes:
    rows = [SLOW] * (COUNT - 1) + [last]
    if api == "google":
        said = '{"embeddings":[' + ",".join(f'{{"values":[{row}]}}' for row in rows) + "]}"
    else:
        said = '{"data":[' + ",".join(f'{{"index":{at},"embedding":[{row}]}}' for at, row in enumerate(rows)) + "]}"
    assert len(said) > SMALL
    return said.encode()


class EmbeddingRun:
    """A run of embeddings in a LiveRun, without a worker."""

    def __init__(
        self, api: str = "openai-chat", limits: dict[str, float] | None = None, request: RunRequest | None = None
    ) -> None:
        self.host = FakeHost(stream=False)
        self.exchange = self.host.http.exchange = CalmExchange()
        declared = WIRE_FORMATS[api]
        provider_api: Any = declared.embeddings if request is None else declared.api
        request = request or RunRequest(provider="p", model="m", messages=[], inputs=["a"] * COUNT, stream=False)
        allowed = {"connect": math.inf, "first_chunk": math.inf, "idle": math.inf, "total": math.inf} | (limits or {})
        clocks = Clocks(ClockLimits(**allowed), time.monotonic())
        run = Run("sp_1", 1, 7, b"", 64, 65536)
        self.core = ProviderRun(run, request, provider_api, clocks)
        self.run = self.host.run = LiveRun(self.host, self.host.client, self.core, SENT, None, 0, run)
        self.host.client.runs["sp_1"] = self.run
        self.run.start()
        self.run.on_response(200, {"content-type": "application/json"})

    def begin(self, said: bytes) -> None:
        """Let the whole body arrive, and take the first steps."""
        self.run.on_bytes(said)
        self.run.on_complete()
        assert self.core.is_behind
        assert not self.host.sent

    def end(self) -> Any:
        """Return the only message of the run."""
        (message,) = self.host.sent
        assert self.core.is_over
        assert not self.core.is_behind
        assert not self.host.client.runs
        return message


@pytest.mark.parametrize("api", ["openai-chat", "google"])
def test_each_turn_packs_some_of_the_vectors(api: str) -> None:
    async def story() -> None:
        run = EmbeddingRun(api)
        run.begin(body(api))
        await turns(COUNT // 2)
        assert run.core.is_behind
        await turns(MANY_TURNS)

        finished = run.end()
        assert isinstance(finished, Finished)
        vectors: Any = finished.vectors
        assert [msgspec.msgpack.decode(vector) for vector in vectors] == [[float(number) for number in NUMBERS]] * COUNT
        assert run.exchange.calls[-1] == "release"

    asyncio.run(story())


def test_a_turn_that_has_time_packs_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LiveRun, "_may_continue", lambda _: True)

    async def story() -> None:
        run = EmbeddingRun()
        run.run.on_bytes(body())
        run.run.on_complete()
        assert isinstance(run.end(), Finished)

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["close", "drain"])
def test_an_abort_between_two_turns_ends_the_run(mode: Any) -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.begin(body())
        await turns(5)
        run.run.carry_out(run.core.aborted(mode, 0.0))
        assert isinstance(run.end(), Aborted)
        assert "close" in run.exchange.calls
        await turns(MANY_TURNS)
        run.end()

    asyncio.run(story())


@pytest.mark.parametrize("clock", ["total", "first_chunk"])
def test_a_timeout_between_two_turns_ends_the_run(clock: str) -> None:
    async def story() -> None:
        run = EmbeddingRun(limits={clock: 1000.0})
        run.begin(body())
        await turns(5)
        run.run.carry_out(run.core.due(time.monotonic() + 1001))
        failed = run.end()
        assert isinstance(failed, Failed)
        assert (failed.kind, failed.clock) == ("timeout", clock)
        await turns(MANY_TURNS)
        run.end()

    asyncio.run(story())


@pytest.mark.parametrize("end", ["complete", "cut", "more", "none"])
def test_an_answer_on_an_open_connection_is_read_whatever_arrives_meanwhile(end: str) -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.run.on_bytes(body())
        now = time.monotonic() + FINISH_GRACE + 1
        run.run.carry_out(run.core.due(now))
        assert run.core.is_behind
        await turns(5)
        match end:
            case "complete":
                run.run.on_complete()
            case "cut":
                run.run.on_failure("read", "reset")
            case "more":
                run.run.on_bytes(b"\n{}")
        assert not run.core.due(now + 10 * FINISH_GRACE), "its end is not waited for twice"
        assert not run.host.sent
        await turns(MANY_TURNS)
        assert isinstance(run.end(), Finished)

    asyncio.run(story())


def test_a_connection_that_is_cut_after_a_whole_answer_changes_nothing() -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.run.on_bytes(body())
        run.run.on_failure("read", "reset")
        assert run.core.is_behind
        await turns(MANY_TURNS)
        assert isinstance(run.end(), Finished)

    asyncio.run(story())


def test_an_invalid_late_vector_ends_the_run_with_its_reason() -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.begin(body(last='"x"'))
        await turns(COUNT // 2)
        assert not run.host.sent
        await turns(MANY_TURNS)

        failed = run.end()
        assert isinstance(failed, Failed)
        assert failed.kind == "provider_protocol"
        assert "neither a list of numbers" in failed.reason

    asyncio.run(story())


def test_a_worker_that_stops_between_two_turns_reports_it() -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.begin(body())
        await turns(5)
        run.run.stop("it stops")
        failed = run.end()
        assert isinstance(failed, Failed)
        assert failed.kind == "worker_stopping"

    asyncio.run(story())


def test_no_vectors_are_packed_for_a_client_that_has_gone() -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.begin(body())
        await turns(5)
        run.run.abandon()
        await turns(MANY_TURNS)
        assert not run.host.sent
        assert run.exchange.calls[-1] == "close"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("number", "most"),
    [("956263361681119.4375", 0.15), ("1.7976931348623157e12", 0.15), ('""', 0.15)],
    ids=["slow", "powers", "quotes"],
)
def test_no_step_takes_long(number: str, most: float) -> None:
    row = ",".join([number] * (8 * MIB // COUNT // (len(number) + 1)))
    said = ('{"data":[' + ",".join([f'{{"embedding":[{row}]}}'] * COUNT) + "]}").encode()
    api = WIRE_FORMATS["openai-chat"].embeddings
    assert isinstance(api, SteppedApi)
    steps = api.read_steps(RunRequest(provider="p", model="m", messages=[], inputs=["a"] * COUNT, stream=False), said)
    longest, is_refused = 0.0, False
    while True:
        began = time.thread_time()
        try:
            next(steps)
        except StopIteration:
            break
        except LimitError:
            is_refused = True
            break
        finally:
            longest = max(longest, time.thread_time() - began)
    assert longest < most
    assert is_refused == (number == '""')


def test_a_large_error_body_instead_of_vectors_is_reported() -> None:
    async def story() -> None:
        run = EmbeddingRun()
        run.begin(json.dumps({"error": {"message": "busy " + "x" * SMALL, "code": "rate_limit_exceeded"}}).encode())
        await turns(MANY_TURNS)
        failed = run.end()
        assert isinstance(failed, Failed)
        assert failed.kind == "rate_limit"

    asyncio.run(story())


CHAT = {
    "openai-chat": b'{"choices":[{"message":{"content":"HOLE"},"finish_reason":"stop"}]}',
    "openai-responses": b'{"status":"completed","output":[{"type":"message","content":"HOLE"}]}',
    "anthropic": b'{"type":"message","content":[{"type":"text","text":"HOLE"}],"stop_reason":"end_turn"}',
    "google": b'{"candidates":[{"content":{"parts":[{"text":"HOLE"}]},"finishReason":"STOP"}]}',
}


def whole(api: str, *, is_streamed: bool) -> EmbeddingRun:
    request = RunRequest(provider="p", model="m", messages=[Message("user", "a")], stream=is_streamed)
    story = EmbeddingRun(api, request=request)
    story.begin(CHAT[api].replace(b"HOLE", b"x" * 2 * MIB))
    return story


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("api", CHAT)
def test_any_large_answer_in_one_piece_takes_several_turns(api: str, is_streamed: bool) -> None:
    async def story() -> None:
        run = whole(api, is_streamed=is_streamed)
        await turns(1)
        assert run.core.is_behind
        await turns(10)
        if is_streamed:
            run.run.carry_out(run.core.allow_more(Credit("sp_1", 1, 100, 10**9)))
            text = "".join(str(event) for message in run.host.sent[:-1] for event in message.events)
        else:
            text = run.host.sent[-1].message.text
        assert isinstance(run.host.sent[-1], Finished)
        assert text == "x" * 2 * MIB

    asyncio.run(story())


@pytest.mark.parametrize("mode", ["close", "drain"])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_abort_while_a_large_answer_is_read_ends_the_run(mode: Any, is_streamed: bool) -> None:
    async def story() -> None:
        run = whole("anthropic", is_streamed=is_streamed)
        await turns(1)
        run.run.carry_out(run.core.aborted(mode, 0.0))
        assert isinstance(run.end(), Aborted)
        await turns(10)
        run.end()

    asyncio.run(story())
