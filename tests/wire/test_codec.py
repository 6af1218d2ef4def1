"""Frames: each message arrives as it was sent, and all other bytes raise one kind of error."""

from __future__ import annotations

import contextlib
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.arguments.checked_request import RunOptions
from headrace.errors import ProtocolMismatchError, RemoteProtocolError
from headrace.runs.run_plan import RunPlan
from headrace.runs.session_commands import TellWorker
from headrace.types import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    ReasoningDelta,
    TextPart,
    Tool,
    ToolCallDelta,
    ToolCallPart,
    Usage,
    UsageUpdate,
)
from headrace.wire import codec
from headrace.wire.codec import FrameDecoder, decode_request, encode_frame, encode_request
from headrace.wire.engine_status import ProcessStatus, WorkerStatus
from headrace.wire.messages import (
    PROTOCOL_MAJOR,
    Abort,
    Aborted,
    Acquire,
    AcquireMany,
    Chunk,
    Credit,
    Failed,
    Finished,
    FromBroker,
    FromWorker,
    Goodbye,
    Grant,
    GrantMany,
    Heartbeat,
    Hello,
    ProcessReport,
    Refuse,
    Release,
    ReleaseMany,
    Run,
    Status,
    StatusRequest,
    ToBroker,
    TokenCounts,
    ToolCallText,
    ToWorker,
    Welcome,
)
from headrace.wire.run_request import RunRequest
from headrace_workers.http.http_request import HttpRequest
from tests.cases import each
from tests.repetition import repeated

DIRECTIONS: dict[str, tuple[FrameDecoder[Any], Any]] = {
    "to_broker": (codec.to_broker, ToBroker),
    "from_broker": (codec.from_broker, FromBroker),
    "to_worker": (codec.to_worker, ToWorker),
    "from_worker": (codec.from_worker, FromWorker),
}
MESSAGE_TYPES = sorted(
    {kind for _, union in DIRECTIONS.values() for kind in get_args(union)}, key=lambda kind: kind.__name__
)
DECODERS = [decoder for decoder, _ in DIRECTIONS.values()]
VERSION = bytes([PROTOCOL_MAJOR])
pack = msgspec.msgpack.encode

# Strategies, read off the declared types, so that a new field is tested from the day it is there.

