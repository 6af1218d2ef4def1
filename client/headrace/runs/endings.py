"""How a run can end: its worker's last message, or an error. Makes each ending from what the session knows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.answers.assembly import joined_text
from headrace.arguments.original_paths import original_path
from headrace.errors import HeadraceError, PoisonRunError, RemoteProtocolError, RunTimeoutError, WorkerLostError
from headrace.runs.run_plan import RunPlan
from headrace.types import RunEvent, Usage
from headrace.wire.messages import Aborted, Failed, Finished, Terminal
from headrace.wire.settlement import ClientOutcome
from headrace.wire.typed_errors import failure_error

Ending = Finished | Aborted | HeadraceError
"""How a run ended. ``Aborted`` says that its worker was told to stop; ``outcome.py`` says what the caller gets."""


def as_aborted(terminal: Terminal) -> Aborted:
    """Return the ending of a run after its worker was told to stop.

    Only the usage and the wire format of the worker's last message count.
    """
    wire_format = None if isinstance(terminal, Failed) else terminal.wire_format
    return Aborted(terminal.span_id, terminal.attempt, terminal.sequence, terminal.usage, wire_format)


def aborted_without_answer(plan: RunPlan, attempt: int, event_count: int) -> Aborted:
    """Return the ending of a run that was stopped: its worker did not answer, or it had no worker."""
    return Aborted(plan.span_id, attempt, event_count, Usage())


def checked(plan: RunPlan, events: Sequence[RunEvent], finished: Finished) -> Ending:
    """Return the ending of a finished run: RemoteProtocolError if the worker sent other events than those that arrived."""
    if not plan.streams:
        return finished
    length = len(joined_text(events))
    if finished.sequence == len(events) and finished.text_length == length:
        return finished
    return RemoteProtocolError(
        f"run {plan.span_id}: {len(events)} events with {length} characters arrived, "
        f"but the worker sent {finished.sequence} events with {finished.text_length} characters"
    )


def failure(plan: RunPlan, events: Sequence[RunEvent], failed: Failed) -> HeadraceError:
    """Return the error of a failed run, with the text so far. It names the argument as the caller wrote it."""
    if failed.argument is not None:
        failed = msgspec.structs.replace(failed, argument=original_path(failed.argument, plan.original_paths))
    if failed.span_id != plan.span_id:  # that of a hedge
        failed = msgspec.structs.replace(failed, span_id=plan.span_id)
    return failure_error(failed, plan.provider, joined_text(events) + failed.partial_text)


def timed_out(plan: RunPlan, events: Sequence[RunEvent]) -> RunTimeoutError:
    """Return the error of a run that has no terminal message long after its total timeout."""
    limit = plan.total_timeout or 0.0
    reason = f"not finished within {limit:g} s (total timeout), and the worker did not say so"
    return RunTimeoutError(plan.span_id, reason, joined_text(events), "total", limit)


def client_outcome(ending: Ending) -> ClientOutcome:
    """Return how a run ended, for the broker, where the worker sent no terminal message."""
    if isinstance(ending, Aborted):
        return "aborted"
    return "worker_lost" if isinstance(ending, WorkerLostError | PoisonRunError) else "client_failed"
