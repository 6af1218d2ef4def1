"""Makes answers that cost much to read: up to 64 MiB, streamed and whole, for each wire format."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

MIB = 1024 * 1024
LARGEST = 64 * MIB

APIS = ("openai-chat", "openai-responses", "anthropic", "google")
EMBEDDINGS = ("openai embeddings", "google embeddings")

Pieces = Callable[[], Iterator[bytes]]
"""Makes a body anew, in pieces."""


class SizedAnswer(msgspec.Struct, frozen=True):
    """What a server says to one request. ``size`` is that of the body, in bytes."""

    api: str
    kind: str
    pieces: Pieces
    size: int
    is_stream: bool = True
    headers: tuple[str, ...] = ()
    status: int = 200

    def __str__(self) -> str:
        return f"{self.api}, {'streamed' if self.is_stream else 'whole'}, {self.kind}"


# What is put in place of a value: the filler of a hole.


def _list_of(item: bytes, size: int) -> bytes:
    count = size // (len(item) + 1)
    return b"[" + (item + b",") * (count - 1) + item + b"]"


def _different_keys(size: int) -> bytes:
    return b"{" + b",".join(b'"k%d":0' % number for number in range(size // 12)) + b"}"


FILLERS: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: _list_of(b"[]", size),
    "objects": lambda size: _list_of(b'{"text":"a"}', size),
    "strings": lambda size: _list_of(b'"ab"', size),
    "numbers": lambda size: _list_of(b"1.5", size),
    "keys": _different_keys,
    "one key again and again": lambda size: b"{" + b'"a":[],' * (size // 7) + b'"a":[]}',
    "nesting": lambda size: b"[" * (size // 2) + b"]" * (size // 2),
    "nests of 150": lambda size: _list_of(b"[" * 150 + b"]" * 150, size),
    "a number of digits": lambda size: b"1" * size,
    "a fraction of digits": lambda size: b"0." + b"1" * size,
    "text": lambda size: b'"' + b"a" * size + b'"',
    "escapes": lambda size: b'"' + b"\\u0000" * (size // 6) + b'"',
    "halves of characters": lambda size: b'"' + b"\\ud800" * (size // 6) + b'"',
    "quotes in text": lambda size: b'"' + b'\\"' * (size // 2) + b'"',
    "wide text": lambda size: b'"' + "😀".encode() * (size // 4) + b'"',
    "one wide character": lambda size: b'"' + b"a" * (size - 4) + "😀".encode() + b'"',
    "broken text": lambda size: b'"' + b"\xff" * size + b'"',
    "JSON in text": lambda size: b'"{\\"a\\":' + _list_of(b"[]", size) + b'}"',
    "objects in text": lambda size: b'"{\\"a\\":' + _list_of(b"{}", size) + b'}"',
}

_MANY = {"lists", "objects", "text", "escapes", "wide text", "objects in text", "one key again and again"}
"""Kinds that also come as many smaller events."""

_BLOCK = b'{"type":"content_block_delta","index":0,"delta":'
HOLES: dict[str, dict[str, bytes]] = {
    "openai-chat": {
        "content": b'{"choices":[{"delta":{"content":HOLE}}]}',
        "reasoning": b'{"choices":[{"delta":{"reasoning":HOLE}}]}',
        "details": b'{"choices":[{"delta":{"reasoning_details":HOLE}}]}',
        "annotations": b'{"choices":[{"delta":{"annotations":HOLE}}]}',
        "calls": b'{"choices":[{"delta":{"tool_calls":HOLE}}]}',
        "audio": b'{"choices":[{"delta":{"audio":{"id":"a","data":HOLE}}}]}',
        "image": b'{"choices":[{"delta":{"images":[{"image_url":{"url":HOLE}}]}}]}',
        "arguments": b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":HOLE}}]}}]}',
        "message": b'{"choices":[{"message":{"content":HOLE}}]}',
        "another choice": b'{"choices":[{"index":1,"delta":{"content":HOLE}}]}',
        "usage": b'{"choices":[],"usage":{"x":HOLE}}',
        "error": b'{"error":HOLE}',
        "model": b'{"choices":[{"delta":{"content":"a"}}],"model":HOLE}',
        "unknown": b'{"choices":[{"delta":{"content":"a"}}],"x":HOLE}',
        "only unknown": b'{"x":HOLE}',
    },
    "openai-responses": {
        "delta": b'{"type":"response.output_text.delta","delta":HOLE}',
        "item": b'{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":HOLE}}',
        "opaque item": b'{"type":"response.output_item.done","output_index":0,"item":{"type":"web_search_call","x":HOLE}}',
        "image": b'{"type":"response.output_item.done","item":{"type":"image_generation_call","id":"i","result":HOLE}}',
        "arguments": b'{"type":"response.output_item.done","item":{"type":"function_call","call_id":"c","name":"f","arguments":HOLE}}',
        "response": b'{"type":"response.completed","response":{"status":"completed","output":HOLE}}',
        "usage": b'{"type":"response.completed","response":{"status":"completed","output":[],"usage":HOLE}}',
        "type": b'{"type":HOLE}',
        "error": b'{"type":"error","error":HOLE}',
        "unknown": b'{"type":"response.output_text.delta","delta":"a","x":HOLE}',
    },
    "anthropic": {
        "text": _BLOCK + b'{"type":"text_delta","text":HOLE}}',
        "thinking": _BLOCK + b'{"type":"thinking_delta","thinking":HOLE}}',
        "signature": b'{"type":"content_block_start","index":0,"content_block":{"type":"thinking","signature":HOLE}}',
        "block": b'{"type":"content_block_start","index":0,"content_block":HOLE}',
        "result": b'{"type":"content_block_start","index":0,"content_block":{"type":"x_result","content":HOLE}}',
        "input": b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c","name":"f","input":HOLE}}',
        "message": b'{"type":"message_start","message":{"content":HOLE}}',
        "whole": b'{"type":"message","content":[{"type":"text","text":"a","citations":HOLE}],"stop_reason":"end_turn"}',
        "usage": b'{"type":"message_delta","delta":{},"usage":HOLE}',
        "error": b'{"type":"error","error":HOLE}',
        "unknown": b'{"type":"new","x":HOLE}',
    },
    "google": {
        "text": b'{"candidates":[{"content":{"parts":[{"text":HOLE}]}}]}',
        "thought": b'{"candidates":[{"content":{"parts":[{"thought":true,"text":HOLE}]}}]}',
        "parts": b'{"candidates":[{"content":{"parts":HOLE}}]}',
        "image": b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":HOLE}}]}}]}',
        "audio": b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"audio/L16","data":HOLE}}]}}]}',
        "args": b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":HOLE}}]}}]}',
        "signed args": b'{"candidates":[{"content":{"parts":[{"thoughtSignature":"c","functionCall":{"name":"f","args":{"a":HOLE}}}]}}]}',
        "code": b'{"candidates":[{"content":{"parts":[{"executableCode":HOLE}]}}]}',
        "sources": b'{"candidates":[{"groundingMetadata":{"x":HOLE}}]}',
        "another candidate": b'{"candidates":[{"index":1,"content":{"parts":[{"text":HOLE}]}}]}',
        "feedback": b'{"promptFeedback":HOLE}',
        "error": b'{"error":HOLE}',
        "unknown": b'{"candidates":[{"content":{"parts":[{"text":"a"}]}}],"x":HOLE}',
        "only unknown": b'{"x":HOLE}',
    },
}
"""Events with a value that is any."""

WHOLE_HOLES: dict[str, dict[str, bytes]] = {
    "openai-chat": {
        "content": b'{"choices":[{"message":{"content":HOLE},"finish_reason":"stop"}]}',
        "annotations": b'{"choices":[{"message":{"content":"a","annotations":HOLE},"finish_reason":"stop"}]}',
        "audio": b'{"choices":[{"message":{"audio":{"id":"a","data":HOLE}},"finish_reason":"stop"}]}',
        "image": b'{"choices":[{"message":{"images":[{"image_url":{"url":HOLE}}]},"finish_reason":"stop"}]}',
        "arguments": b'{"choices":[{"message":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":HOLE}}]},"finish_reason":"stop"}]}',
        "calls": b'{"choices":[{"message":{"content":"a","tool_calls":HOLE},"finish_reason":"stop"}]}',
        "choices": b'{"choices":HOLE}',
        "unknown": b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop","logprobs":HOLE}]}',
        "error": b'{"error":HOLE}',
    },
    "openai-responses": {
        "output": b'{"status":"completed","output":HOLE}',
        "content": b'{"status":"completed","output":[{"type":"message","content":HOLE}]}',
        "arguments": b'{"status":"completed","output":[{"type":"function_call","call_id":"c","name":"f","arguments":HOLE}]}',
        "opaque item": b'{"status":"completed","output":[{"type":"web_search_call","x":HOLE},{"type":"message","content":"a"}]}',
        "image": b'{"status":"completed","output":[{"type":"image_generation_call","id":"i","result":HOLE}]}',
        "unknown": b'{"status":"completed","output":[{"type":"message","content":"a"}],"x":HOLE}',
        "error": b'{"error":HOLE}',
    },
    "anthropic": {
        "content": b'{"type":"message","content":HOLE,"stop_reason":"end_turn"}',
        "text": b'{"type":"message","content":[{"type":"text","text":HOLE}],"stop_reason":"end_turn"}',
        "input": b'{"type":"message","content":[{"type":"tool_use","id":"c","name":"f","input":HOLE}],"stop_reason":"tool_use"}',
        "result": b'{"type":"message","content":[{"type":"x_result","content":HOLE}],"stop_reason":"end_turn"}',
        "unknown": b'{"type":"message","content":[{"type":"text","text":"a"}],"stop_reason":"end_turn","x":HOLE}',
        "error": b'{"type":"error","error":HOLE}',
    },
    "google": {
        "text": b'{"candidates":[{"content":{"parts":[{"text":HOLE}]},"finishReason":"STOP"}]}',
        "parts": b'{"candidates":[{"content":{"parts":HOLE},"finishReason":"STOP"}]}',
        "image": b'{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":HOLE}}]},"finishReason":"STOP"}]}',
        "args": b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":HOLE}}]},"finishReason":"STOP"}]}',
        "code": b'{"candidates":[{"content":{"parts":[{"executableCode":HOLE}]},"finishReason":"STOP"}]}',
        "array": b"HOLE",
        "unknown": b'{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP","logprobsResult":HOLE}]}',
        "error": b'{"error":HOLE}',
    },
    "openai embeddings": {
        "vector": b'{"data":[{"embedding":HOLE,"index":0}]}',
        "rows": b'{"data":HOLE}',
        "usage": b'{"data":[{"embedding":[1.5],"index":0}],"usage":HOLE}',
        "unknown": b'{"data":[{"embedding":[1.5],"index":0,"x":HOLE}]}',
        "error": b'{"error":HOLE}',
    },
    "google embeddings": {
        "vector": b'{"embeddings":[{"values":HOLE}]}',
        "rows": b'{"embeddings":HOLE}',
        "usage": b'{"embeddings":[{"values":[1.5]}],"usageMetadata":HOLE}',
        "error": b'{"error":HOLE}',
    },
}

_ENDS: dict[str, bytes] = {
    "openai-chat": b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n',
    "openai-responses": b'data: {"type":"response.completed","response":{"status":"completed","output":[]}}\n\n',
    "anthropic": b'data: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\ndata: {"type":"message_stop"}\n\n',
    "google": b'data: {"candidates":[{"finishReason":"STOP"}]}\n\n',
}


def streamed(api: str) -> Iterator[SizedAnswer]:
    """Return streams: one large event of each kind, then many small events of each kind."""
    end = _ENDS[api]
    for hole, template in HOLES[api].items():
        for name, fill in FILLERS.items():
            yield _events(api, f"{hole}: {name}, 30 MiB", template, fill, 30 * MIB, end)
            if name in _MANY:
                yield _events(api, f"{hole}: {name}, many of 60 kB", template, fill, 60_000, end)
    yield from _tiny(api, end)


def _events(api: str, kind: str, template: bytes, fill: Callable[[int], bytes], size: int, end: bytes) -> SizedAnswer:
    count = LARGEST // size if size < MIB else 2

    def pieces() -> Iterator[bytes]:
        event = b"data: " + template.replace(b"HOLE", fill(size)) + b"\n\n"
        for _ in range(count):
            yield event
        yield end

    return SizedAnswer(api, kind, pieces, size * count)


_TINY: dict[str, tuple[bytes, ...]] = {
    "openai-chat": (
        b'{"choices":[{"delta":{"content":"ab"}}]}',
        b'{"choices":[{"delta":{"reasoning":"ab"}},{"delta":{"content":"ab"}}]}',
        b'{"choices":[{"delta":{"content":"a"},"message":{"content":"a"}}]}',
        b'{"choices":[{"index":NUMBER,"delta":{"content":"ab"}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":NUMBER,"id":"cNUMBER","function":{"name":"f","arguments":"{}"}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"cNUMBER","function":{"name":"f","arguments":"{}"}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}}]}',
        b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"fNUMBER","arguments":"{\\"a\\":[[],[],[]]}"}}]}}]}',
        b'{"choices":[{"delta":{"reasoning_details":[{"type":"reasoning.text","text":"ab"}]}}]}',
        b'{"choices":[{"delta":{"reasoning_details":[{"type":"x"}]}}]}',
        b'{"choices":[{"delta":{"annotations":[{}]}}]}',
        b'{"choices":[],"usage":{"prompt_tokens":NUMBER}}',
    ),
    "openai-responses": (
        b'{"type":"response.output_text.delta","delta":"ab"}',
        b'{"type":"response.output_item.done","item":{"type":"message","content":"ab"}}',
        b'{"type":"response.output_item.done","item":{"type":"x"}}',
        b'{"type":"response.output_item.done","item":{"type":"function_call","call_id":"cNUMBER","arguments":"{}"}}',
        b'{"type":"response.output_item.done","item":{"type":"function_call","call_id":"c","arguments":"{ }"}}',
        b'{"type":"response.function_call_arguments.delta","output_index":NUMBER,"delta":"ab"}',
    ),
    "anthropic": (
        b'{"type":"content_block_start","index":NUMBER,"content_block":{"type":"text","text":"ab"}}',
        b'{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c","name":"f"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"ab"}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{}}}',
        b'{"type":"content_block_delta","index":0,"delta":{"type":"x","kNUMBER":1}}',
        b'{"type":"message_delta","delta":{},"usage":{"kNUMBER":1}}',
        b'{"type":"ping"}',
    ),
    "google": (
        b'{"candidates":[{"content":{"parts":[{"text":"ab"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"ab","thought":true},{"text":"ab"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"text":"a","thoughtSignature":"b"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","partialArgs":[{"jsonPath":"$.kNUMBER","numberValue":1}],"willContinue":true}}]}}]}',
        b'{"candidates":[{"index":NUMBER,"content":{"parts":[{"text":"ab"}]}}]}',
        b'{"candidates":[{"content":{"parts":[{"executableCode":{}}]}}]}',
        b'{"candidates":[{"citationMetadata":{"kNUMBER":1}}]}',
    ),
}
"""Events that come in very large numbers."""

_LINES: dict[str, bytes] = {
    "blank lines": b"\n",
    "carriage returns": b"\r",
    "comments": b":\n",
    "names": b"event: x\n",
    "retry": b"retry: 1\n",
    "lines of data": b"data:\n",
    "lines of data with words": b"data: ab\n",
    "lines of JSON": b"{}\n",
    "lines of half JSON": b"{\n",
    "empty events": b"data: {}\n\n",
    "byte order marks": b"\xef\xbb\xbf",
}


_STARTS = {"one line": b"data: ", "one comment": b":", "one name": b"event: ", "one word": b"x"}
_BODIES = {"blank lines": b"\n", "blanks": b" ", "byte order marks": b"\xef\xbb\xbf", "lines": b"{}\n", "words": b"x"}


def _repeated(unit: bytes, number_from: int = 0) -> Iterator[bytes]:
    """Yield 64 MiB of one unit; NUMBER in it counts."""
    made, number = 0, number_from
    while made < LARGEST:
        if b"NUMBER" in unit:
            piece = b"".join([unit.replace(b"NUMBER", b"%d" % count) for count in range(number, number + 5000)])
            number += 5000
        else:
            piece = unit * max(1, 256 * 1024 // len(unit))
        made += len(piece)
        yield piece


def _tiny(api: str, end: bytes) -> Iterator[SizedAnswer]:
    for event in _TINY[api]:
        said = b"data: " + event + b"\n\n"
        yield SizedAnswer(api, f"very many {event.decode()}", partial(_then, partial(_repeated, said), end), LARGEST)
    for name, line in _LINES.items():
        yield SizedAnswer(api, name, partial(_then, partial(_repeated, line), b"\n\n" + end), LARGEST)
    for name, start in _STARTS.items():
        yield SizedAnswer(api, f"{name} that never ends", partial(_after, start, partial(_repeated, b"x")), LARGEST)
    half = b'{"' + b'\\"' * (7 * MIB) + b"\n\n"
    yield SizedAnswer(api, "a string without end in a line of JSON", partial(_one, half), len(half))
    for name, unit in {"blank lines": b"\n", "comments": b": x\n", "text": b"data: " + _TINY[api][0] + b"\n\n"}.items():
        yield _packed(api, f"gzip of {name}", partial(_gzip, unit, LARGEST // len(unit)), LARGEST)
    yield _packed(api, "gzip of gzip of blank lines", partial(_gzip, b"\n", 4 * LARGEST, 2), 4 * LARGEST, "gzip, gzip")
    yield _packed(api, "gzip of nothing again and again", partial(_repeated, gzip.compress(b"")), LARGEST)


def _packed(
    api: str, kind: str, pieces: Pieces, size: int, coding: str = "gzip", *, is_stream: bool = True
) -> SizedAnswer:
    return SizedAnswer(api, kind, pieces, size, is_stream=is_stream, headers=(f"content-encoding: {coding}",))


def _gzip(unit: bytes, count: int, times: int = 1) -> Iterator[bytes]:
    data = unit * count
    for _ in range(times):
        data = gzip.compress(data, 1)
    yield data


def _one(data: bytes) -> Iterator[bytes]:
    yield data


def _after(start: bytes, rest: Pieces) -> Iterator[bytes]:
    yield start
    yield from rest()


def _then(first: Pieces, end: bytes) -> Iterator[bytes]:
    yield from first()
    yield end


def whole(api: str) -> Iterator[SizedAnswer]:
    """Return answers in one piece, and errors."""
    for hole, template in WHOLE_HOLES[api].items():
        for name, fill in FILLERS.items():
            for size in (30 * MIB, 63 * MIB) if name in {"lists", "text"} else (30 * MIB,):
                yield _body(api, f"{hole}: {name}, {size // MIB} MiB", template, fill, size)
            # As much as passes: the limits bound what follows.
            yield _body(api, f"{hole}: {name}, 500 kB", template, fill, 500_000)
    for name, fill in FILLERS.items():
        yield _body(api, f"an error of status 500: {name}", b'{"error":{"message":HOLE}}', fill, 63 * MIB, 500)
    yield from _calls(api)
    for name, unit in _BODIES.items():
        yield SizedAnswer(api, f"a body of {name}", partial(_repeated, unit), LARGEST, is_stream=False)
    lines = partial(_after, b'{"a":1}\n', partial(_repeated, b"\n"))
    yield SizedAnswer(api, "JSON in one line and then blank lines", lines, LARGEST, is_stream=False)
    blanks = partial(_gzip, b" ", 4 * LARGEST, 2)
    yield _packed(api, "gzip of gzip of blanks", blanks, 4 * LARGEST, "gzip, gzip", is_stream=False)


_CALLS = {
    "anthropic": (
        b'{"type":"message","content":[HOLE],"stop_reason":"tool_use"}',
        b'{"type":"tool_use","id":"c","name":"f","input":INPUT}',
    ),
    "google": (
        b'{"candidates":[{"content":{"parts":[HOLE]},"finishReason":"STOP"}]}',
        b'{"functionCall":{"name":"f","args":INPUT}}',
    ),
}
_INPUTS = {
    "text": b'{"a":"' + b"x" * 4000 + b'"}',
    "many texts": b'{"a":[' + b",".join([b'"' + b"x,:y" * 25 + b'"'] * 37) + b"]}",
    "nests of text": b'{"a":' + b"[" * 35 + b'"' + b"x,:" * 1200 + b'"' + b"]" * 35 + b"}",
    "numbers and text": b'{"a":[' + b"1," * 20 + b'"' + b"x,:" * 1300 + b'"]}',
}


def _calls(api: str) -> Iterator[SizedAnswer]:
    """Return answers of as many large calls as pass."""
    if api in _CALLS:
        around, call = _CALLS[api]
        for name, said in _INPUTS.items():
            body = around.replace(b"HOLE", b",".join([call.replace(b"INPUT", said)] * 4000))
            yield SizedAnswer(api, f"4000 calls of 4 kB of {name}", partial(_one, body), len(body), is_stream=False)


def _body(
    api: str, kind: str, template: bytes, fill: Callable[[int], bytes], size: int, status: int = 200
) -> SizedAnswer:
    def pieces() -> Iterator[bytes]:
        yield template.replace(b"HOLE", fill(size))

    return SizedAnswer(api, kind, pieces, size, is_stream=False, status=status)


_SLOW_NUMBERS = {
    "numbers that are slow to decode": "956263361681119.4375",
    "numbers with powers of ten": "1.7976931348623157e12",
}

_DIGITS = {"in one line": "-0.012345679", "a line for each number": "\n        -0.012345678396522999"}


def vectors() -> Iterator[SizedAnswer]:
    """Return answers with as many numbers as vectors may have."""
    numbers = ",".join(["-0.0123456789"] * 1536)
    for rows in (1024, 2048):

        def rows_of(rows: int = rows) -> Iterator[bytes]:
            data = ",".join(f'{{"index":{place},"embedding":[{numbers}]}}' for place in range(rows))
            yield ('{"data":[' + data + "]}").encode()

        yield SizedAnswer(
            "openai embeddings", f"{rows} vectors of 1536 numbers", rows_of, rows * 1536 * 14, is_stream=False
        )
    for name, number in _SLOW_NUMBERS.items():
        row = ",".join([number] * (47 * MIB // 1024 // (len(number) + 1) - 2))

        def slow_rows(row: str = row) -> Iterator[bytes]:
            data = ",".join(f'{{"index":{place},"embedding":[{row}]}}' for place in range(1024))
            yield ('{"data":[' + data + "]}").encode()

        yield SizedAnswer("openai embeddings", f"1024 vectors of {name}", slow_rows, 47 * MIB, is_stream=False)
    for name, number in _DIGITS.items():

        def large_rows(number: str = number) -> Iterator[bytes]:
            row = ",".join([number] * 3072)
            yield b'{"data":['
            for place in range(2048):
                yield f'{{"index":{place},"embedding":[{row}]}}{"," if place < 2047 else "]}"}'.encode()

        size = 2048 * 3072 * (len(number) + 1)
        yield SizedAnswer(
            "openai embeddings", f"2048 vectors of 3072 numbers, {name}", large_rows, size, is_stream=False
        )
    packed = base64.b64encode(b"\x01\x02\x03\x3d" * 3072).decode()

    def packed_rows() -> Iterator[bytes]:
        data = ",".join(json.dumps({"index": place, "embedding": packed}) for place in range(2048))
        yield ('{"data":[' + data + "]}").encode()

    yield SizedAnswer(
        "openai embeddings", "2048 vectors of 3072 numbers, base64", packed_rows, 2048 * len(packed), is_stream=False
    )


def answers(api: str) -> Iterator[SizedAnswer]:
    """Return all answers of one wire format."""
    if api in EMBEDDINGS:
        yield from whole(api)
        if api == "openai embeddings":
            yield from vectors()
        return
    yield from streamed(api)
    yield from whole(api)
