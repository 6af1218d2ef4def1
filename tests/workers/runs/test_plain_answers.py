"""Answers that come in one piece and are read at once: they end a run exactly as the same bytes read in steps."""

# ruff: noqa: ARG002 - fakes take what they are given

from __future__ import annotations

import asyncio
import copy
import json
import math
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.spans.span import Rank, Span
from headrace.text.secret_mask import SecretMask
from headrace.types import Message
from headrace.wire.messages import Aborted, Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.live_run import ConnectedClient, LiveRun
from headrace_workers.runs.short_run import ShortRun, plain_reader
from headrace_workers.runs.timeouts import ClockLimits
from headrace_workers.spans.run_span import EndedRun, Moment
from headrace_workers.spans.tracer import OpenSpan
from tests.workers.http.http_servers import HEADERS, Recorder, always, talking

BODY: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello.", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 9,
        "completion_tokens": 3,
        "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 2, "audio_tokens": 0},
    },
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}
CLAUDE: dict[str, Any] = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5-20251001",
    "content": [{"type": "text", "text": "Hello."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 9,
        "cache_creation_input_tokens": 2,
        "cache_read_input_tokens": 4,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 3,
        "service_tier": "standard",
    },
}
RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1,
    "status": "completed",
    "error": None,
    "incomplete_details": None,
    "model": "gpt-4o-2024-08-06",
    "output": [
        {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "content": [{"type": "output_text", "annotations": [], "logprobs": [], "text": "Hello."}],
            "role": "assistant",
        }
    ],
    "reasoning": {"effort": None, "summary": None},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
    "usage": {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 12,
    },
    "metadata": {},
}
BODIES = {"openai-chat": BODY, "anthropic": CLAUDE, "openai-responses": RESPONSE}
"""Wire format → its usual body."""
KEY = "sk-abcdefghijklmnopqrstuvwx"
MASK = SecretMask([KEY])
NO_LIMITS = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
SENT = HttpRequest("http://x/y", (), b"{}")
STUB = Span(span_id="sp_1", rank=Rank.STUB, provider="p", model="m")
SPAN = OpenSpan(1, STUB, Moment(0.0, 0.0), keeps_content=True)
NAMES = [
    "annotations", "audio", "cached_tokens", "choices", "completion_tokens", "completion_tokens_details", "content", "error",
    "finish_reason", "function_call", "id", "index", "logprobs", "message", "model", "native_finish_reason", "prompt_tokens",
    "prompt_tokens_details", "reasoning", "reasoning_content", "reasoning_tokens", "refusal", "role", "stop_reason", "text",
    "tool_calls", "total_tokens", "usage", "x_groq", "cache_creation", "cache_creation_input_tokens", "citations", "container",
    "input_tokens", "output", "output_tokens", "server_tool_use", "status", "stop_details", "type", "incomplete_details", "phase",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**54) | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(["stop", "length", "content_filter", KEY, "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


class Exchange:
    """The exchange of a request that was sent."""

    is_connected = True
    is_read = True

    def __getattr__(self, name: str) -> Any:
        return lambda: None


class Host:
    """A worker with one run: records what the run tells its client, and the facts for its span."""

    history = None

    def __init__(self, api: str = "openai-chat", **arguments: Any) -> None:
        request = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=False)
        self.request = msgspec.structs.replace(request, **arguments)
        self.api = WIRE_FORMATS[api].api
        own: Any = self
        self.loop = self.http = self.tracer = self.limits = self.deadlines = self.early_deadlines = own
        self.client = ConnectedClient(b"c")
        self.told: list[Any] = []
        self.spans: list[EndedRun] = []
        self.is_in_steps = False
        run = Run("sp_1", 1, 7, b"", 64, 65536)
        self.read_plain = plain_reader(self.api, self.request)
        if self.read_plain is not None:
            self.run = ShortRun(
                own, self.client, run, self.request, SENT, self.api, self.read_plain, NO_LIMITS, MASK, SPAN, 0
            )  # fmt: skip
            self.client.runs["sp_1"] = self.run
            self.run.start()

    def start(self, run: Any) -> None:
        run.start_now()

    def send(self, request: HttpRequest, receiver: Any, on_whole: Any = None) -> Any:
        return Exchange()

    def add(self, run: Any, began: float, limit: float) -> Any:
        return lambda _run, _default: None

    def call_later(self, *_: Any) -> Any:
        return self.loop

    def cancel(self) -> None:
        """Forget a timer."""

    def responded(self, *_: Any) -> None:
        """Note a response's head."""

    def commit_soon(self) -> None:
        """Write spans at the end of the turn."""

    def end(self, span: Any, facts: Any) -> None:
        self.spans.append(facts())

    def tell(self, client: Any, message: Any) -> None:
        self.told.append(message)

    def schedule(self, run: LiveRun) -> None:
        self.is_in_steps = True
        self.told += run.take(2.0)


def at_once(body: bytes, headers: dict[str, str], status: int = 200, api: str = "openai-chat") -> Host | None:
    """Return the host of a run that has read a body at once; None if the body was read in steps."""
    host = Host(api)
    host.run.on_whole(status, headers, body)
    assert not host.client.runs
    return None if host.is_in_steps else host


def in_steps(body: bytes, headers: dict[str, str], api: str = "openai-chat") -> Host:
    host = Host(api)
    live = host.run.as_live()
    live.on_response(200, headers)
    live.on_bytes(body)
    live.on_complete()
    return host


def facts_of(host: Host) -> list[EndedRun]:
    return [msgspec.structs.replace(facts, headers_at=0.0) for facts in host.spans]


def ends_alike(body: bytes, headers: dict[str, str], api: str = "openai-chat") -> bool:
    """Return whether a body is plain. Then check that it ends a run as the same body does in steps."""
    one = at_once(body, headers, api=api)
    if one is None:
        return False
    other = in_steps(body, headers, api)
    assert one.told == other.told
    assert facts_of(one) == facts_of(other)
    return True


@st.composite
def changed_bodies(draw: st.DrawFn) -> tuple[str, Any]:
    """Return a wire format, and its usual body with one or two values changed, added or taken away."""
    api = draw(st.sampled_from(sorted(BODIES)))
    body = copy.deepcopy(BODIES[api])
    for _ in range(draw(st.integers(0, 2))):
        place: Any = body
        for _ in range(draw(st.integers(0, 4))):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            inner = [place[key] for key in keys if isinstance(place[key], dict | list) and place[key]]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        if isinstance(place, list):
            place.insert(0, draw(VALUES))
            continue
        name = draw(st.sampled_from([*place, *NAMES]))
        if draw(st.booleans()):
            place[name] = draw(VALUES)
        else:
            place.pop(name, None)
    return api, body


@given(
    changed_bodies(),
    st.sampled_from(
        [{}, {"content-type": "application/json"}, {"content-type": "text/event-stream"}, {"x-request-id": KEY}]
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_a_body_that_is_read_at_once_ends_its_run_as_in_steps(
    changed: tuple[str, Any], headers: dict[str, str], indent: int | None, is_ascii: bool
) -> None:
    api, body = changed
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii)
    ends_alike(text.encode("utf-8", "surrogatepass"), headers, api)


@pytest.mark.parametrize("api", sorted(BODIES))
def test_the_usual_body_is_read_at_once(api: str) -> None:
    assert ends_alike(json.dumps(BODIES[api]).encode(), {"content-type": "application/json"}, api)


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ((), "unknown", "x"),
        (("choices", 0), "finish_reason", "content_filter"),
        (("choices", 0, "message"), "reasoning_content", "why"),
        (("choices", 0, "message"), "content", [{"type": "text", "text": "t"}]),
        (("choices", 0, "message"), "tool_calls", [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]),
        (("usage",), "cost", 1.0),
    ],
)
def test_any_other_body_is_read_in_steps(place: tuple[Any, ...], name: str, value: Any) -> None:
    body = copy.deepcopy(BODY)
    holder: Any = body
    for key in place:
        holder = holder[key]
    holder[name] = value
    assert at_once(json.dumps(body).encode(), {}) is None


