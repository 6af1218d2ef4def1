"""A message that no frame can carry ends its own run, with an error that says what kind of answer it was."""

from __future__ import annotations

from typing import Any

from headrace.wire.messages import MAX_FRAME_BYTES, Chunk, Failed
from headrace_workers.worker import encodable


def test_a_chunk_that_cannot_be_encoded_is_a_broken_answer_with_its_status() -> None:
    odd: Any = [object()]
    told = encodable(Chunk("sp_1", 1, 3, odd))

    assert isinstance(told, Failed)
    assert (told.kind, told.sequence, told.status_code) == ("provider_protocol", 3, 200)
    assert encodable(Chunk("sp_1", 1, 3, ["a"])) == Chunk("sp_1", 1, 3, ["a"])


def test_an_answer_that_is_too_large_for_a_frame_ends_its_run_with_a_word() -> None:
    text = ["x" * (MAX_FRAME_BYTES // 4)] * 4
    told = encodable(Chunk("sp_1", 1, 3, list(text)))

    assert isinstance(told, Failed)
    assert "over 64 MiB" in told.reason
