"""Vectors of a large answer are packed while its body arrives: valid vectors, refused vectors, and other data."""

from __future__ import annotations

import json
import math
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace.wire.messages import Failed, Finished, Run
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.embeddings import arriving_vectors
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.answer_limits import MAX_VECTORS_BODY, MIB
from headrace_workers.runs import answer_bounds
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.timeouts import FINISH_GRACE, ClockLimits, Clocks
from tests.waiting import cpu_slack

PIECE = 256 * 1024
CHEAP = 0.25
"""Seconds of CPU for one piece of a body, and for its end: a third of the time that one turn of the loop may take."""
FLOATS = [struct.unpack("f", struct.pack("f", math.sin(place) / 30))[0] for place in range(3072)]
FORMS: dict[str, dict[str, Any]] = {
    "in one line": {"separators": (",", ":")},
    "with blanks": {},
    "a line for each number": {"separators": (",\n" + " " * 8, ": ")},
}


class ArrivingRun:
    """A run of embeddings whose answer arrives in pieces."""

    def __init__(self, texts: int, api: str = "openai-chat") -> None:
        allowed = ClockLimits(connect=math.inf, first_chunk=math.inf, idle=math.inf, total=math.inf)
        request = RunRequest(provider="p", model="m", messages=[], inputs=["a"] * texts, stream=False)
        embeddings = WIRE_FORMATS[api].embeddings
        assert embeddings is not None
        self.core = ProviderRun(Run("sp_1", 1, 7, b"", 64, 65536), request, embeddings, Clocks(allowed, 0.0))
        self.core.responded(200, {"content-type": "application/json"}, 0.0)
        self.slowest = 0.0
        self.held = 0

    def receive(self, body: bytes, piece: int = PIECE) -> None:
        for start in range(0, len(body), piece):
            if self.core.has_ended:
                return
            began = time.thread_time()
            self.core.received(body[start : start + piece], 0.0)
            self.slowest = max(self.slowest, time.thread_time() - began)
            self.held = max(self.held, len(self.core.response.body))

    def end(self) -> Any:
        self.core.completed(0.0)
        (message,) = self.core.take(0.0)[0]
        return message


def answer(api: str, count: int, row: list[float], **form: Any) -> bytes:
    """Return an answer of equal vectors. One vector is encoded, and repeated."""
    said = json.dumps(row, **form)
    if api == "google":
        return b'{"embeddings":[' + b",".join([b'{"values": %b}' % said.encode()] * count) + b"]}"
    rows = ",".join([f'{{"object":"embedding","index":{place},"embedding" : {said}}}' for place in range(count)])
    return f'{{"object":"list","data":[{rows}],"model":"m-1","usage":{{"prompt_tokens":3,"total_tokens":3}}}}'.encode()


def vectors_of(message: Any) -> list[list[float]]:
    assert isinstance(message, Finished), message
    vectors: Any = message.vectors
    return [msgspec.msgpack.decode(vector) if isinstance(vector, msgspec.Raw) else vector for vector in vectors]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("api", ["openai-chat", "google"])
