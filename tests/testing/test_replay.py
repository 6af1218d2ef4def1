"""Recordings are played byte for byte: to equal requests, in their order, each once; other requests are errors with a reason."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace import Client, InvalidRequestError
from headrace.testing import RecordingError, ReplayedProvider, UnmatchedRequestError, replay
from headrace.testing.recording.body_differences import first_difference
from headrace.testing.recording.recorded_exchange import (
    RecordedExchange,
    RecordedRequest,
    RecordedResponse,
    name_of,
    next_number,
    read_recordings,
    write_recording,
)
from tests.cases import case, each
from tests.conftest import HELLO
from tests.repetition import repeated
from tests.workers import corpus

CHAT = "/v1/chat/completions"
JSON = [("content-type", "application/json")]


def asked(text: str, **further: Any) -> dict[str, Any]:
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **further}


def keep(folder: Path, *texts: tuple[str, str]) -> Path:
    """Write a recording for each question and answer."""
    for number, (question, answer) in enumerate(texts, 1):
        request = RecordedRequest("POST", "api.openai.com", CHAT, body=asked(question))
        body = json.dumps({"answer": answer}).encode()
        exchange = RecordedExchange(name_of(number, request), request, RecordedResponse(200, JSON), [body])
        write_recording(folder, exchange, {})
    return folder


def post(provider: ReplayedProvider, body: Any, path: str = CHAT, host: str = "") -> httpx.Response:
    headers = {"authorization": "Bearer sk-any"}
    return httpx.post(f"http://127.0.0.1:{provider.port}{host}{path}", json=body, headers=headers, timeout=60)


def message(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


def test_equal_requests_get_their_recordings_in_order_and_each_once(tmp_path: Path) -> None:
    provider = replay(keep(tmp_path, ("a", "first"), ("b", "other"), ("a", "second")))

    assert [post(provider, asked("a")).json()["answer"] for _ in range(2)] == ["first", "second"]
    assert provider.unused == ["0002-openai-chat-gpt-4o"]
    assert post(provider, asked("b")).json()["answer"] == "other"
    assert provider.unused == []
    assert post(provider, asked("a")).status_code == 404
    with pytest.raises(UnmatchedRequestError, match="played already: 0001-openai-chat-gpt-4o, 0003-openai-chat-gpt-4o"):
        provider.__exit__(None, None, None)


def test_a_cleared_provider_plays_everything_again(tmp_path: Path) -> None:
    with replay(keep(tmp_path, ("a", "first"))) as provider:
        assert [post(provider, asked("a")).status_code for _ in range(2)] == [200, 404]
        assert len(provider.unmatched) == 1
        provider.clear()

        assert (provider.unused, provider.unmatched, provider.requests()) == (["0001-openai-chat-gpt-4o"], [], [])
        assert post(provider, asked("a")).json()["answer"] == "first"


def test_a_server_with_another_prefix_is_the_same_api(tmp_path: Path) -> None:
    with replay(keep(tmp_path, ("a", "first"))) as provider:
        assert post(provider, asked("a"), host="/openai").json()["answer"] == "first"
        assert provider.requests()[0].path == f"/openai{CHAT}"


@each(
    ("body", "path", "reason"),
    [
        (asked("aa"), CHAT, 'body.messages[0].content is "aa", recorded was "a"'),
        (asked("a", seed=1), CHAT, "body.seed is 1, recorded was missing"),
        ({"model": "gpt-4o"}, CHAT, "body.messages is missing, recorded was [{"),
        (asked("a"), "/v1/responses", "no request to this path is recorded; recorded are: POST /chat/completions"),
        (None, CHAT, "body is null, recorded was {"),
    ],
)
def test_a_request_that_is_not_recorded_is_an_error_that_says_why(
    body: Any, path: str, reason: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = keep(tmp_path_factory.mktemp("kept"), ("a", "first"), ("zzz", "other"))
    provider = replay(folder)
    response = post(provider, body, path)

    assert response.status_code == 404
    assert reason in message(response)
    assert reason in provider.unmatched[0]
    with pytest.raises(UnmatchedRequestError) as caught:
        provider.__exit__(None, None, None)
    assert reason in str(caught.value)


def test_a_run_that_is_not_recorded_fails_with_the_reason(client: Client, tmp_path: Path) -> None:
    provider = replay(keep(tmp_path, ("a", "first")))
    with provider.in_environment():
        for model in ("gpt-4o", "claude-sonnet-5", "gemini-3-pro"):
            with pytest.raises(InvalidRequestError, match="headrace replay: "):
                client.run_local(model=model, messages=HELLO)
    assert len(provider.unmatched) == 3
    provider.close()


def test_an_error_in_the_block_is_not_replaced(tmp_path: Path) -> None:
    provider = replay(keep(tmp_path, ("a", "first")))
    post(provider, asked("b"))

    provider.__exit__(ZeroDivisionError, ZeroDivisionError(), None)

    with pytest.raises(ValueError, match="is closed"):
        provider.requests()


def test_keys_can_be_left_out_of_the_comparison(tmp_path: Path) -> None:
    with replay(keep(tmp_path, ("a", "first")), ignored_keys={"metadata", "seed"}) as provider:
        assert post(provider, asked("a", seed=7, metadata={"at": "now"})).json()["answer"] == "first"


def test_a_request_with_a_key_in_its_body_is_equal_to_its_recording_without_it(tmp_path: Path) -> None:
    tool = {"type": "mcp", "headers": {"Authorization": "Bearer 0123456789abcdefXYZ"}}
    kept = {"type": "mcp", "headers": {"Authorization": "Bearer " + "X" * 19}}
    request = RecordedRequest("POST", "api.openai.com", CHAT, body=asked("a", tools=[kept]))
    exchange = RecordedExchange("0001", request, RecordedResponse(200, JSON), [b"{}"])
    write_recording(tmp_path, exchange, {})

    with replay(tmp_path) as provider:
        assert post(provider, asked("a", tools=[tool])).status_code == 200


def test_several_replays_run_at_once(tmp_path: Path) -> None:
    with (
        replay(keep(tmp_path / "one", ("a", "first"))) as one,
        replay(keep(tmp_path / "two", ("a", "second"))) as two,
    ):
        assert [post(provider, asked("a")).json()["answer"] for provider in (two, one)] == ["second", "first"]


def _without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


@each(
    ("spoil", "said"),
    [
        (_without("body"), "0001-openai-chat-gpt-4o/body: No such file or directory"),
        (_without("response.json"), "response.json: No such file or directory"),
        (lambda folder: (folder / "request.json").write_text("{"), "request.json: Expecting property name"),
        (lambda folder: (folder / "response.json").write_text('{"status": "ok"}'), "at `$.status`"),
        (lambda folder: (folder / "chunks.json").write_text('["x"]'), "chunks.json: Expected `int`"),
        (lambda folder: (folder / "meta.json").write_text('{"ending": "odd"}'), "meta.json: Invalid enum value 'odd'"),
        (lambda folder: (folder / "request.json").rename(folder / "gone"), "there is no recording in it"),
    ],
)
def test_a_damaged_recording_is_named(
    spoil: Callable[[Path], object], said: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = keep(tmp_path_factory.mktemp("kept"), ("a", "first"))
    spoil(folder / "0001-openai-chat-gpt-4o")

    with pytest.raises(RecordingError) as caught:
        replay(folder)
    assert said in str(caught.value)


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="there is no such folder; `headrace record"):
        replay(tmp_path / "none")


def test_numbers_of_recordings_go_on(tmp_path: Path) -> None:
    assert next_number(tmp_path) == 1
    keep(tmp_path, ("a", "first"), ("b", "second"))
    (tmp_path / "notes").mkdir()

    assert next_number(tmp_path) == 3


def test_a_recording_survives_its_files(tmp_path: Path) -> None:
    request = RecordedRequest(
        "POST", "h", "/v1/messages?beta=true", {"accept": "*/*"}, {"model": "m\ud800", "n": 2**70}
    )
    pieces = [b"data: \xff\n", b"\n", b"\x00" * 9]
    exchange = RecordedExchange("0007-x", request, RecordedResponse(206, [("a", "b"), ("a", "c")]), pieces, "cut")
    write_recording(tmp_path, exchange, {"note": "é"})

    (read,) = read_recordings(tmp_path / "0007-x")
    assert read.request.model == "m\ud800"
    assert read.request.body == exchange.request.body
    assert (read.response, read.pieces, read.ending) == (exchange.response, pieces, "cut")


def test_equal_bodies_have_no_difference_and_true_is_not_one() -> None:
    assert first_difference({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}) is None
    assert first_difference({"a": True}, {"a": 1}) == "body.a is 1, recorded was true"
    assert first_difference([1], [1, 2]) == "body[1] is 2, recorded was missing"


@corpus.needs_recordings
def test_recordings_of_other_makers_are_played_byte_for_byte() -> None:
    wires = ("openai.chat", "openai.responses", "anthropic.messages", "google.generate")
    names = [name for wire in wires for name in corpus.case_names(wire)]
    for name in random.Random(8).sample(names, repeated(24, 400)):
        with case(name), replay(corpus.WIRE / name) as provider:
            (recording,) = read_recordings(corpus.WIRE / name)
            request = recording.request
            response = post(provider, request.body, "/" + request.path.partition("/")[2])

            assert response.status_code == recording.response.status
            assert response.content == recording.body
            assert provider.unused == []
