"""Answers that come in one piece and are read at once: they end a run exactly as the same bytes read in steps."""

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

from headrace.text.secret_mask import SecretMask
from headrace.types import Message
from headrace.wire.messages import Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import ClockLimits, Clocks
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
KEY = "sk-abcdefghijklmnopqrstuvwx"
MASK = SecretMask([KEY])
NO_LIMITS = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
NAMES = [
    "annotations", "audio", "cached_tokens", "choices", "completion_tokens", "completion_tokens_details", "content", "error",
    "finish_reason", "function_call", "id", "index", "logprobs", "message", "model", "native_finish_reason", "prompt_tokens",
    "prompt_tokens_details", "reasoning", "reasoning_content", "reasoning_tokens", "refusal", "role", "stop_reason", "text",
    "tool_calls", "total_tokens", "usage", "x_groq",
]  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2**54) | st.floats(allow_nan=False) | st.text(max_size=8) | st.sampled_from(["stop", "length", "content_filter", KEY, "\ud800"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


def run_of(api: str = "openai-chat", **arguments: Any) -> ProviderRun:
    request = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=False)
    request = msgspec.structs.replace(request, **arguments)
    run = Run("sp_1", 1, 7, b"", 64, 65536)
    return ProviderRun(run, request, WIRE_FORMATS[api].api, Clocks(NO_LIMITS, 0.0), MASK)


def at_once(body: bytes, headers: dict[str, str], status: int = 200) -> ProviderRun | None:
    """Return the run that has read a body at once; None if the body is not plain."""
    run = run_of()
    return None if run.answered(status, headers, body, 1.0) is None else run


def in_steps(body: bytes, headers: dict[str, str]) -> ProviderRun:
    run = run_of()
    run.responded(200, headers, 1.0)
    run.received(body, 1.0)
    run.completed(1.0)
    return run


def ends_alike(body: bytes, headers: dict[str, str]) -> bool:
    """Return whether a body is plain. Then check that it ends a run as the same body does in steps."""
    one = at_once(body, headers)
    if one is None:
        return False
    other = in_steps(body, headers)
    assert one.take(2.0)[0] == other.take(2.0)[0]
    assert one.for_span() == other.for_span()
    return True


@st.composite
def changed_bodies(draw: st.DrawFn) -> Any:
    """Return a usual body with one or two values changed, added or taken away."""
    body = copy.deepcopy(BODY)
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
    return body


@given(
    changed_bodies(),
    st.sampled_from(
        [{}, {"content-type": "application/json"}, {"content-type": "text/event-stream"}, {"x-request-id": KEY}]
    ),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_a_body_that_is_read_at_once_ends_its_run_as_in_steps(
    body: Any, headers: dict[str, str], indent: int | None, is_ascii: bool
) -> None:
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii)
    ends_alike(text.encode("utf-8", "surrogatepass"), headers)


def test_the_usual_body_is_read_at_once() -> None:
    assert ends_alike(json.dumps(BODY).encode(), {"content-type": "application/json"})


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
    assert run_of(stream=True).answered(200, {}, body, 1.0) is None
    assert run_of(logprobs=True).answered(200, {}, body, 1.0) is None
    drained = run_of()
    drained.aborted("drain", 0.5)
    assert drained.answered(200, {}, body, 1.0) is None
    aborted = run_of()
    aborted.aborted("close", 0.5)
    assert aborted.answered(200, {}, body, 1.0) is None


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
    run = in_steps(b'{"error": {"message": "no"}}', {})
    assert isinstance(run.take(2.0)[0][-1], Failed)
    run = in_steps(json.dumps(BODY).encode(), {})
    assert isinstance(run.take(2.0)[0][-1], Finished)
