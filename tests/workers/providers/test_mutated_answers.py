"""A success is whole: an answer with any one fault in it gives all that it still says, or an error.

HEADRACE_MUTATIONS=all tries each fault in each place of each recorded answer (hours); HEADRACE_SEED=<number> repeats a
run.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from headrace.types import RunLocalResult
from headrace.wire.messages import Finished
from headrace_workers.providers.shared import unread_content as unread
from headrace_workers.providers.shared.sse import SSEParser
from headrace_workers.runs import answer_reader, terminal_message
from tests.repetition import repeated
from tests.workers import corpus
from tests.workers.providers import example_answers as answers
from tests.workers.providers.faulty_answers import FaultyAnswer, RecordedAnswer, body_of, mutants, said_by
from tests.workers.providers.result_of_bytes import FORMATS, heard_of, result_of

SEED = int(os.environ.get("HEADRACE_SEED", random.randrange(2**32)))
EACH = os.environ.get("HEADRACE_MUTATIONS") == "all"
PER_RECORDING = repeated(2, 5)
WIRES = {
    "openai-chat": "openai.chat",
    "openai-responses": "openai.responses",
    "anthropic": "anthropic.messages",
    "google": "google.generate",
}


def recorded(api: str) -> Iterator[tuple[str, RecordedAnswer]]:
    """Return the recorded successes of a wire format."""
    for name in corpus.case_names(WIRES[api]):
        case = corpus.load(name)
        # A caller who asks for several answers knows that only the first is kept.
        if case.status == 200 and case.expected["error"] is None and not case.expected.get("choices"):
            yield name, read(api, case.body)


def read(api: str, body: bytes) -> RecordedAnswer:
    if body.lstrip().startswith((b"{", b"[")):
        return RecordedAnswer(api, [("", json.loads(body))], is_stream=False)
    parser = SSEParser()
    events = [(name, value_of(data)) for name, data in parser.feed(body) + parser.finish()]
    return RecordedAnswer(api, events, is_stream=True)


def value_of(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data


def lack_of(mutant: FaultyAnswer) -> str | None:
    """Return the content of the answer that a success lacks; None for an error, and for a complete success."""
    answer = mutant.answer
    content_type = "text/event-stream" if answer.is_stream else "application/json"
    heard = heard_of(answer.api, [body_of(answer)], content_type=content_type, stream=answer.is_stream)
    result = result_of(heard, stream=answer.is_stream)
    if not isinstance(result, RunLocalResult):
        return None
    assert isinstance(heard.terminal, Finished)
    said = said_by(answer)
    if not said.has_end:
        return "an end"
    if result.finish_reason == "tool_calls" and not result.tool_calls:
        return "the calls that it says it made"
    arguments = "".join(call.arguments for call in heard.terminal.tool_calls)
    # Google's arguments are objects, so they are searched as a whole.
    pieces = "" if answer.api == "google" else arguments
    got = len(result.text) + len(result.reasoning) + len(result.refusal or "") + len(pieces)
    if got < said.characters:
        return f"{said.characters - got} of {said.characters} characters"
    whole = texts_in([msgspec.to_builtins(result), arguments])
    return next((words for words in said.wholes if with_whole_characters(words) not in whole), None)


def with_whole_characters(words: str) -> str:
    return words.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def texts_in(value: Any) -> str:
    if isinstance(value, str):
        return value + "\0"
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return "".join(map(texts_in, items))


def faults_of(name: str, answer: RecordedAnswer, count: int | None) -> list[str]:
    """Return a description of each faulty answer that is a success without all its content."""
    chance = random.Random(f"{SEED} {name}")
    found = [(mutant.what, lack) for mutant in mutants(answer, chance, count) if (lack := lack_of(mutant)) is not None]
    return [f"HEADRACE_SEED={SEED} {name}, {what}: a success without {lack!r}" for what, lack in found]


@corpus.needs_recordings
@pytest.mark.parametrize("api", FORMATS)
def test_a_recorded_answer_with_a_fault_gives_its_content_or_an_error(api: str) -> None:
    count = None if EACH else PER_RECORDING
    assert [fault for name, answer in recorded(api) for fault in faults_of(name, answer, count)] == []


@pytest.mark.parametrize("api", FORMATS)
def test_each_fault_in_each_place_of_an_answer_gives_its_content_or_an_error(api: str) -> None:
    whole = RecordedAnswer(api, [("", answers.WHOLE[api])], is_stream=False)
    streamed = read(api, b"".join(answers.events(api)))
    assert faults_of("whole", whole, None) + faults_of("streamed", streamed, None) == []


@pytest.mark.parametrize("api", FORMATS)
def test_without_its_guard_the_rule_is_broken(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "fail", lambda _: None)
    monkeypatch.setattr(terminal_message, "incomplete_reason", lambda _: None)
    monkeypatch.setattr(answer_reader, "missing_content", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="a success without"):
        test_each_fault_in_each_place_of_an_answer_gives_its_content_or_an_error(api)
