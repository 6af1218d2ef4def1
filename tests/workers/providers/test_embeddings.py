"""Embeddings of OpenAI-compatible servers and of Google: the requests, and the vectors of the answers."""

from __future__ import annotations

import base64
import json
import struct
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from headrace.types import Usage
from headrace_workers.http.http_request import HttpRequest
from headrace_workers.providers.embeddings import openai_embeddings
from headrace_workers.providers.embeddings.openai_embeddings import build_openai
from headrace_workers.providers.embeddings.vectors import Embeddings
from headrace_workers.providers.google import embeddings as google_embeddings
from headrace_workers.providers.google.embeddings import build_google
from headrace_workers.providers.shared.answer_limits import LimitError
from headrace_workers.providers.shared.wire_format import ProviderFailedError, ProviderSettings, finished
from tests.waiting import cpu_slack

OPENAI = ProviderSettings(name="openai", api="openai-chat", base_url="https://api.openai.com/v1")
GOOGLE = ProviderSettings(name="google", api="google", base_url="https://generativelanguage.googleapis.com")

Build = Callable[[ProviderSettings, str | None, str, list[str], int | None, dict[str, Any]], HttpRequest]
Read = Callable[[bytes], Embeddings]


def read_openai(body: bytes, texts: int = 1) -> Embeddings:
    return finished(openai_embeddings.read_openai(body, texts))


def read_google(body: bytes, texts: int = 1) -> Embeddings:
    return finished(google_embeddings.read_google(body, texts))


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_openai_is_asked_for_all_inputs_at_once() -> None:
    http = build_openai(OPENAI, "sk-1", "text-embedding-3-small", ["a", "b"], 256, {"user": "me"})
    assert http.url == "https://api.openai.com/v1/embeddings"
    assert dict(http.headers)["authorization"] == "Bearer sk-1"
    body = {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 256, "user": "me"}
    assert json.loads(http.body) == body
    pydantic = pytest.importorskip("pydantic")
    params = pytest.importorskip("openai.types").EmbeddingCreateParams
    assert (
        json.loads(pydantic.TypeAdapter(params).dump_json(pydantic.TypeAdapter(params).validate_python(body))) == body
    )