_TEXT = st.text(max_size=12)
_INT = st.integers(-(2**63), 2**64 - 1)
_ANYTHING = st.recursive(
    st.none() | st.booleans() | _INT | st.floats(allow_nan=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=4,
)


_SIMPLE: dict[type[msgspec.inspect.Type], st.SearchStrategy[Any]] = {
    msgspec.inspect.StrType: _TEXT,
    msgspec.inspect.BoolType: st.booleans(),
    msgspec.inspect.FloatType: st.floats(allow_nan=False),
    msgspec.inspect.BytesType: st.binary(max_size=20),
    msgspec.inspect.NoneType: st.none(),
    msgspec.inspect.AnyType: _ANYTHING,
}


def values_of(kind: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a declared type."""
    match kind:
        case msgspec.inspect.LiteralType():
            return st.sampled_from(kind.values)
        case msgspec.inspect.IntType():
            least, most = kind.ge, kind.le
            return st.integers(-(2**63) if least is None else least, 2**64 - 1 if most is None else most)
        case msgspec.inspect.FloatType() if kind.ge is not None:
            return st.floats(kind.ge, kind.le)
        case msgspec.inspect.UnionType():
            return st.one_of([values_of(part) for part in kind.types])
        case msgspec.inspect.ListType():
            return st.lists(values_of(kind.item_type), max_size=3)
        case msgspec.inspect.TupleType():
            return st.tuples(*[values_of(part) for part in kind.item_types])
        case msgspec.inspect.DictType():
            return st.dictionaries(values_of(kind.key_type), values_of(kind.value_type), max_size=3)
        case msgspec.inspect.StructType():
            return st.builds(kind.cls, **{field.name: values_of(field.type) for field in kind.fields})
        case _:
            return _SIMPLE[type(kind)]


def instances(struct: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    return values_of(msgspec.inspect.type_info(struct))


def is_refused(decoder: FrameDecoder[Any], frame: bytes) -> bool:
    """Return whether a frame is refused. An exception that is not promised fails the test."""
    try:
        epoch, messages = decoder.decode(frame)
    except (RemoteProtocolError, ProtocolMismatchError):
        return True
    assert isinstance(epoch, int)
    assert isinstance(messages, list)
    return False


# What is sent arrives.


@pytest.mark.parametrize("struct", MESSAGE_TYPES, ids=lambda struct: struct.__name__)
def test_each_message_arrives_as_it_was_sent(struct: type[msgspec.Struct]) -> None:
    @settings(deadline=None, max_examples=repeated(10, 25), suppress_health_check=[HealthCheck.too_slow])
    @given(epoch=st.integers(0, 2**63 - 1), messages=st.lists(instances(struct), max_size=3))
    def check(epoch: int, messages: list[msgspec.Struct]) -> None:
        frame = encode_frame(epoch, messages)
        for decoder, union in DIRECTIONS.values():
            if struct in get_args(union):
                assert decoder.decode(frame) == (epoch, messages)

    check()


@settings(deadline=None, max_examples=repeated(20, 40), suppress_health_check=[HealthCheck.too_slow])
@given(request=instances(RunRequest))
def test_each_request_arrives_as_it_was_made(request: RunRequest) -> None:
    assert decode_request(encode_request(request)) == request


def test_a_frame_carries_several_messages_in_order() -> None:
    messages = [Chunk("s", 1, 0, ["a"]), Chunk("t", 1, 0, ["b"]), Chunk("s", 1, 1, ["c"])]

    assert codec.from_worker.decode(encode_frame(7, messages)) == (7, messages)


def test_a_message_of_another_direction_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        codec.to_broker.decode(encode_frame(1, [Grant("s", 1, "w", "ipc://w", 1)]))
    with pytest.raises(RemoteProtocolError):
        codec.from_worker.decode(encode_frame(1, [Credit("s", 1, 1, 1)]))


# Bytes that no process of Headrace sends.


@settings(deadline=None, max_examples=repeated(60, 300))
@given(frame=st.binary(max_size=60))
def test_any_bytes_are_a_frame_or_a_protocol_error(frame: bytes) -> None:
    for decoder in DECODERS:
        is_refused(decoder, frame)
        is_refused(decoder, VERSION + frame)
        is_refused(decoder, VERSION + b"\x92\x01\x91" + frame)


USAGE = Usage(1, 2, 3, source="provider")
FRAMES = [
    encode_frame(7, messages)
    for messages in (
        [Hello("worker", 0, 7, ["x"], "w1", "ipc://w"), Heartbeat()],
        [Acquire("s", 1, "openai", "m", "batch", [1, 2]), Release("s", 1), StatusRequest(), Goodbye("bye")],
        [AcquireMany(Acquire("s", 1, "p", "m"), [("t", 9)]), ReleaseMany([Release("s", 1), Release("t", 1)])],
        [GrantMany(Grant("s", 1, "w1", "ipc://w", 9), ["t", "u"])],
        [ProcessReport([ProcessStatus("w1", 7, "running", 0), ProcessStatus("w2", None, "waiting", 3, "died")])],
        [Welcome(0, 7, [], "0.1"), Grant("s", 1, "w1", "ipc://w", 9), Refuse("s", 1, "queue_full", "full", 1.5)],
        [Status(1, "0.1", 2.5, 1, 2, 3, 4, 5, [WorkerStatus("w1", 7, "ok", 2, 0.5)], [])],
        [Run("s", 1, 7, b"request", 64, 65536, "key"), Credit("s", 1, 96, 98304), Abort("s", 1, "drain")],
        [Chunk("s", 1, 0, ["text", ReasoningDelta("r"), ToolCallDelta(0, "c", "f", "{}"), UsageUpdate(USAGE)])],
        [Finished("s", 1, 4, 4, "stop", "stop", USAGE, [ToolCallText("c", "f", "{}")], "m", Message("assistant", "x"))],
        [Failed("s", 1, 0, "timeout", "late", USAGE, 500, "req", "code", 1.5, "idle", 2.0, "half")],
        [Aborted("s", 1, 4, USAGE), Goodbye("bye")],
    )
]
REQUESTS = [
    encode_request(RunRequest(provider="p", model="m", messages=[Message("user", "Hello")], stream=True)),
    encode_request(
        RunRequest(
            provider="p",
            model="m",
            messages=[
                Message("assistant", [TextPart("x", {"a": [1]}), ImagePart("u"), ToolCallPart("c", "f", {"a": 1})])
            ],
            stream=False,
            tools=[Tool("f", "does f", {"type": "object"})],
            tool_choice={"tool": "f"},
            temperature=0.5,
            custom_options={"a": [None, True, 1.5, {"b": "c"}]},
            tags=["x"],
            trace_id="tr_1",
        )
    ),
]
DAMAGE = st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=4)


def damaged(whole: bytes, damage: list[tuple[int, int]], cut: int) -> bytes:
    """Return ``whole`` with some bytes replaced, and its end cut off or not."""
    changed = bytearray(whole)
    for place, byte in damage:
        changed[place % len(changed)] = byte
    return bytes(changed[: cut % (2 * len(changed))])


@settings(deadline=None, max_examples=repeated(60, 300))
@given(frame=st.sampled_from(FRAMES), damage=DAMAGE, cut=st.integers(0))
def test_a_damaged_frame_is_a_frame_or_a_protocol_error(frame: bytes, damage: list[tuple[int, int]], cut: int) -> None:
    for decoder in DECODERS:
        is_refused(decoder, VERSION + damaged(frame[1:], damage, cut))


@settings(deadline=None, max_examples=repeated(60, 300))
@given(request=st.sampled_from(REQUESTS), damage=DAMAGE, cut=st.integers(0))
def test_a_damaged_request_is_a_request_or_a_protocol_error(
    request: bytes, damage: list[tuple[int, int]], cut: int
) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(decode_request(damaged(request, damage, cut)), RunRequest)


@settings(deadline=None)
@given(frame=st.sampled_from(FRAMES), tail=st.binary(min_size=1, max_size=5))
def test_a_frame_with_something_behind_it_is_refused(frame: bytes, tail: bytes) -> None:
    for decoder in DECODERS:
        assert is_refused(decoder, frame + tail)


HOSTILE = {
    "nothing": b"",
    "version alone": VERSION,
    "no array": VERSION + b"\x01",
    "one element": VERSION + b"\x91\x01",
    "three elements": VERSION + b"\x93\x01\x90\x01",
    "epoch is text": VERSION + b"\x92\xa1a\x90",
    "epoch is beyond 64 bits": VERSION + b"\x92\xcb\x7f\xef\xff\xff\xff\xff\xff\xff\x90",
    "unknown tag": VERSION + b"\x92\x01\x91\x91\x7f",
    "tag is text": VERSION + b"\x92\x01\x91\x92\xa1a\x01",
    "no tag": VERSION + b"\x92\x01\x91\x90",
    "fields are missing": VERSION + b"\x92\x01\x91\x91\x20",
    "four thousand million in the frame": VERSION + b"\xdd\xff\xff\xff\xff",
    "four thousand million messages": VERSION + b"\x92\x01\xdd\xff\xff\xff\xff",
    "four thousand million fields": VERSION + b"\x92\x01\x91\xdd\xff\xff\xff\xff\x28",
    "four thousand million events": VERSION + b"\x92\x01\x91\x95\x28\xa1s\x01\x00\xdd\xff\xff\xff\xff",
    "four thousand million letters": VERSION + b"\x92\x01\x91\x95\x28\xdb\xff\xff\xff\xff",
    "four thousand million bytes": VERSION + b"\x92\x01\x91\x98\x1e\xa1s\x01\x01\xc6\xff\xff\xff\xff",
    "a hundred thousand arrays deep": VERSION + b"\x92\x01" + b"\x91" * 100_000,
    "broken utf-8": VERSION + b"\x92\x01\x91\x93\x0d\xa2\xff\xfe\x01",
    "half a surrogate pair": VERSION + b"\x92\x01\x91\x93\x0d\xa3\xed\xa0\x80\x01",
    "the byte that is never used": VERSION + b"\xc1" * 10,
}


@pytest.mark.parametrize("frame", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_frame_is_a_protocol_error(frame: bytes) -> None:
    for decoder in DECODERS:
        with pytest.raises(RemoteProtocolError):
            decoder.decode(frame)


HOSTILE_VALUES = {
    "map as key": b"\x81\x80\x01",
    "map in a list as key": b"\x81\x91\x80\x01",
    "huge map": b"\xdf\xff\xff\xff\xff",
    "huge list": b"\xdd\xff\xff\xff\xff",
    "huge key": b"\x81\xdd\xff\xff\xff\xff",
    "huge extension": b"\xc9\xff\xff\xff\xff\x05",
    "time out of range": b"\xc7\x0c\xff\x00\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff",
    "a hundred thousand lists deep": b"\x91" * 100_000 + b"\x90",
    "a hundred thousand maps deep": b"\x81\xa1a" * 100_000 + b"\x80",
}


@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES.keys())
def test_a_hostile_value_where_anything_goes_is_a_protocol_error(value: bytes) -> None:
    fields = [("provider", pack("p")), ("model", pack("m")), ("messages", b"\x90"), ("stream", b"\xc3")]
    good = b"".join(pack(name) + encoded for name, encoded in fields)
    assert decode_request(b"\x85" + good + pack("custom_options") + b"\x80").custom_options == {}

    with pytest.raises(RemoteProtocolError):
        decode_request(b"\x85" + good + pack("custom_options") + b"\x81\xa1a" + value)


NESTED = {
    "lists": b"\x91" * 100_000 + b"\x90",
    "maps": b"\x81\xa1a" * 100_000 + b"\x80",
    "lists in maps": b"\x81\xa1a\x91" * 50_000 + b"\x90",
}
MARK = "here anything goes"
WITH_ANYTHING: dict[str, TextPart | ToolCallPart] = {
    "opaque of a part": TextPart("x", {"a": MARK}),
    "extra of a part": TextPart("x", extra={"a": MARK}),
    "arguments of a call": ToolCallPart("c", "f", {"a": MARK}),
}


@pytest.mark.parametrize("value", NESTED.values(), ids=NESTED.keys())
@pytest.mark.parametrize("part", WITH_ANYTHING.values(), ids=WITH_ANYTHING.keys())
def test_a_message_with_a_value_too_deep_to_read_is_a_protocol_error(
    part: TextPart | ToolCallPart, value: bytes
) -> None:
    message = Finished("s", 1, 0, 0, "stop", "stop", USAGE, [], "m", Message("assistant", [part]))
    frame = encode_frame(1, [message])
    assert codec.from_worker.decode(frame) == (1, [message])
    assert pack(MARK) in frame

    with pytest.raises(RemoteProtocolError, match="recursion"):
        codec.from_worker.decode(frame.replace(pack(MARK), value))


# Versions.


@pytest.mark.parametrize("version", [0, PROTOCOL_MAJOR + 1, 255])
def test_another_major_version_is_a_mismatch_that_names_both(version: int) -> None:
    for decoder in DECODERS:
        with pytest.raises(ProtocolMismatchError) as caught:
            decoder.decode(bytes([version]) + encode_frame(1, [])[1:])
        assert (caught.value.ours, caught.value.theirs) == (PROTOCOL_MAJOR, version)


@pytest.mark.parametrize("struct", MESSAGE_TYPES, ids=lambda struct: struct.__name__)
def test_fields_of_a_newer_minor_version_are_ignored(struct: type[msgspec.Struct]) -> None:
    @settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow])
    @given(message=instances(struct), more=st.lists(_ANYTHING, min_size=1, max_size=2))
    def check(message: msgspec.Struct, more: list[Any]) -> None:
        fields = [*msgspec.msgpack.decode(pack(message)), *more]
        for decoder, union in DIRECTIONS.values():
            if struct in get_args(union):
                assert decoder.decode(VERSION + pack((1, [fields]))) == (1, [message])

    check()


def test_a_request_s_field_of_a_newer_minor_version_is_ignored() -> None:
    request = RunRequest(provider="p", model="m", messages=[], stream=True)
    newer = msgspec.msgpack.decode(encode_request(request)) | {"colour": "red"}

    assert decode_request(pack(newer)) == request


@pytest.mark.parametrize(
    "request_",
    [
        RunRequest(provider="p", model="m", messages=[Message("user", "x", extra={"name": "Ann"})], stream=True),
        RunRequest(provider="p", model="m", messages=[Message("user", [TextPart("x", extra={"a": 1})])], stream=True),
        RunRequest(provider="p", model="m", messages=[], stream=True, tools=[Tool("f", extra={"a": 1})]),
        RunRequest(provider="p", model="m", messages=[], stream=True, tools=[Tool("f", type="web_search")]),
    ],
    ids=["message", "part", "tool", "type of a tool"],
)
def test_a_worker_that_knows_nothing_of_extra_keys_refuses_a_request_that_has_some(request_: RunRequest) -> None:
    encoded = encode_request(request_)

    with pytest.raises(msgspec.ValidationError):  # as the workers of version 1.1 decode it
        msgspec.msgpack.decode(encoded, type=RunRequest)
    assert decode_request(encoded) == request_


@each(
    "option",
    [
        {"seed": 0},
        {"parallel_tool_calls": False},
        {"frequency_penalty": 0.0},
        {"presence_penalty": 0.0},
        {"top_k": 1},
        {"logprobs": False},
        {"top_logprobs": 0},
        {"metadata": {"a": "b"}},
        {"service_tier": "flex"},
        {"verbosity": "low"},
    ],
)
def test_a_worker_that_knows_nothing_of_an_option_refuses_a_request_that_has_it(option: dict[str, Any]) -> None:
    tool = Tool("f", extra={"a": 1})
    request = RunRequest(provider="p", model="m", messages=[], stream=True, tools=[tool], **option)
    encoded = encode_request(request)

    assert msgspec.msgpack.decode(encoded)[0] == ["extra", "options"]
    assert decode_request(encoded) == request


@pytest.mark.parametrize(
    "part",
    [
        AudioPart("QQ==", "audio/wav"),
        FilePart(file_id="f"),
        ImagePart(file_id="f"),
        ImagePart(data="QQ==", media_type="image/png", provider_data={"a": 1}),
    ],
)
def test_a_worker_that_knows_nothing_of_audio_and_files_refuses_a_request_that_has_them(part: Part) -> None:
    request = RunRequest(provider="p", model="m", messages=[Message("user", [part])], stream=True)
    encoded = encode_request(request)

    assert msgspec.msgpack.decode(encoded)[0] == ["media"]
    assert decode_request(encoded) == request


def test_a_request_of_a_newer_minor_version_is_refused_by_what_it_needs() -> None:
    request = msgspec.Raw(encode_request(RunRequest(provider="p", model="m", messages=[], stream=True)))

    with pytest.raises(RemoteProtocolError, match="does not know colour, sound"):
        decode_request(pack((["sound", "extra", "colour"], request)))


def test_fields_with_defaults_may_be_left_out_by_an_older_minor_version() -> None:
    assert codec.to_broker.decode(VERSION + pack((1, [[10, "s", 1, "p", "m"]]))) == (1, [Acquire("s", 1, "p", "m")])


def test_a_release_of_an_older_minor_version_says_nothing_of_how_the_attempt_ended() -> None:
    assert codec.to_broker.decode(VERSION + pack((1, [[13, "s", 1]]))) == (1, [Release("s", 1)])


@pytest.mark.parametrize(
    ("message", "encoded"),
    [
        (
            Acquire("s", 2, "p", "m", "batch", [7]),
            [10, "s", 2, "p", "m", "batch", [7], True, False, "", "", [], 0, 0, None, False, False],
        ),
        (Release("s", 1), [13, "s", 1, "", None, None, None, False, ""]),
        (
            Release("s", 1, "rate_limit", TokenCounts(3, 2, 1, "provider"), 429, 1.5),
            [13, "s", 1, "rate_limit", [3, 2, 1, "provider", 0], 429, 1.5, False, ""],
        ),
        (
            AcquireMany(Acquire("s", 1, "p", "m"), [("t", 9)]),
            [
                60,
                [10, "s", 1, "p", "m", "interactive", [], True, False, "", "", [], 0, 0, None, False, False],
                [["t", 9]],
            ],
        ),
        (
            GrantMany(Grant("s", 1, "w", "ipc://w", 9), ["t"]),
            [61, [11, "s", 1, "w", "ipc://w", 9, 0, "", "", False], ["t"]],
        ),
        (ReleaseMany([Release("s", 1)]), [62, [[13, "s", 1, "", None, None, None, False, ""]]]),
        (Heartbeat(), [20, -1, False]),
        (Credit("s", 1, 64, 65536), [31, "s", 1, 64, 65536]),
        (Chunk("s", 1, 0, ["Hel"]), [40, "s", 1, 0, ["Hel"]]),
        (Run("s", 1, 7, b"r", 64, 9, "k"), [30, "s", 1, 7, b"r", 64, 9, "k", 0.0, None, "", "", False, None, ""]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_order_of_fields_on_the_wire_stays(message: msgspec.Struct, encoded: list[Any]) -> None:
    assert msgspec.msgpack.decode(encode_frame(5, [message])[1:]) == [5, [encoded]]


# Keys.

SECRETIVE: list[msgspec.Struct] = [
    Run("s", 1, 7, b"sk-secret", 64, 9, "sk-secret"),
    TellWorker(Run("s", 1, 7, b"sk-secret", 64, 9, "sk-secret")),
    RunPlan("s", "p", "m", b"sk-secret", True, "sk-secret"),
    RunOptions(span_id="s", provider_api_key="sk-secret", priority="batch", on_abort="close"),
    HttpRequest("https://x", (("authorization", "Bearer sk-secret"),), b"sk-secret"),
]


@pytest.mark.parametrize("struct", SECRETIVE, ids=lambda struct: type(struct).__name__)
def test_nothing_that_holds_a_key_shows_it(struct: msgspec.Struct) -> None:
    assert "secret" not in f"{struct} {struct!r} {[struct]!r}"


@pytest.mark.parametrize(
    "struct", [each for each in SECRETIVE if not isinstance(each, TellWorker)], ids=lambda struct: type(struct).__name__
)
def test_nothing_that_holds_a_key_shows_it_to_rich(struct: Any) -> None:
    assert "secret" not in repr(list(struct.__rich_repr__()))
