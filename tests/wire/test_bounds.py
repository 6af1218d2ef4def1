"""Each list, number, text and map that a peer may send has a bound. A value beyond it is refused before it is made."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from headrace.errors import RemoteProtocolError
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.runs.session_commands import AskBroker
from headrace.spans.span import Rank, Span, decode_span, encode_span
from headrace.types import Message
from headrace.wire import codec
from headrace.wire.bounds import MAX_AVOIDED, MAX_NAME, MAX_REASON, cut
from headrace.wire.messages import Acquire, Hello, SpanBatch, ToBroker, ToCollector, ToWorker
from headrace.wire.run_request import RunRequest
from headrace.wire.value_count import count_values
from tests.repetition import repeated

HEARD = {
    "to_broker": (codec.to_broker, ToBroker),
    "to_worker": (codec.to_worker, ToWorker),
    "to_collector": (codec.to_collector, ToCollector),
}
# Figures that their receiver clamps. A refusal would end all runs of a client because of one odd figure.
CLAMPED = {
    "Run.sequence_limit",
    "Run.character_limit",
    "Run.queued",
    "Credit.sequence_limit",
    "Credit.character_limit",
    "Flush.timeout",
}
BY_THEIR_FRAME = {"SpanBatch.spans[]"}


def is_unbounded(kind: inspect.Type) -> bool:
    match kind:
        case inspect.StrType() | inspect.BytesType() | inspect.ListType() | inspect.DictType():
            return kind.max_length is None
        case inspect.IntType() | inspect.FloatType():
            return kind.ge is None or kind.le is None
        case _:
            return False


def parts(kind: inspect.Type, where: str) -> list[tuple[inspect.Type, str]]:
    match kind:
        case inspect.ListType():
            return [(kind.item_type, f"{where}[]")]
        case inspect.DictType():
            return [(kind.key_type, f"{where} key"), (kind.value_type, f"{where} value")]
        case inspect.TupleType():
            return [(part, f"{where}.{number}") for number, part in enumerate(kind.item_types)]
        case inspect.UnionType():
            return [(part, where) for part in kind.types]
        case inspect.StructType():
            return [(field.type, f"{kind.cls.__name__}.{field.name}") for field in kind.fields]
        case _:
            return []


def unbounded(kind: inspect.Type, where: str) -> Iterator[str]:
    """Yield the places in a type that have no bound."""
    if is_unbounded(kind):
        yield where
    for part, place in parts(kind, where):
        yield from unbounded(part, place)


@pytest.mark.parametrize("direction", HEARD)
def test_everything_that_a_peer_may_send_is_bounded(direction: str) -> None:
    union = HEARD[direction][1]
    places = {place for kind in get_args(union) for place in unbounded(inspect.type_info(kind), kind.__name__)}
    # Only the engine's own processes send these.
    places -= {
        place
        for place in places
        if place.startswith(("SpanStatus.", "SinkStatus.")) and not place.endswith(("[]", "key"))
    }
    assert places <= CLAMPED | BY_THEIR_FRAME


@pytest.mark.parametrize(
    ("message", "place"),
    [
        (Acquire("sp_1", 1, "p", "m", avoid=[0] * (MAX_AVOIDED + 1)), "length <= 256"),
        (Acquire("x" * 65, 1, "p", "m"), "length <= 64"),
        (Acquire("sp_1", -1, "p", "m"), ">= 0"),
        (Acquire("sp_1", 2**40, "p", "m"), "<= 2147483647"),
        (Acquire("sp_1", 1, "p" * (MAX_NAME + 1), "m"), "length <= 1024"),
        (Hello("client", 0, 1, ["c"] * 65), "length <= 64"),
        (Hello("client", 0, 1, ["c" * 65]), "length <= 64"),
        (Hello("client", 0, 1, endpoint="e" * 5000), "length <= 1024"),
        (SpanBatch(1, [b""] * 2000), "length <= 1024"),
        (SpanBatch(1, [], {str(number): 1 for number in range(65)}), "length <= 64"),
        (SpanBatch(1, [], {"r": -1}), ">= 0"),
        (SpanBatch(2**63, []), "<= 9223372036854775807"),
    ],
)
def test_a_message_beyond_a_bound_is_refused_by_name(message: msgspec.Struct, place: str) -> None:
    with pytest.raises(RemoteProtocolError, match=place):
        codec.to_broker.decode(codec.encode_frame(1, [message]))


def test_forty_million_numbers_are_refused_before_they_are_made() -> None:
    head, tail = codec.encode_frame(1, [Acquire("sp_1", 1, "p", "m", avoid=[7])]).split(b"\x91\x07")
    count = 4_000_000  # as many as the broker's frames have room for
    frame = head + b"\xdd" + count.to_bytes(4, "big") + b"\x07" * count + tail
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="length <= 256"):
        codec.to_broker.decode(frame)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


def test_the_error_of_a_bad_frame_is_short_however_long_the_frame_is() -> None:
    odd: Any = Hello("client", 0, 1)
    frame = codec.encode_frame(1, [odd]).replace(
        b"\xa6client", b"\xdb" + (1_000_000).to_bytes(4, "big") + b"r" * 1_000_000
    )
    with pytest.raises(RemoteProtocolError) as caught:
        codec.to_broker.decode(frame)
    assert len(str(caught.value)) <= 500


def test_a_long_model_name_is_cut_in_the_question_for_a_lease() -> None:
    session = Session(RunPlan("sp_1", "p", "m" * 5000, b"", streams=True))
    (question,) = session.start(0.0)
    assert isinstance(question, AskBroker)
    codec.to_broker.decode(codec.encode_frame(1, [question.message]))


def test_a_text_that_is_cut_ends_with_an_ellipsis() -> None:
    assert cut("short") == "short"
    assert cut("x" * MAX_REASON) == "x" * MAX_REASON
    assert cut("x" * 5000, 10) == "x" * 9 + "…"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.sampled_from(["x" * 300, "x" * 70_000, b"x" * 300, b"x" * 70_000, msgspec.msgpack.Ext(5, b"x" * 16)])
    | st.binary(max_size=300).map(lambda data: msgspec.msgpack.Ext(7, data)),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.lists(inner, max_size=1).map(lambda one: one * 70_000),
    max_leaves=10,
)  # fmt: skip


def number_of_values(value: Any) -> int:
    match value:
        case dict():
            return 1 + sum(number_of_values(key) + number_of_values(item) for key, item in value.items())
        case list():
            return (
                1 + len(value) * number_of_values(value[0])
                if len(value) == 70_000
                else 1 + sum(map(number_of_values, value))
            )
        case _:
            return 1


def bytes_of_texts(value: Any) -> int:
    """Return about how many bytes the texts in a value take. A text of 70 kB may be there 70,000 times: 5 GB."""
    match value:
        case dict():
            return sum(bytes_of_texts(key) + bytes_of_texts(item) for key, item in value.items())
        case list():
            return len(value) * bytes_of_texts(value[0]) if len(value) == 70_000 else sum(map(bytes_of_texts, value))
        case str() | bytes():
            return len(value)
        case _:
            return 0


@settings(max_examples=50, deadline=None)
@given(VALUES)
def test_values_are_counted_as_they_are_encoded(value: Any) -> None:
    count = number_of_values(value)
    if count < 300_000 and bytes_of_texts(value) < 10_000_000:
        data = msgspec.msgpack.encode(value)
        assert count_values(data, 10**9) == count
        assert count_values(memoryview(data), 3) <= 4


@settings(max_examples=repeated(30, 100), deadline=None)
@given(st.binary())
def test_broken_bytes_are_counted_without_an_error(data: bytes) -> None:
    assert count_values(data, 10) <= 11


def test_a_request_and_a_span_of_very_many_short_values_are_refused_before_they_are_made() -> None:
    many: list[Any] = [[]] * 2_000_000
    request = RunRequest(provider="p", model="m", messages=[], stream=True, custom_options={"x": many})
    span = Span(span_id="sp_1", rank=Rank.WORKER, provider="p", model="m", parameters={"x": many})
    encoded = codec.encode_request(request), encode_span(span)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="more than 200000 values"):
            codec.decode_request(encoded[0])
        with pytest.raises(RemoteProtocolError, match="too many values"):
            decode_span(encoded[1])
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_request_and_a_span_of_few_long_texts_are_accepted() -> None:
    text = "x" * 5_000_000
    request = RunRequest(provider="p", model="m", messages=[Message("user", text)] * 3, stream=True)
    span = Span(span_id="sp_1", rank=Rank.WORKER, provider="p", model="m", content=text.encode())

    assert codec.decode_request(codec.encode_request(request)) == request
    assert decode_span(encode_span(span)) == span