def test_each_part_of_googles_batch_has_the_options() -> None:
    http = build_google(GOOGLE, "key", "gemini-embedding-001", ["a", "b"], 256, {"taskType": "RETRIEVAL_QUERY"})
    assert http.url.startswith("https://generativelanguage.googleapis.com/v1")
    assert http.url.endswith("/models/gemini-embedding-001:batchEmbedContents")
    assert dict(http.headers)["x-goog-api-key"] == "key"
    shared = {"model": "models/gemini-embedding-001", "outputDimensionality": 256, "taskType": "RETRIEVAL_QUERY"}
    assert json.loads(http.body) == {"requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in "ab"]}


@pytest.mark.parametrize("build", [build_openai, build_google])
@pytest.mark.parametrize(("inputs", "dimensions"), [([], None), (["a", ""], None), (["a"], 0)])
def test_invalid_inputs_are_refused(build: Build, inputs: list[str], dimensions: int | None) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        build(OPENAI, None, "m", inputs, dimensions, {})
    assert caught.value.failure.kind == "invalid_request"


def test_openais_vectors_come_in_the_order_of_the_inputs() -> None:
    rows = [{"index": 1, "embedding": [2, 0.5]}, {"index": 0, "embedding": [1.0]}]
    said = read_openai(encoded({"data": rows, "model": "m-1", "usage": {"prompt_tokens": 4, "total_tokens": 4}}))
    assert said == Embeddings([[1.0], [2.0, 0.5]], Usage(4, 0, 4, source="provider"), "m-1")


@pytest.mark.parametrize("indexes", [(0, 0), (None, None), (5, 3), ("1", "0")])
def test_invalid_indexes_leave_the_order(indexes: tuple[Any, Any]) -> None:
    rows = [{"index": index, "embedding": [at]} for at, index in enumerate(indexes)]
    assert read_openai(encoded({"data": rows})) == Embeddings([[0.0], [1.0]], Usage(), "")


def test_base64_is_read_as_floats() -> None:
    packed = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()
    assert read_openai(encoded({"data": [{"index": 0, "embedding": packed}]})).vectors == [[0.5, -1.0, 2.0]]


def test_googles_vectors_are_returned_in_their_order() -> None:
    body = {"embeddings": [{"values": [1, 0.5]}, {"values": [2.0]}], "usageMetadata": {"promptTokenCount": 3}}
    assert read_google(encoded(body)) == Embeddings([[1.0, 0.5], [2.0]], Usage(3, 0, 3, source="provider"), "")
    assert read_google(encoded({"embeddings": []})).usage == Usage()


@pytest.mark.parametrize(
    ("read", "body", "kind", "reason"),
    [
        (read_openai, encoded({"error": {"message": "m", "code": "rate_limit_exceeded"}}), "rate_limit", "m"),
        (read_google, encoded({"error": {"message": "m", "status": "INVALID_ARGUMENT"}}), "invalid_request", "m"),
        (read_openai, encoded({"data": [{"index": 0, "embedding": "!!"}]}), "provider_protocol", "base64"),
        (read_openai, encoded({"data": [{"index": 0, "embedding": "QUI="}]}), "provider_protocol", "base64"),
        (read_openai, encoded({"data": [{"index": 0, "embedding": None}]}), "provider_protocol", "no embeddings"),
        (read_openai, encoded({"embeddings": []}), "provider_protocol", "no embeddings"),
        (read_google, encoded({"data": []}), "provider_protocol", "no embeddings"),
        (read_openai, b"<html><title>Sign in</title></html>", "provider_protocol", "HTML page (Sign in)"),
        (read_google, b"", "provider_protocol", "an empty body"),
        (read_openai, b"[]", "provider_protocol", "no embeddings"),
    ],
)
def test_a_response_without_embeddings_fails(read: Read, body: bytes, kind: str, reason: str) -> None:
    with pytest.raises(ProviderFailedError) as caught:
        read(body)
    assert caught.value.failure.kind == kind
    assert reason in caught.value.failure.reason


# Large answers.


def large(rows: int, numbers: list[str] | str, **also: Any) -> bytes:
    row = f'"{numbers}"' if isinstance(numbers, str) else f"[{','.join(numbers)}]"
    data = ",".join(f'{{"object":"embedding","index":{place},"embedding":{row}}}' for place in range(rows))
    return f'{{"data":[{data}],"model":"m","usage":{json.dumps(also.get("usage", {"prompt_tokens": 7}))}}}'.encode()


def unpacked(vectors: Any) -> list[list[float]]:
    assert all(isinstance(vector, msgspec.Raw) for vector in vectors)
    return [msgspec.msgpack.decode(vector, type=list[float]) for vector in vectors]


def test_a_large_answer_is_packed_as_messagepack() -> None:
    numbers = [f"-0.0{place}" for place in range(3072)]
    read = read_openai(large(100, numbers), 100)

    assert unpacked(read.vectors) == [[float(number) for number in numbers]] * 100
    assert (read.usage.input_tokens, read.model) == (7, "m")


def test_a_large_answer_in_base64_is_packed_too() -> None:
    floats = [place / 1024 for place in range(3072)]
    text = base64.b64encode(struct.pack("<3072f", *floats)).decode()
    for said in (text, text.replace("/", "\\/")):
        assert unpacked(read_openai(large(100, said), 100).vectors) == [floats] * 100


def test_a_large_answer_of_google_is_packed() -> None:
    row = json.dumps({"values": [0.5] * 3072})
    body = f'{{"embeddings":[{",".join([row] * 100)}],"usageMetadata":{{"promptTokenCount":7}}}}'.encode()
    read = read_google(body, 100)

    assert unpacked(read.vectors) == [[0.5] * 3072] * 100
    assert read.usage.input_tokens == 7


@pytest.mark.parametrize(
    "make",
    [
        lambda: large(100_000, ["1"]),
        lambda: b'{"data":[' + b'{"embedding":[]},' * 100_000 + b"{}]}",
        lambda: large(1, ["1"] * 3_000_000),
        lambda: large(100, ["1"] * 65_536),
        lambda: b'{"data":[{"embedding":[1],"x":[' + b"1," * 7_000_000 + b"1]}]}",
        lambda: b'{"data":[' + b"[]," * 7_000_000 + b"1]}",
        lambda: b'{"error":[' + b"[]," * 3_000_000 + b"1]}",
        lambda: large(2, base64.b64encode(bytes(4_000_000)).decode()),
    ],
    ids=["rows", "empty rows", "a vector", "vectors", "another field", "lists", "an error", "a vector in base64"],
)
def test_a_large_answer_without_vectors_is_refused_in_little_time(make: Callable[[], bytes]) -> None:
    body = make()
    for read in (read_openai, read_google):
        began = time.thread_time()
        with pytest.raises((LimitError, ProviderFailedError)):
            read(body, 100)
        assert time.thread_time() - began < 0.5 * cpu_slack()


def test_short_fields_beside_the_vectors_of_a_large_answer_are_read() -> None:
    read = read_openai(large(100, ["0.25"] * 3072, usage=[[]] * 400_000), 100)

    assert (len(read.vectors), read.usage.input_tokens) == (100, 0)


@pytest.mark.parametrize(
    ("name", "count", "form"), [("openai", 256, "base64"), ("openai", 255, None), ("x", 256, None)]
)
def test_the_vectors_of_many_texts_are_asked_for_in_base64(name: str, count: int, form: str | None) -> None:
    settings = ProviderSettings(name=name, api="openai-chat", base_url="http://x")
    body = json.loads(build_openai(settings, None, "m", ["a"] * count, None, {}).body)

    assert body.get("encoding_format") == form
