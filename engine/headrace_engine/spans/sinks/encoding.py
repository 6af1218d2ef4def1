"""Encodes the spans of a batch one by one. A span that cannot be encoded is set aside and holds up no other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from headrace.spans.span import bounded
from headrace.spans.span_database import StoredSpan
from headrace.spans.value_bounds import dollars, encodable
from headrace_engine.spans.sinks.answer_policy import SpanSetAside

T = TypeVar("T")


def encoded(
    spans: Sequence[StoredSpan], encode: Callable[[StoredSpan], T]
) -> tuple[list[tuple[int, T]], tuple[SpanSetAside, ...]]:
    """Return (place in the batch, encoded span) for each span, and the spans that cannot be encoded.

    If encoding a span fails, it is tried once more with mended values: integers of 64 bits, possible dates, whole characters.
    """
    whole: list[tuple[int, T]] = []
    aside: list[SpanSetAside] = []
    for index, stored in enumerate(spans):
        try:
            whole.append((index, _encoded(stored, encode)))
        except MemoryError:
            raise  # it is not the span's fault
        except Exception as error:  # noqa: BLE001 - any error would come again with each try
            aside.append(SpanSetAside(index, f"cannot be encoded: {type(error).__name__}"))
    return whole, tuple(aside)


def _encoded(stored: StoredSpan, encode: Callable[[StoredSpan], T]) -> T:
    try:
        return encode(stored)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001
        return encode(_with_encodable_values(stored))


def _with_encodable_values(stored: StoredSpan) -> StoredSpan:
    span = bounded(encodable(stored.span))
    return msgspec.structs.replace(stored, span=span, cost=dollars(stored.cost))
