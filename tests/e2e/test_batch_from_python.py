"""Batch jobs from Python, with a real engine: results, order, errors, restarts, shared and kept answers."""

from __future__ import annotations

import asyncio
import gc
import json
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from headrace import (
    BatchResult,
    ChangedInputError,
    Client,
    DuplicateRowsError,
    EngineUnavailableError,
    InvalidRequestError,
    JobLockedError,
    OutputValidationError,
    RunEmbeddingResult,
)
from headrace.testing import SimulatedProvider
from tests.conftest import simulate
from tests.waiting import wait_until


class Price(msgspec.Struct):
    """An answer of these tests."""

    dollars: float


def texts(results: Any) -> list[str]:
    return [result.text for result in results]


def prompts_of(provider: SimulatedProvider) -> list[str]:
    """Return the user's message of each request."""
    return [request.body["messages"][-1]["content"] for request in provider.requests()]


@pytest.fixture
def key() -> dict[str, str]:
    """Return arguments with a key of this test alone: limits are learned for each key."""
    return {"model": "gpt-4o", "provider_api_key": f"sk-{secrets.token_hex(8)}"}


def test_map_gives_answers_in_the_order_of_the_prompts(client: Client, provider: SimulatedProvider, key: Any) -> None:
    rows = [
        {"prompt": f"row {number}", "custom_options": simulate(text=f"{number}", first_token_delay=0.2 * (number == 0))}
        for number in range(200)
    ]
    assert texts(client.map(rows, **key)) == [str(number) for number in range(200)]
    assert texts(
        client.map(["Hi", [{"role": "user", "content": "Hi"}]], **key, custom_options=simulate(text="yes"))
    ) == [
        "yes",
        "yes",
    ]
    assert list(client.map([], model="gpt-4o")) == []


async def collected(results: AsyncIterator[BatchResult[Any]]) -> list[BatchResult[Any]]:
    return [result async for result in results]


def test_asyncio_has_the_same_with_async_rows_too(client: Client, provider: SimulatedProvider, key: Any) -> None:
    async def prompts() -> AsyncIterator[str]:
        for number in range(30):
            await asyncio.sleep(0)
            yield f"prompt {number}"

    async def both() -> None:
        arguments = {**key, "custom_options": simulate(text="fine")}
        mapped = await collected(client.amap(prompts(), **arguments))
        assert [result.number for result in mapped] == [*range(1, 31)]
        assert texts(mapped) == ["fine"] * 30
        batched = await collected(client.abatch([f"prompt {number}" for number in range(30)], **arguments))
        assert {result.id for result in batched} == {f"row-{number}" for number in range(1, 31)}
        async with client.abatch(prompts(), **arguments) as some:
            await anext(some)

    asyncio.run(both())


def test_a_row_that_fails_ends_no_other(client: Client, provider: SimulatedProvider, key: Any) -> None:
    rows: list[Any] = [
        {"id": "good", "prompt": "Hi", "custom_options": simulate(text="yes")},
        {"id": "refused", "prompt": "Hi", "custom_options": simulate(status=400, error_message="no such thing")},
        {"id": "no-provider", "prompt": "Hi", "model": "nobody/model"},
        {"id": "no-model", "prompt": "Hi", "custom_options": simulate(status=404, error_message="no such model")},
        {"id": "wrong", "prompt": "Hi", "temprature": 1},
        7,
        {"id": "vectors", "input": "Hi", "model": "text-embedding-3-small"},
    ]
    found = {result.id: result for result in client.batch(rows, **key)}

    assert found["good"].text == "yes"
    errors = {name: type(result.error) for name, result in found.items() if result.error is not None}
    assert errors == dict.fromkeys(["refused", "no-provider", "no-model", "wrong", "line-6"], InvalidRequestError)
    with pytest.raises(InvalidRequestError, match="temperature"):
        _ = found["wrong"].text
    assert isinstance(found["vectors"].result, RunEmbeddingResult)
    assert len(found["vectors"].embeddings) == 1
    with pytest.raises(TypeError, match="embeddings"):
        _ = found["vectors"].text


def test_records_fill_a_template(client: Client, provider: SimulatedProvider, key: Any) -> None:
    rows = [{"id": "a", "city": "Rome", "year": 1990}, {"id": "b", "city": "Oslo", "year": 2000}]
    list(client.batch(rows, prompt="{city} in {year}?", system="Be brief.", **key))
    assert sorted(prompts_of(provider)) == ["Oslo in 2000?", "Rome in 1990?"]
    provider.clear()
    list(client.map(["Rome", "Oslo"], prompt="Describe {text}", **key))
    assert sorted(prompts_of(provider)) == ["Describe Oslo", "Describe Rome"]


