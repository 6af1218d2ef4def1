"""No answer of up to 64 MiB stalls a worker for more than 500 ms or takes more than 200 MiB; others' streams go on.

A few of the answers that ``scripts/fuzz --size`` tries, those that were the worst. Stalls are CPU time: a busy machine does not count.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headrace.testing import SimulatedProvider
from tests.fuzz.size import MAX_GROWTH, MAX_STALL, Rig, rig
from tests.fuzz.sizes import APIS, EMBEDDINGS, SizedAnswer, answers
from tests.repetition import only_long
from tests.waiting import cpu_slack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

_ALWAYS = (
    "openai-chat, whole, content: lists, 30 MiB",
    "openai-chat, streamed, usage: lists, 30 MiB",
    "openai-chat, streamed, a string without end in a line of JSON",
    "openai-chat, streamed, gzip of gzip of blank lines",
    "openai-responses, whole, output: objects, 500 kB",
    "anthropic, streamed, result: objects, many of 60 kB",
    "google, whole, args: objects, 30 MiB",
    "openai embeddings, whole, usage: lists, 30 MiB",
)
_AT_LENGTH = (
    "openai-chat, streamed, content: wide text, many of 60 kB",
    "openai-chat, streamed, arguments: objects in text, 30 MiB",
    "openai-responses, streamed, opaque item: lists, many of 60 kB",
    "anthropic, whole, content: one wide character, 30 MiB",
    "google, streamed, lines of JSON",
    "openai embeddings, whole, 2048 vectors of 3072 numbers, base64",
)


@pytest.fixture(scope="module")
def made(session_provider: SimulatedProvider) -> Iterator[Rig]:
    with rig(session_provider) as one:
        yield one


def answer_named(name: str) -> SizedAnswer:
    api = next(api for api in (*EMBEDDINGS, *APIS) if name.startswith(f"{api},"))
    return next(answer for answer in answers(api) if str(answer) == name)


@pytest.mark.parametrize("name", [*_ALWAYS, *only_long(*_AT_LENGTH)])
def test_a_huge_answer_stalls_its_worker_for_half_a_second_at_most(made: Rig, name: str) -> None:
    figure = made.measure(answer_named(name))
    print(figure.row())

    assert figure.is_alive
    assert figure.stall < MAX_STALL * cpu_slack()
    assert figure.growth < MAX_GROWTH
