"""Rows of a batch job that a program gives as Python values: a list, or an iterator that can be read once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from headrace.batch.row import BadRow, Row
from headrace.batch.rows.row_options import RowOptions
from headrace.batch.rows.row_reader import RowReader, line_id
from headrace.dict_form import DictForm
from headrace.errors import InvalidRequestError
from headrace.files.private_files import open_private

_encode = msgspec.json.Encoder().encode
_KEY = "provider_api_key"
_decode = msgspec.json.Decoder().decode


class ListedRows:
    """The rows of a list. It may be iterated again and again."""

    def __init__(self, items: Sequence[Any], options: RowOptions) -> None:
        self._items = items
        self._reader = RowReader(options)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Row | BadRow]:
        for number, item in enumerate(self._items, 1):
            yield row_of(self._reader, number, item)

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row | BadRow]:
        """Yield the rows with these numbers, which must ascend."""
        for number in numbers:
            yield row_of(self._reader, number, self._items[number - 1])


class StreamedRows:
    """The rows of an iterator. It can be iterated once."""

    may_block = True

    def __init__(self, items: Iterable[Any], options: RowOptions) -> None:
        self._items = items
        self._reader = RowReader(options)

    def __iter__(self) -> Iterator[Row | BadRow]:
        for number, item in enumerate(self._items, 1):
            yield row_of(self._reader, number, item)


class SpooledRows:
    """The rows of an iterator, copied to a file, so that they can be iterated again and again. The file has mode 0600.

    Raises InvalidRequestError if an item has anything but plain values: it cannot be written.
    """

    def __init__(self, items: Iterable[Any], options: RowOptions, path: Path) -> None:
        self._reader = RowReader(options)
        self._path = path
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with open(descriptor, "wb") as file:
            file.writelines(_line_of(item, number) for number, item in enumerate(items, 1))

    def __iter__(self) -> Iterator[Row | BadRow]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield row_of(self._reader, number, _decode(line))

    def numbered(self, numbers: Iterable[int]) -> Iterator[Row | BadRow]:
        """Yield the rows with these numbers, which must ascend."""
        with self._path.open("rb") as file:
            at = 0
            for number in numbers:
                line = next(islice(file, number - at - 1, None))
                at = number
                yield row_of(self._reader, number, _decode(line))

    def remove(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def row_of(reader: RowReader, number: int, item: Any) -> Row | BadRow:
    """Return the row of an item: a dict, a text, or a list of messages."""
    if isinstance(item, str):
        return reader.read_text(number, item)
    if isinstance(item, Mapping):
        return reader.read_mapping(number, item)
    if isinstance(item, list | tuple) and not reader.needs_records:
        return reader.read_mapping(number, {"messages": list(item)})
    what = "a dict or a text" if reader.needs_records else "a dict, a text or a list of messages"
    return BadRow(number, line_id(number), f"takes {what}, not {type(item).__name__}")


def _line_of(item: Any, number: int) -> bytes:
    """Return an item as a line of JSON."""
    try:
        plain = _plain(item, number)
        if isinstance(plain, dict) and _KEY in plain:
            plain = plain | {_KEY: ""}  # the row is refused, and its key is not written
        return _encode(plain) + b"\n"
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"row {number} cannot be written to the file that path needs: {error}; give the rows as a list"
        raise InvalidRequestError(reason, "rows") from None


def _plain(item: Any, number: int) -> Any:
    """Return an item in the types of JSON."""
    kind = type(item)
    if kind in _PLAIN:
        return item
    if isinstance(item, DictForm):
        return _plain(item.to_dict(), number)
    if isinstance(item, Mapping):
        return {key: _plain(value, number) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value, number) for value in item]
    if isinstance(item, str | int | float):
        return item
    reason = (
        f"row {number} has a {kind.__name__}: with path, rows of an iterator are plain values; give the rows as a list"
    )
    raise InvalidRequestError(reason, "rows")


_PLAIN = frozenset({str, int, float, bool, type(None)})
