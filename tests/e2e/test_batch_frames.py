"""Frames of pandas and polars in and out: a column of prompts becomes a column of results."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
import polars as pl
import pytest

from headrace import Client, InvalidRequestError
from headrace.testing import SimulatedProvider
from tests.conftest import simulate


class Mood(msgspec.Struct):
    """An answer of these tests."""

    is_good: bool


@pytest.fixture
def key() -> Any:
    """Return arguments with a key of this test alone."""
    return {"model": "gpt-4o", "provider_api_key": f"sk-{secrets.token_hex(8)}", "custom_options": simulate(text="yes")}


COLUMNS = {"review": ["nice", "bad", "so so"], "stars": [5, 1, 3]}


def prompts_of(provider: SimulatedProvider) -> list[str]:
    return sorted(request.body["messages"][-1]["content"] for request in provider.requests())


def test_a_frame_of_pandas_keeps_its_index(client: Client, provider: SimulatedProvider, key: Any) -> None:
    frame = pd.DataFrame(COLUMNS, index=["a", "b", "c"])
    done = client.batch_frame(frame, prompt="{review} ({stars})", **key)

    assert prompts_of(provider) == ["bad (1)", "nice (5)", "so so (3)"]
    assert [*done.columns] == ["review", "stars", "result"]
    assert [*done.index] == ["a", "b", "c"]
    assert [result["text"] for result in done["result"]] == ["yes"] * 3
    assert done["result"]["a"]["error"] is None
    assert [*frame.columns] == ["review", "stars"]
    series = client.batch_frame(frame["review"], **key)
    assert isinstance(series, pd.Series)
    assert [*series.index] == ["a", "b", "c"]


def test_a_frame_of_polars_gets_a_column_of_structs(client: Client, provider: SimulatedProvider, key: Any) -> None:
    frame = pl.DataFrame(COLUMNS)
    done = client.batch_frame(frame, prompt="{review}", into="answer", **key)

    assert done.columns == ["review", "stars", "answer"]
    assert done["answer"].struct.field("text").to_list() == ["yes"] * 3
    assert done["answer"].struct.field("output_tokens").sum() == 3
    assert client.batch_frame(frame["review"], **key).struct.field("finish_reason").to_list() == ["stop"] * 3


def test_a_lazy_frame_runs_only_the_rows_that_are_collected(
    client: Client, provider: SimulatedProvider, key: Any
) -> None:
    frame = pl.LazyFrame(COLUMNS)
    lazy = client.batch_frame(frame, prompt="{review}", **key)

    assert isinstance(lazy, pl.LazyFrame)
    assert lazy.collect_schema().names() == ["review", "stars", "result"]
    assert provider.requests() == []
    done = lazy.filter(pl.col("result").struct.field("text") == "yes").select("stars").collect()
    assert done["stars"].to_list() == [5, 1, 3]
    provider.clear()
    assert len(lazy.head(1).collect()) == 1
    assert prompts_of(provider) == ["nice"]
    provider.clear()
    assert lazy.filter(pl.col("stars") > 2).collect()["result"].struct.field("text").to_list() == ["yes"] * 2
    assert prompts_of(provider) == ["nice", "so so"]
    assert len(lazy.select("stars").collect()) == 3
    assert lazy.collect(engine="streaming")["result"].struct.field("error").to_list() == [None] * 3


def test_answers_of_a_type_are_objects_in_pandas_and_json_in_polars(
    client: Client, provider: SimulatedProvider, key: Any
) -> None:
    arguments = {**key, "custom_options": simulate(text='{"is_good": true}'), "response_type": Mood}
    objects = client.batch_frame(pd.Series(["nice"]), **arguments)
    texts = client.batch_frame(pl.Series(["nice"]), **arguments)

    assert objects[0]["parsed"] == Mood(True)
    assert texts.struct.field("parsed").str.json_decode(pl.Struct({"is_good": pl.Boolean})).struct.field(
        "is_good"
    ).to_list() == [True]


def test_a_row_that_fails_has_its_error_in_the_column(client: Client, provider: SimulatedProvider, key: Any) -> None:
    frame = pl.DataFrame({"prompt": ["a", "b"], "temperature": [0.0, 9.0]})
    done = asyncio.run(client.abatch_frame(frame, **key))

    assert done["result"].struct.field("text").to_list() == ["yes", None]
    assert done["result"].struct.field("error_type").to_list() == [None, "InvalidRequestError"]
    assert "temperature" in done["result"].struct.field("error")[1]


def test_a_column_is_embedded(client: Client, provider: SimulatedProvider, key: Any) -> None:
    arguments = {**key, "model": "text-embedding-3-small", "custom_options": {}}
    done = client.batch_frame(pl.DataFrame(COLUMNS), embed="review", **arguments)

    vectors = done["result"].struct.field("embedding")
    assert vectors.dtype == pl.List(pl.Float64)
    assert all(len(vector) > 0 for vector in vectors)


def test_a_frame_with_a_path_runs_each_row_once(
    client: Client, provider: SimulatedProvider, key: Any, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"review": [f"review {number}" for number in range(2500)]})
    arguments = {**key, "prompt": "{review}", "path": tmp_path / "out.jsonl"}
    first = client.batch_frame(frame, **arguments)
    again = client.batch_frame(frame, **arguments)

    assert first.equals(again)
    assert len(provider.requests()) == 2500


def test_rows_beyond_a_limit_say_that_they_were_not_run(client: Client, provider: SimulatedProvider, key: Any) -> None:
    done = client.batch_frame(pd.DataFrame(COLUMNS), prompt="{review}", limit=1, **key)
    assert [result["text"] for result in done["result"]] == ["yes", None, None]
    assert "was not run" in done["result"][2]["error"]


@pytest.mark.parametrize("frame", [pd.DataFrame(COLUMNS), pl.DataFrame(COLUMNS), pl.LazyFrame(COLUMNS)])
def test_a_column_that_is_there_is_not_overwritten(client: Client, frame: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a column 'stars' already: give another name") as caught:
        client.batch_frame(frame, model="gpt-4o", prompt="{review}", into="stars")
    assert caught.value.argument == "into"


@pytest.mark.parametrize("frame", [[1, 2], {"a": [1]}, "text", None])
def test_what_is_no_frame_is_refused(client: Client, frame: Any) -> None:
    with pytest.raises(InvalidRequestError, match="DataFrame"):
        client.batch_frame(frame, model="gpt-4o")
