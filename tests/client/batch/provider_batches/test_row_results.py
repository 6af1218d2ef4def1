"""The results of rows that a provider has run in its own time: their price, their ids, and the errors of rows without an answer."""

from __future__ import annotations

import pytest

from headrace.batch.provider_batches.part import Part
from headrace.batch.provider_batches.row_results import error_of, result_of, span_id_of, unanswered
from headrace.errors import ProviderProtocolError, ProviderUnavailableError
from headrace.pricing.prices import PriceTable
from headrace.types import Message, Usage
from headrace.wire.batch_frames import StoredRow
from headrace.wire.batch_messages import BatchGroup, RowsFile
from headrace.wire.run_messages import Finished

ROW = StoredRow(7, "r7", "chat", "short", b"hash", b"", "openai", "gpt-4o")
ANSWER = Finished(
    "sp_1", 1, 0, 0, "stop", "stop", Usage(1_000_000, 0, 1_000_000, source="provider"), [], "gpt-4o",
    message=Message(role="assistant", content="yes"),
)  # fmt: skip


def part(window: str = "", batch_id: str = "batch_1") -> Part:
    group = BatchGroup("openai", "background" if window else "openai", "openai-chat", window=window)
    rows = RowsFile("rows", 1)
    return Part(
        number=1, token="t", group=group, rows=rows, ranges=[(7, 7)], size=1, batch_id=batch_id, submitted_at=100.0
    )


@pytest.mark.parametrize(("window", "share"), [("", 0.5), ("2h", 0.7), ("8h", 0.6)])
def test_a_batch_costs_half_and_a_background_run_as_its_window_says(window: str, share: float) -> None:
    result = result_of(part(window), ROW, ANSWER, PriceTable(), 160.0, None)
    assert result.text == "yes"
    assert result.cost == pytest.approx(2.5 * share)
    assert result.latency_ms == 60_000


def test_a_row_has_the_same_id_whenever_its_answer_is_read() -> None:
    assert span_id_of(part(), 7) == span_id_of(part("2h"), 7) != span_id_of(part(), 8)


def test_a_row_without_an_answer_says_what_happened_and_what_to_do() -> None:
    expired = error_of(part(), 7, unanswered(part(), "expired"), "openai")
    assert isinstance(expired, ProviderUnavailableError)
    assert "batch_1 expired" in str(expired)
    assert "--retry-failed" in str(expired)
    assert expired.code == "batch_expired"
    missing = error_of(part(), 7, unanswered(part(), ""), "openai")
    assert isinstance(missing, ProviderProtocolError)