def test_answers_are_read_into_a_type_and_asked_for_again_if_they_do_not_fit(
    client: Client, provider: SimulatedProvider, key: Any
) -> None:
    rows = [
        {"prompt": "a", "custom_options": simulate(text='{"dollars": 2.5}')},
        {"prompt": "b", "custom_options": simulate(text='{"dollars": "much"}')},
    ]
    good, bad = client.map(rows, response_type=Price, **key)

    assert good.parsed == Price(2.5)
    assert isinstance(bad.error, OutputValidationError)
    assert sorted(prompts_of(provider)) == ["a", "b", "b", "b"]
    (parsed,) = client.map(rows[:1], response_type={"type": "object"}, **key)
    assert parsed.parsed == {"dollars": 2.5}


def test_with_a_path_each_row_runs_once_over_all_starts(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    rows = [{"id": f"r{number}", "prompt": f"prompt {number}"} for number in range(300)]
    arguments = {**key, "path": path, "custom_options": simulate(text='{"dollars": 1}'), "response_type": Price}
    with client.batch(rows, **arguments) as results:
        first = {next(results).id for _ in range(20)}

    # Rows that had ended were recorded, and those that ran were aborted.
    recorded = {json.loads(line)["id"] for line in path.read_text().splitlines()}
    assert first <= recorded
    sent = len(provider.requests())
    found = list(client.batch(rows, **arguments))

    assert sorted(result.id for result in found) == sorted(row["id"] for row in rows)
    assert {result.id for result in found if result.origin == "journal"} == recorded
    assert all(result.parsed == Price(1.0) for result in found)
    assert len(provider.requests()) == sent + 300 - len(recorded)
    assert len(path.read_text().splitlines()) == 300
    in_order = list(client.batch(iter(rows), ordered=True, **{**arguments, "path": tmp_path / "ordered.jsonl"}))
    assert [result.id for result in in_order] == [row["id"] for row in rows]
    again = list(client.map(iter(rows), **{**arguments, "path": tmp_path / "ordered.jsonl"}))
    assert [result.id for result in again] == [row["id"] for row in rows]
    assert {result.origin for result in again} == {"journal"}


def test_changed_rows_are_refused_or_run_alone(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    arguments = {**key, "path": tmp_path / "out.jsonl"}
    list(client.batch(["a", "b", "c"], **arguments))
    with pytest.raises(ChangedInputError, match="row-2"):
        client.batch(["a", "B", "c"], **arguments)
    assert len(prompts_of(provider)) == 3

    list(client.batch(["a", "B", "c"], changed=True, **arguments))
    assert prompts_of(provider)[3:] == ["B"]
    list(client.batch(["a", "b"], force=True, **arguments))
    assert sorted(prompts_of(provider)[4:]) == ["a", "b"]


def test_the_schema_of_a_type_shapes_the_answer_and_its_name_does_not(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    def typed(name: str, kind: type) -> type[msgspec.Struct]:
        return msgspec.defstruct(name, [("dollars", kind)])

    arguments = {**key, "path": tmp_path / "out.jsonl", "custom_options": simulate(text='{"dollars": 1}')}
    list(client.batch(["a"], response_type=typed("Price", float), **arguments))
    list(client.batch(["a"], response_type=typed("Cost", float), **arguments))
    with pytest.raises(ChangedInputError):
        client.batch(["a"], response_type=typed("Price", int), **arguments)
    assert len(provider.requests()) == 1


def test_nothing_is_sent_for_rows_with_the_same_id_or_beside_another_job(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    with pytest.raises(DuplicateRowsError, match="'x' in lines 1, 3"):
        client.batch([{"id": name, "prompt": "Hi"} for name in "xyx"], path=tmp_path / "a.jsonl", **key)
    running = client.batch(["Hi"], path=tmp_path / "b.jsonl", custom_options=simulate(first_token_delay=30), **key)
    with pytest.raises(JobLockedError):
        client.batch(["Hi"], path=tmp_path / "b.jsonl", **key)
    running.close()
    list(
        client.batch(["Hi"], path=tmp_path / "b.jsonl", custom_options=simulate(first_token_delay=0), force=True, **key)
    )


def test_a_job_that_nobody_holds_ends(client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    results = client.batch(["Hi"], path=path, custom_options=simulate(first_token_delay=30), **key)
    wait_until(lambda: len(provider.requests()) == 1, 10.0, "a request")
    del results
    gc.collect()

    def is_free() -> bool:
        try:
            client.batch(["Hi"], path=path, force=True, custom_options=simulate(text="later"), **key).close()
        except JobLockedError:
            return False
        return True

    wait_until(is_free, 10.0, "the end of the job")


def test_an_interrupted_job_waits_for_no_row_that_a_limit_holds_back(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    limited = simulate(status=429, headers={"retry-after": "60"})
    slow = {"id": "slow", "prompt": "Hi", "model": "gpt-4o-mini", "custom_options": simulate(first_token_delay=1)}
    rows = [slow, *({"prompt": f"prompt {number}", "custom_options": limited} for number in range(20))]

    def is_held_back() -> bool:
        progress = results.progress()
        return progress is not None and progress.waiting == 20 and progress.waiting_for in {"limit", "blocked"}

    with client.batch(rows, path=tmp_path / "out.jsonl", **key) as results:
        wait_until(is_held_back, 20.0, "rows that a limit holds back")
        results.interrupt()
        assert [result.id for result in results] == ["slow"]
        progress = results.progress()

    assert progress is not None
    assert (progress.stop_reason, progress.done, progress.failed) == ("interrupted", 1, 0)
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 1


def test_the_end_of_the_client_ends_its_jobs(provider: SimulatedProvider, key: Any) -> None:
    with Client() as client:
        results = client.map(
            ({"prompt": str(number), "custom_options": simulate(first_token_delay=30)} for number in range(1000)), **key
        )
        wait_until(lambda: len(provider.requests()) >= 1, 20.0, "a request")
    with pytest.raises(EngineUnavailableError, match="closed"):
        list(results)


def test_equal_rows_and_known_rows_share_an_answer(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    rows = [f"prompt {number % 5}" for number in range(100)]
    found = list(client.map(rows, dedupe=True, path=tmp_path / "out.jsonl", **key))
    assert len(provider.requests()) == 5
    assert [result.origin for result in found].count("shared") == 95
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 100

    cached = list(client.map(rows, dedupe=True, cache=tmp_path / "answers", **key))
    again = list(client.map(rows, dedupe=True, cache=tmp_path / "answers", **key))
    assert len(provider.requests()) == 10
    assert texts(again) == texts(cached)
    assert {result.origin for result in again} == {"cache", "shared"}


def test_an_iterator_is_read_only_as_far_as_results_are_taken(
    client: Client, provider: SimulatedProvider, key: Any
) -> None:
    read = 0

    def prompts() -> Iterator[str]:
        nonlocal read
        for read in range(1, 1_000_001):
            yield f"prompt {read}"

    with client.batch(prompts(), concurrency=16, custom_options=simulate(text="x"), **key) as results:
        for _ in range(50):
            next(results)
        wait_until(lambda: read >= 1024, 30.0, "results that wait for the program")
        progress = results.progress()

    assert progress is not None
    assert read <= 50 + 1024 + 512 + 16


def test_results_come_while_an_iterator_waits_for_its_next_row(
    client: Client, provider: SimulatedProvider, key: Any
) -> None:
    is_answered, is_left = threading.Event(), threading.Event()

    def prompts() -> Iterator[str]:
        yield "first"
        assert is_answered.wait(30)
        yield "second"
        is_left.wait()  # for ever, as far as the job is concerned

    with client.batch(prompts(), **key) as results:
        assert next(results).id == "row-1"
        is_answered.set()
        assert next(results).id == "row-2"
    is_left.set()
    assert list(results) == []


def test_rows_that_are_left_to_the_provider_are_found_again(
    client: Client, provider: SimulatedProvider, tmp_path: Path
) -> None:
    arguments: Any = {"model": "gpt-4o", "via_provider": True, "path": tmp_path / "out.jsonl"}

    def batches() -> int:
        return sum(request.path == "/v1/batches" and request.method == "POST" for request in provider.requests())

    provider.batches.pace(None)
    try:
        for _ in range(2):
            with client.batch(["Hi", "Ho"], **arguments) as results:
                wait_until(
                    lambda: (progress := results.progress()) is not None and progress.running == 2, 20.0, "a batch"
                )
        assert batches() == 1
        with pytest.raises(InvalidRequestError, match="with the provider"):
            client.batch(["Hi", "Ho"], force=True, **arguments)
    finally:
        provider.batches.pace(0.0)


def test_a_wrong_argument_is_named_at_once(client: Client) -> None:
    wrong: dict[str, Any]
    for wrong, words in (
        ({"temprature": 1}, "temperature"),
        ({"concurrency": 0}, "concurrency"),
        ({"prompt": "{text}", "embed": "text"}, "embed"),
        ({"path": 7}, "path"),
        ({"max_cost": -1}, "max_cost"),
    ):
        with pytest.raises(InvalidRequestError, match=words):
            client.batch(["Hi"], **cast("Any", {"model": "gpt-4o", **wrong}))
    with pytest.raises(InvalidRequestError, match="list"):
        client.map("Hi", model="gpt-4o")
