"""Turns the questions of the state machine into calls of the batch process, and its answers into events. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from headrace.batch.provider_batches.batch_states import BatchStates
from headrace.batch.provider_batches.part_commands import Command, TakeStep
from headrace.wire.batch_messages import (
    AnswersFetched,
    BatchAnswer,
    BatchCall,
    BatchCancelled,
    BatchCreated,
    BatchesFound,
    BatchPolled,
    CallFailed,
    CancelBatch,
    CreateBatch,
    FetchAnswers,
    FindBatches,
    PollBatch,
    RowsUploaded,
    UploadRows,
)


def call_of(ask: TakeStep, number: int, answers: Path) -> BatchCall:
    """Return the call that asks a question. ``number``: of the call. ``answers``: the file for the part's answers."""
    part, group = ask.part, ask.part.group
    match ask.step:
        case "upload":
            return UploadRows(number, group, part.token, part.rows)
        case "create":
            return CreateBatch(number, group, part.token, part.rows, part.file_id)
        case "find":
            return FindBatches(number, group, part.token, part.submitted_at, part.row_count)
        case "poll":
            return PollBatch(number, group, part.batch_id)
        case "fetch":
            return FetchAnswers(number, group, part.batch_id, part.token, part.rows, part.results, str(answers))
        case "cancel":
            return CancelBatch(number, group, part.batch_id)
        case _:
            assert_never(ask.step)


def told(states: BatchStates, number: int, answer: BatchAnswer, now: float, wall: float) -> list[Command]:
    """Tell the state machine the answer to a question about the part ``number``. Return what it wants done."""
    match answer:
        case RowsUploaded():
            return states.uploaded(number, answer.file_id, wall)
        case BatchCreated():
            return states.created(number, answer.batch_id, now)
        case BatchesFound():
            return states.found(number, answer, now, wall)
        case BatchPolled():
            return states.polled(number, answer, now)
        case AnswersFetched():
            return states.fetched(number, answer.own, answer.foreign, now)
        case BatchCancelled():
            return states.cancelled(number, now)
        case CallFailed():
            return states.step_failed(number, answer.failed, now, may_have_arrived=answer.may_have_arrived)
        case _:
            raise TypeError(f"{type(answer).__name__} answers no question about a part")
