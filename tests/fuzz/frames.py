"""Makes spoiled frames, and checks that a decoder gives messages that can be encoded again, or one of its two errors."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.types import Message, ReasoningDelta, TextPart, Tool, ToolCallDelta, ToolCallPart, Usage, UsageUpdate
from headrace.wire import codec
from headrace.wire.engine_status import LevelStatus, PoolStatus, ProcessStatus, SpendingStatus, WorkerStatus
from headrace.wire.messages import (
    Abort,
    Aborted,
    Acquire,
    AcquireMany,
    Chunk,
    Credit,
    Failed,
    Finished,
    Goodbye,
    Grant,
    GrantMany,
    Heartbeat,
    Hello,
    Hold,
    Joined,
    KeyReport,
    LeaseQuery,
    LeaseState,
    LimitReport,
    ProcessReport,
    Query,
    Refuse,
    Release,
    ReleaseMany,
    ResponseReport,
    Restart,
    RestartAnswer,
    Revoke,
    Run,
    RunState,
    SaidLimit,
    Status,
    StatusRequest,
    TokenCounts,
    ToolCallText,
    Vacated,
    Welcome,
)
from headrace.wire.run_request import RunRequest
from tests.fuzz.mutation import mutated

_SPAN = "sp_0123456789abcdef"
_CALL = ToolCallPart("c1", "f", {"a": [1, 2.5, None, {"b": "x"}]}, {"api": "google", "id": "c1"})
_REQUEST = RunRequest(
    provider="p",
    model="m",
    messages=[
        Message("user", "hi"),
        Message("assistant", [TextPart("x"), _CALL]),
        Message("tool", "r", tool_call_id="c1"),
    ],
    stream=True,
    tools=[Tool("f", "does", {"type": "object"})],
    custom_options={"seed": 7},
)
_PROCESS = ProcessStatus("worker-1", 12, "up", 0)
_QUESTION = Acquire(
    _SPAN, 1, "openai", "m", "batch", [3],
    account="key@address", user="user", tags=["a", "b"], input_tokens=9, max_output_tokens=8, max_wait=1.5,
    is_provider_retry=True, is_hedge=True,
)  # fmt: skip
_DECODERS: dict[str, codec.FrameDecoder[Any]] = {
    "to_broker": codec.to_broker,
    "from_broker": codec.from_broker,
    "to_worker": codec.to_worker,
    "from_worker": codec.from_worker,
}
_MESSAGES: dict[str, list[Any]] = {
    "to_broker": [
        Hello("worker", 0, 12, ["a"], "worker-1", "ipc:///x"),
        _QUESTION,
        Release(_SPAN, 1, "rate_limit", TokenCounts(9, 8, 7, "provider", 6), 429, 1.5, is_final=True, clock="connect"),
        Hold(_SPAN, 1, 7, _QUESTION, "key"),
        AcquireMany(_QUESTION, [(_SPAN, 3), ("sp_2", 4)]),
        ReleaseMany([Release(_SPAN, 1, "finished", TokenCounts(9, 8)), Release("sp_2", 2)]),
        LimitReport([ResponseReport(_SPAN, 1, 200, [SaidLimit("tokens", 60, 40, 1.5)])]),
        KeyReport({"openai": ["key", "other"]}),
        Restart(3, reload=True),
        RestartAnswer(3, "no", reload=True),
        StatusRequest(),
        Heartbeat(9, is_leaving=True),
        LeaseState([(_SPAN, 1, True), (_SPAN, 2, False)]),
        ProcessReport([_PROCESS]),
        Goodbye("bye"),
    ],
    "from_broker": [
        Welcome(0, 12, [], "0.1.0"),
        Grant(_SPAN, 1, "worker-1", "ipc:///x", 7, 12, "limit", "key", reports=True),
        GrantMany(Grant(_SPAN, 1, "worker-1", "ipc:///x", 7), ["sp_2", "sp_3"]),
        Refuse(_SPAN, 1, "queue_full", "full", 0.5),
        Joined("worker-1", 7),
        Vacated(),
        Revoke(_SPAN, 1),
        LeaseQuery([(_SPAN, 1, 12), (_SPAN, 2, 0)]),
        Restart(3, reload=True),
        RestartAnswer(3, "no", reload=True),
        Status(
            1,
            "0.1.0",
            3.0,
            1,
            1,
            0,
            9,
            0,
            [WorkerStatus("worker-1", 12, "up", 1, 0.1)],
            [_PROCESS],
            None,
            [PoolStatus("openai", "m", "key", [LevelStatus("tokens", 60, 40, "both")], 1, 2, 0.5, 9)],
            [SpendingStatus("daily", 1.5, 20.0)],
            {"limit": 2},
            "ok",
        ),
    ],
    "to_worker": [
        Query(_SPAN, 1),
        Run(
            _SPAN,
            1,
            7,
            codec.encode_request(_REQUEST),
            64,
            65_536,
            "key",
            waited_for="limit",
            key="key",
            reports=True,
            time_left=1.5,
            span_of=_SPAN,
        ),
        Credit(_SPAN, 1, 128, 99_999),
        Abort(_SPAN, 1, "drain", is_beaten=True),
    ],
    "from_worker": [
        Chunk(
            _SPAN, 1, 0, ["Hel", ReasoningDelta("hm"), ToolCallDelta(0, "c1", "f", "{}"), UsageUpdate(Usage(1, 2, 3))]
        ),
        Finished(
            span_id=_SPAN,
            attempt=1,
            sequence=4,
            text_length=3,
            finish_reason="tool_calls",
            provider_finish_reason="tool_calls",
            usage=Usage(1, 2, 3),
            tool_calls=[ToolCallText("c1", "f", "{}")],
            model="m",
            message=Message("assistant", [_CALL]),
        ),
        Failed(
            _SPAN,
            1,
            4,
            "rate_limit",
            "too many",
            status_code=429,
            retry_after=3.0,
            may_retry=True,
            is_final=True,
            maybe_billed=True,
        ),
        Aborted(_SPAN, 1, 4, Usage()),
        RunState(_SPAN, 1, is_running=True),
    ],
}


class Frame(msgspec.Struct, frozen=True):
    """A frame for one decoder, or (as ``request``) the bytes of a run request."""

    direction: str
    data: bytes


def make_frame(rng: random.Random) -> Frame:
    if rng.random() < 0.25:
        return Frame("request", mutated(rng, codec.encode_request(_REQUEST), _encoded(rng, "to_worker")))
    direction = rng.choice(list(_DECODERS))
    other = _encoded(rng, rng.choice(list(_DECODERS)))
    return Frame(direction, mutated(rng, _encoded(rng, direction), other))


def check_frame(frame: Frame) -> str:
    try:
        if frame.direction == "request":
            request = codec.decode_request(frame.data)
            assert codec.decode_request(codec.encode_request(request)) is not None
            return "request"
        epoch, messages = _DECODERS[frame.direction].decode(frame.data)
    except (RemoteProtocolError, ProtocolMismatchError) as error:
        return type(error).__name__
    codec.encode_frame(epoch, messages)
    return "messages"


def _encoded(rng: random.Random, direction: str) -> bytes:
    messages = _MESSAGES[direction]
    return codec.encode_frame(rng.getrandbits(40), rng.sample(messages, rng.randrange(1, len(messages) + 1)))