def test_vectors_of_a_body_larger_than_may_be_held_are_those_that_came(
    api: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_bounds, "MAX_VECTORS_BODY", limit := 3 * MIB)
    body = answer(api, count := limit // len(json.dumps(row := FLOATS, **FORMS[form])) + 5, row, **FORMS[form])
    assert len(body) > limit
    story = ArrivingRun(count, api)
    story.receive(body)
    message = story.end()

    assert story.held < limit
    assert story.slowest < CHEAP * cpu_slack()
    found = vectors_of(message)
    assert len(found) == count
    assert found[0] == found[count // 2] == found[-1] == row


def test_a_frame_full_of_numbers_passes() -> None:
    """2,048 texts with 3,072 numbers each: 82 MiB of JSON, and 57 MiB packed."""
    row = [round(number, 8) for number in FLOATS]
    story = ArrivingRun(2048)
    story.receive(answer("openai-chat", 2048, row, **FORMS["in one line"]))

    assert story.held < 3 * MIB
    assert story.slowest < CHEAP * cpu_slack()
    message = story.end()
    assert isinstance(message, Finished)
    vectors: Any = message.vectors
    assert len(vectors) == 2048
    assert msgspec.msgpack.decode(vectors[-1]) == row


@pytest.mark.parametrize("size", [65536, 100_003, 10**9])
def test_the_vectors_do_not_depend_on_the_splits_of_the_body(size: int) -> None:
    rows = [[float(place), *FLOATS[:500]] for place in range(300)]
    data = [{"index": 299 - place, "embedding": row} for place, row in enumerate(rows)]
    story = ArrivingRun(300)
    story.receive(json.dumps({"data": data}).encode(), size)

    assert vectors_of(story.end()) == rows[::-1]


def test_an_answer_on_a_connection_that_stays_open_is_whole() -> None:
    story = ArrivingRun(100)
    story.receive(answer("openai-chat", 100, FLOATS))
    assert story.core._answer.holds_whole()
    story.core.due(FINISH_GRACE + 1)
    (message,) = story.core.take(0.0)[0]

    assert vectors_of(message) == [FLOATS] * 100


def refusal(story: ArrivingRun, body: bytes) -> str:
    story.receive(body)
    message = story.end()
    assert isinstance(message, Failed)
    assert message.kind == "provider_protocol"
    assert story.slowest < CHEAP * cpu_slack()
    assert story.held < MAX_VECTORS_BODY + MIB
    return message.reason


def rows_of(row: bytes, count: int) -> bytes:
    return b'{"data":[' + b",".join([b'{"embedding":[%b]}' % row] * count) + b"]}"


@pytest.mark.parametrize(
    ("make_row", "count", "reason"),
    [
        (lambda: b",".join([b"1e308"] * 1000), 3000, "large exponents"),
        (lambda: b",".join([b"9" * 4200] * 50), 100, "large exponents or very many digits"),
        (lambda: b"1," * 70_000 + b"1", 20, "65535 numbers in one vector"),
        (lambda: b"1," * 60_000 + b"1", 200, "6400000 numbers"),
        (lambda: b" " * 2 * MIB + b"1" + b" " * 48 * MIB, 1, "48 MiB"),
        (lambda: b",".join([b"1e5-"] * 60_000), 8, "neither a list of numbers"),
    ],
    ids=["exponents", "digits", "dimensions", "numbers", "blanks", "no numbers"],
)
def test_vectors_over_a_limit_are_refused_while_they_arrive(
    make_row: Callable[[], bytes], count: int, reason: str
) -> None:
    assert reason in refusal(ArrivingRun(count), rows_of(make_row(), count))


def test_an_answer_has_a_limit_of_bytes_beside_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arriving_vectors, "MAX_BYTES", 8 * MIB)
    assert "6400000 numbers" in refusal(ArrivingRun(40), rows_of(b"1," + b" " * MIB + b"1", 40))


@pytest.mark.parametrize("unit", [b"]", b'"embedding":[],', b"["])
def test_millions_of_brackets_are_searched_once(unit: bytes) -> None:
    refusal(ArrivingRun(1), b'{"data":[' + unit * (49 * MIB // len(unit)))


@pytest.mark.parametrize(
    "other",
    [
        '"x":[' + "1," * 500 + "1]",
        '"message":' + json.dumps('"embedding":[' + "1," * 500 + "1]"),
        '"x":"~0~","model":"~0~"',
    ],
    ids=["another list", "a list in a text", "the word that stands for one"],
)
def test_a_list_that_is_no_vector_stays_in_the_body(other: str) -> None:
    body = b'{%b,"data":[%b]}' % (other.encode(), b",".join([b'{"embedding":%b}' % json.dumps(FLOATS).encode()] * 40))
    story = ArrivingRun(40)
    story.receive(body)
    assert other.encode() in bytes(story.core.response.body)

    assert vectors_of(story.end()) == [FLOATS] * 40


@pytest.mark.parametrize("place", ["~0~", "~39~", "~1000000~", "~-1~", "~x~"])
def test_a_server_cannot_name_the_vectors_by_their_placeholders(place: str) -> None:
    rows = [b'{"embedding":%b}' % json.dumps(FLOATS).encode()] * 40
    story = ArrivingRun(41)
    story.receive(b'{"data":[%b,{"embedding":"%b"}]}' % (b",".join(rows), place.encode()))
    message = story.end()

    assert isinstance(message, Failed) or vectors_of(message) == [FLOATS] * 41


def test_an_error_after_vectors_is_reported() -> None:
    story = ArrivingRun(40)
    error = b'"error":{"message":"busy","code":"rate_limit_exceeded"}'
    story.receive(b'{"x":[%b],%b}' % (b",".join([b'{"embedding":%b}' % json.dumps(FLOATS).encode()] * 40), error))
    message = story.end()

    assert isinstance(message, Failed)
    assert message.kind == "rate_limit"
