"""Reads frames of pandas and polars, and gives them a column of results. Imports the library that the frame is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headrace.batch.frames.frame_items import FrameItems
from headrace.errors import InvalidRequestError

Fields = list[dict[str, Any]]
"""The fields of all rows, in order."""
Runner = Callable[[FrameItems], Fields]
"""Runs the items of a frame, and returns their fields."""

_TAKES = "takes a DataFrame or a Series of pandas or polars, or a LazyFrame of polars"


def with_results(frame: Any, into: str, names: tuple[str, ...], run: Runner) -> Any:
    """Return a frame with a column ``into`` of results, or the series of results of a series; of the same library.

    A LazyFrame runs when it is collected. Raises InvalidRequestError for anything else, and for a column that is there.
    """
    library = type(frame).__module__.partition(".")[0]
    kind = type(frame).__name__
    _check_new(into, library, kind, frame)
    if library == "pandas" and kind == "DataFrame":
        items = FrameItems(len(frame), lambda begin, end: frame.iloc[begin:end].to_dict("records"))
        return frame.assign(**{into: _pandas_column(frame, into, run(items))})
    if library == "pandas" and kind == "Series":
        return _pandas_column(
            frame, into, run(FrameItems(len(frame), lambda begin, end: frame.iloc[begin:end].tolist()))
        )
    if library == "polars" and kind == "LazyFrame":
        return _lazily(frame, into, names, run)
    if library == "polars" and kind == "DataFrame":
        items = FrameItems(len(frame), lambda begin, end: frame.slice(begin, end - begin).to_dicts())
        return frame.with_columns(_polars_column(into, names, run(items)))
    if library == "polars" and kind == "Series":
        items = FrameItems(len(frame), lambda begin, end: frame.slice(begin, end - begin).to_list())
        return _polars_column(into, names, run(items))
    raise InvalidRequestError(f"{_TAKES}, not {kind}", "frame")


def _check_new(into: str, library: str, kind: str, frame: Any) -> None:
    """Raise InvalidRequestError if the frame has a column of this name."""
    if library == "polars" and kind == "LazyFrame":
        names: Any = frame.collect_schema().names()
    elif library in {"pandas", "polars"} and kind == "DataFrame":
        names = frame.columns
    else:
        return
    if into in names:
        raise InvalidRequestError(f"the frame has a column {into!r} already: give another name", "into")


def _lazily(frame: Any, into: str, names: tuple[str, ...], run: Runner) -> Any:
    """Return a LazyFrame that runs the rows when it is collected: only the rows that are asked for."""
    import polars as pl
    from polars.io.plugins import register_io_source

    def collected(
        columns: list[str] | None, predicate: Any, row_count: int | None, _batch_size: int | None
    ) -> Iterator[Any]:
        needs_results = predicate is not None and into in predicate.meta.root_names()
        wanted = frame
        if predicate is not None and not needs_results:
            wanted = wanted.filter(predicate)
        if row_count is not None and not needs_results:
            wanted = wanted.head(row_count)
        found = wanted.collect()
        if needs_results or columns is None or into in columns:
            found = with_results(found, into, names, run)
        if needs_results:
            found = found.filter(predicate)
        yield found if columns is None else found.select(columns)

    def schema() -> Any:
        return pl.Schema({**frame.collect_schema(), into: _polars_type(names)})

    return register_io_source(collected, schema=schema)


def _pandas_column(frame: Any, name: str, fields: Fields) -> Any:
    import pandas as pd

    return pd.Series(fields, index=frame.index, name=name, dtype=object)


def _polars_column(name: str, names: tuple[str, ...], fields: Fields) -> Any:
    import polars as pl

    if "parsed" in names:
        fields = [row if row["parsed"] is None else row | {"parsed": _json(row["parsed"])} for row in fields]
    return pl.Series(name, fields, dtype=_polars_type(names))


def _json(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=_model).decode()


def _model(value: Any) -> Any:
    """Return the fields of a pydantic model, which msgspec does not know."""
    return value.model_dump(mode="json")


def _polars_type(names: tuple[str, ...]) -> Any:
    """Return the type of a column of results. ``parsed`` is a text in JSON: a type may have no form in polars."""
    import polars as pl

    types: dict[str, Any] = {
        "embedding": pl.List(pl.Float64),
        "input_tokens": pl.Int64,
        "output_tokens": pl.Int64,
        "cost": pl.Float64,
    }
    return pl.Struct({name: types.get(name, pl.String) for name in names})
