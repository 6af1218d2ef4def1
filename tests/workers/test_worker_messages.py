"""A message that no frame can carry ends its own run, with an error that says what kind of answer it was."""

from __future__ import annotations

from typing import Any

from headrace.wire.messages import Chunk, Failed
from headrace_workers.worker import encodable


def test_a_chunk_that_cannot_be_encoded_is_a_broken_answer_with_its_status() -> None:
    odd: Any = [object()]
    told = encodable(Chunk("sp_1", 1, 3, odd))

    assert isinstance(told, Failed)
    assert (told.kind, told.sequence, told.status_code) == ("provider_protocol", 3, 200)
    assert encodable(Chunk("sp_1", 1, 3, ["a"])) == Chunk("sp_1", 1, 3, ["a"])