def test_an_error_a_stream_and_an_aborted_run_are_read_in_steps() -> None:
    body = json.dumps(BODY).encode()
    assert at_once(body, {}, 500) is None
    assert at_once(body, {"x-request-id": KEY}) is None
    assert Host(stream=True).read_plain is None
    assert Host(logprobs=True).read_plain is None
    assert Host(inputs=["a"]).read_plain is None
    drained = Host()
    drained.run.as_live().carry_out(drained.run.as_live().core.aborted("drain", 0.5))
    drained.run.on_whole(200, {}, body)
    assert [type(message) for message in drained.told] == [Aborted]
    assert drained.told[0].usage.total_tokens == 12


def test_a_short_run_ends_once_however_it_ends() -> None:
    body = json.dumps(BODY).encode()
    ends: dict[str, tuple[Any, ...]] = {"abandon": (), "stop": ("the worker stops",), "broke": (OSError(),)}
    for end, arguments in ends.items():
        host = Host()
        getattr(host.run, end)(*arguments)
        assert len(host.spans) == 1
        assert not host.client.runs
        assert len(host.told) == (0 if end == "abandon" else 1)

    late = Host()
    late.run.time_is_over()
    late.run.on_whole(200, {}, body)
    assert [type(message) for message in late.told] == [Finished]


def _tell(told: asyncio.Queue[Any], *said: Any) -> None:
    told.put_nowait(said)


def test_a_response_in_one_piece_is_told_once_and_its_connection_is_kept() -> None:
    response = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 5\r\n\r\nhello"

    async def story() -> None:
        async with talking(always(response)) as (client, server):
            for _ in range(2):
                told: asyncio.Queue[Any] = asyncio.Queue()
                recorder = Recorder()
                client.send(HttpRequest(server.url, HEADERS, b"{}"), recorder, partial(_tell, told))
                status, headers, body = await told.get()
                assert (status, headers["x-one"], body, recorder.calls) == (200, "1", b"hello", [])
            assert len(server.peers) == 1

    asyncio.run(story())


def test_a_response_in_several_pieces_is_told_to_the_receiver() -> None:
    pieces = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"llo"]

    async def story() -> None:
        async def handler(peer: Any) -> None:
            for piece in pieces:
                peer.writer.write(piece)
                await peer.writer.drain()
                await recorder.read.wait()

        recorder = Recorder()
        async with talking(handler) as (client, server):
            client.send(HttpRequest(server.url, HEADERS, b"{}"), recorder, lambda *_: pytest.fail("told as a whole"))
            await recorder.ended.wait()
            assert (recorder.body, recorder.calls[0], recorder.calls[-1]) == (b"hello", "response", "complete")

    asyncio.run(story())


def test_the_two_kinds_of_end_are_the_only_ones() -> None:
    assert isinstance(in_steps(b'{"error": {"message": "no"}}', {}).told[-1], Failed)
    assert isinstance(in_steps(json.dumps(BODY).encode(), {}).told[-1], Finished)
