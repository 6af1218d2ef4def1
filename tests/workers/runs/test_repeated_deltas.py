"""A stream that is read by its repeated bytes has the same events and the same result as one that is decoded event by event."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.types import Message, RunEvent
from headrace.wire.run_request import RunRequest
from headrace_workers.providers.registry import WIRE_FORMATS
from headrace_workers.providers.shared.wire_format import Completion, ProviderApi, ProviderFailure
from headrace_workers.runs.answer_reader import UNREADABLE, AnswerReader
from headrace_workers.runs.repeated_deltas import NumberedDeltas, RepeatedDeltas
from headrace_workers.runs.response_body import Response
from headrace_workers.runs.terminal_message import unreadable
from tests.workers import corpus

REQUEST = RunRequest(provider="p", model="m", messages=[Message("user", "hi")], stream=True)
FORMATS = {"openai.chat": "openai-chat", "anthropic.messages": "anthropic", "openai.responses": "openai-responses"}
WIRES = {name: wire for wire in FORMATS for name in corpus.case_names(wire)}
STREAMS = list(WIRES)

Outcome = tuple[list[RunEvent], list[int], Completion | ProviderFailure]
"""The events, how many of them had come after each read, and how the answer ended."""


class UnrepeatingApi:
    """A wire format without ``text_span``: each of its events is decoded."""

    def __init__(self, api: ProviderApi) -> None:
        self._api = api

    def open_stream(self, request: RunRequest) -> Any:
        mapper: Any = self._api.open_stream(request)
        return UnrepeatingMapper(mapper)


class UnrepeatingMapper:
    """All of a mapper but its ``text_span``."""

    def __init__(self, mapper: Any) -> None:
        self._mapper = mapper

    def __getattr__(self, name: str) -> Any:
        if name == "text_span":
            raise AttributeError(name)
        return getattr(self._mapper, name)


def read(api: Any, reads: list[bytes], spied: Callable[[AnswerReader], None] = lambda _: None) -> Outcome:
    """Read a stream as a run does."""
    answer = AnswerReader(api, REQUEST, Response())
    mapper = answer.open_stream()
    events: list[RunEvent] = []
    counts: list[int] = []
    try:
        for piece in reads:
            answer.read(piece, events)
            counts.append(len(events))
            spied(answer)
            if mapper.is_complete:
                break
        else:
            answer.read_last(b"", events)
        ended: Completion | ProviderFailure = answer.finish(events)
    except UNREADABLE as error:
        ended = unreadable(error, 200)
    answer.end(events)
    return events, counts, ended


def splits(body: bytes) -> list[list[bytes]]:
    """Return several ways to split a body: whole, by events, by bytes, and by chance."""
    chance = random.Random(len(body))
    ways = [[body], [event + b"\n\n" for event in body.split(b"\n\n")]]
    for mean in (30, 200, 3000):
        cuts = sorted({chance.randrange(len(body) + 1) for _ in range(len(body) // mean + 1)} | {0, len(body)})
        ways.append([body[start:end] for start, end in itertools.pairwise(cuts)])
    if len(body) < 20_000:
        ways.append([body[at : at + 1] for at in range(len(body))])
    return ways


def both(format_name: str, reads: list[bytes]) -> tuple[Outcome, Outcome]:
    api = WIRE_FORMATS[format_name].api
    return read(api, reads), read(UnrepeatingApi(api), reads)


def format_of(name: str) -> str:
    return FORMATS[WIRES[name]]


@corpus.needs_recordings
@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_has_the_same_events_and_result(name: str) -> None:
    case = corpus.load(name)
    if case.status != 200 or b"data:" not in case.body:
        return
    for reads in [corpus.as_recorded(case), *splits(case.body)]:
        quick, general = both(format_of(name), reads)
        assert quick == general


@corpus.needs_recordings
def test_most_text_of_recorded_streams_is_read_by_its_repeated_bytes() -> None:
    """Else the two ways would agree because the quick way is never taken."""
    quick = streams = 0
    for name in STREAMS:
        case = corpus.load(name)
        if case.status == 200 and case.body.count(b"data:") > 20:
            learned: list[bool] = []
            read(
                WIRE_FORMATS[format_of(name)].api,
                corpus.as_recorded(case),
                lambda answer, learned=learned: learned.append(answer.repeated is not None),  # type: ignore[misc]
            )
            streams += 1
            quick += any(learned)
    assert quick > streams / 2


CONTAINER = b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","container":{"id":"c"}}}\n\n'
ODD_CONTENT = st.sampled_from(
    [
        b'""',
        b"null",
        b"5",
        b"[]",
        b'{"a":1}',
        b'"\\ud83d"',
        b'"\\ude00"',
        b'"\\ud83d\\ude00"',
        b'"\xff"',
        b'"\xed\xa0\xbd"',
        b'"a\nb"',
        b'"a\rb"',
        b'"\x01"',
        b'"x","y"',
        b'"x","role":"a"',
        b'"',
        b"",
        b"NaN",
        b'"x"}',
        b'"\xe2\x80\xa8"',
        b'" "',
        b"[" * 2000,
        b'"x","content":"y"',
        b'"x","content":null',
        b'"x"},"index":1,"delta":{"content":"z"',
    ]
)
TEXTS = st.text(max_size=6).map(lambda text: json.dumps(text).encode()) | st.just(b'"tok "')
CONTENT = st.one_of(*[TEXTS] * 9, ODD_CONTENT)
ENVELOPES = [
    (b'data: {"model":"m","choices":[{"index":0,"delta":{"content":', b"}}]}\n\n"),
    (
        b'data: {"model":"m","id":"i","choices":[{"delta":{"role":"a","content":',
        b'},"finish_reason":null}],"usage":null}\n\n',
    ),
    (b'data: {"model":"m","choices":[{"index":1,"delta":{"content":', b"}}]}\n\n"),
    (b'data: {"model":"m","choices":[{"delta":{"content":"a"}},{"index":1,"delta":{"content":', b"}}]}\n\n"),
    (b'data: {"model":"m","choices":[{"delta":{"reasoning":', b"}}]}\n\n"),
    (b'data: {"model":"m","choices":[{"delta":{"refusal":"r","content":', b"}}]}\n\n"),
    (
        b'data: {"model":"m","choices":[{"delta":{"content":',
        b'}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n',
    ),
    (b'data: {"model":"m","choices":[{"delta":{"content":', b'},"logprobs":{"content":[]},"error":{}}]}\n\n'),
    (b'data: {"model":"m","content":"a","choices":[{"delta":{"content":', b'},"content":"a"}]}\n\n'),
    (b'data: {"choices":[{"delta":{"content":', b"}}]}\n\n"),
    (b'data: {"model":"m","choices":[{"delta":{"content":', b"}}]}\r\n\r\n"),
    (b'data: {"model":"m","choices":[{"delta":{"content":', b"}}]}\n"),
    (b'data:{"model":"m","choices":[{"delta":{"content":', b"}}]}\n\n"),
    (b': comment\ndata: {"model":"m","choices":[{"delta":{"content":', b"}}]}\n\n"),
    (b'event: message\ndata: {"model":"m","choices":[{"delta":{"content":', b"}}]}\n\n"),
    (b'data: {"model":"m","choices":[{"delta":{"content":', b'},"finish_reason":"stop"}]}\n\n'),
    (b'data: {"model":"m","choices":[{"delta":{"content":', b'},"message":{"content":"ab"}}]}\n\n'),
]
MESSAGES = [
    (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":',
        b"}}\n\n",
    ),
    (b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":', b"}}\n\n"),
    (b'data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":', b"}}\n\n"),
    (b'data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":', b"}}\n\n"),
    (
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","text":"a","partial_json":',
        b"}}\n\n",
    ),
    (b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":', b"}}\n\n"),
    (b'data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":', b"}}\n\n"),
    (b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""},"x":', b"}\n\n"),
    (b'event: ping\ndata: {"type":"ping","x":', b"}\n\n"),
    (b'data: {"type":"content_block_stop","index":0,"x":', b"}\n\n"),
]
RESPONSES = [
    (b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"m","delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","delta":', b',"logprobs":[],"sequence_number":%d}\n\n'),
    (b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":', b"}\n\n"),
    (b'event: response.output_text.delta\ndata: {"sequence_number":%d,"delta":', b"}\n\n"),
    (b'event: other\ndata: {"type":"response.output_text.delta","sequence_number":%d,"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","sequence_number":-%d,"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","sequence_number":0%d,"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","sequence_number":%d.5,"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","sequence_number":"%d","delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","sequence_number":%d,"x":{"sequence_number":%d},"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.delta","item":{"sequence_number":%d},"delta":', b"}\n\n"),
    (b'data: {"type":"response.refusal.delta","sequence_number":%d,"delta":', b"}\n\n"),
    (b'data: {"type":"response.reasoning_text.delta","sequence_number":%d,"delta":', b"}\n\n"),
    (b'data: {"type":"response.output_text.done","sequence_number":%d,"text":', b"}\n\n"),
    (
        b'data: {"type":"response.output_item.done","sequence_number":%d,"item":{"type":"message","content":',
        b"}}\n\n",
    ),
]
RESPONSE_ENDS = [
    b"",
    b"data: [DONE]\n\n",
    b'data: {"type":"response.completed","response":{"status":"completed","output":[]}}\n\n',
]
HEAD = b'data: {"type":"message_start","message":{"model":"m","content":[]}}\n\n'
CHAT_ENDS = [b"", b"data: [DONE]\n\n", b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n']
MESSAGE_ENDS = [
    b"",
    CONTAINER + b'data: {"type":"message_stop"}\n\n',
    b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\ndata: {"type":"message_stop"}\n\n',
]


def bodies(envelopes: list[tuple[bytes, bytes]], ends: list[bytes], head: bytes = b"") -> st.SearchStrategy[bytes]:
    """Bodies of runs of equal events, with different or odd texts, and other events between them."""
    usual = st.just(envelopes[0])
    envelope = st.one_of(usual, st.sampled_from(envelopes))
    runs = st.tuples(envelope, st.lists(CONTENT, min_size=1, max_size=12)).map(
        lambda run: b"".join(
            (run[0][0] + b"\0" + run[0][1]).replace(b"%d", b"%d" % (9 + number)).replace(b"\0", content)
            for number, content in enumerate(run[1])
        )
    )
    return st.tuples(st.lists(runs, min_size=1, max_size=6), st.sampled_from(ends)).map(
        lambda parts: head + b"".join(parts[0]) + parts[1]
    )


BEFORE, AFTER = ENVELOPES[0]
PLAIN = [b'"%d "' % number for number in range(20)]


@pytest.mark.parametrize("usual", [PLAIN[:2], PLAIN], ids=["few bytes", "many bytes"])
@pytest.mark.parametrize(
    "odd",
    [
        [b'"a","b"', b'"c', b'd"'],
        [b'"a","b"'],
        [b'""'],
        [b"1"],
        [b'"a"}'],
        [b'"a" '],
        [b'"a\n"'],
        [b'"\xff"'],
        [b'"a', b'b","c"'],
    ],
    ids=repr,
)
def test_strings_that_are_no_texts_are_not_taken(usual: list[bytes], odd: list[bytes]) -> None:
    """As some of these strings stand side by side, there are as many texts as events all the same."""
    deltas = RepeatedDeltas(BEFORE, AFTER, [])
    assert deltas.take(b"".join(BEFORE + string + AFTER for string in usual)) == [json.loads(each) for each in usual]
    assert deltas.take(b"".join(BEFORE + string + AFTER for string in (*usual, *odd))) is None or odd == [b'"a" ']


def test_another_block_under_the_same_index_gets_its_own_texts() -> None:
    before, after = MESSAGES[0]
    text = before + b'"tok "' + after
    block = b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
    end = CONTAINER + b'data: {"type":"message_stop"}\n\n'
    quick, general = both("anthropic", [HEAD, block, text, text, text + block, text, text, end])
    assert quick == general
    ended = quick[-1]
    assert isinstance(ended, Completion)
    assert ended.message is not None
    assert ended.message.text == "tok " * 5


def test_events_without_a_blank_line_between_them_come_as_early() -> None:
    event = (BEFORE + b'"tok "' + AFTER).rstrip() + b"\n"
    quick, general = both("openai-chat", [event + b"\n", event + b"\n", event, event, event, b"\n", event + b"\n"])
    assert quick == general
    assert quick[1] == [1, 2, 2, 3, 4, 5, 6]


def cut(body: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(body), *(place % (len(body) + 1) for place in places)})
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@settings(max_examples=150, deadline=None)
@given(bodies(ENVELOPES, CHAT_ENDS), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_chat_stream_has_the_same_events_and_result(body: bytes, places: list[int]) -> None:
    quick, general = both("openai-chat", cut(body, places))
    assert quick == general


@settings(max_examples=150, deadline=None)
@given(bodies(MESSAGES, MESSAGE_ENDS, HEAD), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_messages_stream_has_the_same_events_and_result(body: bytes, places: list[int]) -> None:
    quick, general = both("anthropic", cut(body, places))
    assert quick == general


@settings(max_examples=150, deadline=None)
@given(bodies(RESPONSES, RESPONSE_ENDS), st.lists(st.integers(0, 1 << 20), max_size=12))
def test_any_responses_stream_has_the_same_events_and_result(body: bytes, places: list[int]) -> None:
    quick, general = both("openai-responses", cut(body, places))
    assert quick == general


@pytest.mark.parametrize("is_number_first", [True, False])
def test_only_whole_numbers_may_differ(is_number_first: bool) -> None:
    def delta(number: bytes, text: bytes = b'"tok"') -> bytes:
        first, last = (number, text) if is_number_first else (text, number)
        return b'data: {"a":' + first + b',"b":' + last + b"}\n\n"

    kept: list[str] = []
    deltas = NumberedDeltas(b'data: {"a":', b',"b":', b"}\n\n", kept, is_number_first=is_number_first)
    usual = [delta(b"%d" % number) for number in (0, 9, 10, 1234567890123)]
    for events in (usual[:1], usual, usual * 20):
        kept.clear()
        assert deltas.take(b"".join(events)) == kept == ["tok"] * len(events)
    for odd in (b"", b"01", b"-1", b"1.5", b"1e5", b'"1"', b" 1", b"null", b"1,2", b'1,"b":2'):
        assert deltas.take(delta(odd)) is None
        assert deltas.take(b"".join(usual * 2) + delta(odd) + usual[0]) is None
    for text in (b"5", b'""', b"null", b'"a","b":"c"', b'"a","b":5', b'"a'):
        assert deltas.take(delta(b"1", text)) is None
    assert kept == ["tok"] * len(usual) * 20
