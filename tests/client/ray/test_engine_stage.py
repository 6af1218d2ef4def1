"""The stage for Ray Data, called as Ray calls it, but without a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import InvalidRequestError
from headrace.ray import EngineStage
from headrace.testing import Script, SimulatedProvider

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shared() -> Iterator[SimulatedProvider]:
    with SimulatedProvider(process=True) as provider, provider.in_environment():
        yield provider


@pytest.fixture
def provider(shared: SimulatedProvider) -> SimulatedProvider:
    shared.clear()
    return shared


def stage(**arguments: Any) -> closing[EngineStage]:
    return closing(EngineStage(**{"model": "gpt-4o", "max_retries": 0, **arguments}))


def texts(count: int) -> pa.Table:
    return pa.table({"id": list(range(count)), "text": [f"text {number}" for number in range(count)]})


def rows_of(pieces: Iterator[pa.Table]) -> list[dict[str, Any]]:
    return [row for piece in pieces for row in piece.to_pylist()]


def prompts_of(provider: SimulatedProvider) -> list[str]:
    return sorted(record.body["messages"][-1]["content"] for record in provider.requests())


def test_answers_are_columns_in_the_order_of_the_input(provider: SimulatedProvider) -> None:
    with stage(prompt="Say {text}", arguments={"temperature": 0}) as run:
        pieces = list(run(texts(150)))
        again = rows_of(run({"id": [1], "text": ["of a dict"]}))
        again += rows_of(run(pytest.importorskip("pandas").DataFrame({"text": ["of a frame"]})))

    assert [len(piece) for piece in pieces] == [64, 64, 22]
    rows = rows_of(iter(pieces))
    assert [row["id"] for row in rows] == list(range(150))
    first = rows[0]
    assert first["answer"].startswith("The river")
    assert (first["finish_reason"], first["provider"], first["model"]) == ("stop", "openai", "gpt-4o")
    assert first["cost"] > 0
    assert first["error"] is first["refusal"] is first["parsed"] is None
    assert [row["error"] for row in again] == [None, None]
    assert pieces[0].schema == pieces[2].schema
    assert provider.requests()[0].body["temperature"] == 0


def test_errors_are_columns_and_end_no_other_row(provider: SimulatedProvider) -> None:
    provider.enqueue(Script(status=400, error_message="no such thing"))
    bad = pa.table({"messages": [[{"role": "user", "content": "hi"}], [{"role": "wrong", "content": "hi"}]]})

    with stage(messages="messages", prefix="llm_", arguments={"timeout_ms": 20_000}) as run:
        one, other = rows_of(run(bad))
        (fine,) = rows_of(run(bad.slice(0, 1)))

    assert "no such thing" in one["llm_error_message"]
    assert "role" in other["llm_error_message"]
    assert one["llm_error"]
    assert other["llm_error"]
    assert (fine["llm_error"], fine["llm_finish_reason"]) == (None, "stop")


def test_rows_of_the_journal_are_not_run_again(provider: SimulatedProvider, tmp_path: Path) -> None:
    arguments: Mapping[str, Any] = {"prompt": "Say {text}", "id_column": "id", "journal": tmp_path / "j"}
    with stage(**arguments) as run:
        first = rows_of(run(texts(3)))
    with stage(**arguments) as run:
        second = rows_of(run(texts(5)))
    assert second[:3] == first
    assert prompts_of(provider) == [f"Say text {number}" for number in range(5)]


def test_texts_are_embedded_and_schemas_are_kept(provider: SimulatedProvider) -> None:
    with stage(embed="text", model="text-embedding-3-small") as run:
        vectors = rows_of(run(texts(2)))
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    with stage(prompt="Count {text}", arguments={"response_type": schema}) as run:
        (counted,) = rows_of(run(texts(1)))

    assert [len(row["embedding"]) for row in vectors] == [64, 64]
    assert '"n":' in counted["parsed"].replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "table", "match"),
    [
        ({}, None, "give one of prompt"),
        ({"prompt": "{text}", "embed": "text"}, None, "give one of prompt"),
        ({"prompt": "{text}", "journal": "j"}, None, "id_column"),
        ({"prompt": "{nothing}"}, texts(1), "nothing"),
        ({"messages": "nothing"}, texts(1), "nothing"),
        ({"prompt": "{text}"}, pa.table({"text": ["a"], "answer": ["b"]}), "prefix"),
    ],
)
def test_wrong_arguments_are_refused_by_name(arguments: dict[str, Any], table: pa.Table | None, match: str) -> None:
    def use() -> None:
        with stage(**arguments) as run:
            list(run(table))

    with pytest.raises(InvalidRequestError, match=match):
        use()
