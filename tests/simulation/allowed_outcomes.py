"""Which outcome a run may have, by what its provider said, what its caller did, and what went wrong."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import (
    EngineUnavailableError,
    HeadraceError,
    InvalidRequestError,
    PoisonRunError,
    ProviderError,
    QueueFullError,
    RunError,
    RunTimeoutError,
    WorkerLostError,
)
from headrace.runs.endings import Ending
from headrace.runs.session import MAX_WORKER_DEATHS
from headrace.wire.messages import Aborted, Finished
from tests.simulation.callers import Caller
from tests.simulation.plans import TOTAL_TIMEOUT
from tests.simulation.provider_calls import Call
from tests.simulation.world import SimulationViolation

_ROUNDING = 1e-6


class Circumstances:
    """What has gone wrong in a schedule."""

    def __init__(self) -> None:
        self.has_trouble = False
        """Something that can lose a worker, a broker or an engine."""
        self.has_io_trouble = False
        """Something has happened to an I/O thread."""
        self.has_forgotten_leases = False
        """A worker has lost its connection to the broker, and with it the broker's account of its runs."""
        self.is_stopping: Callable[[], bool] = lambda: False
        """The engine has been told to end."""
        self.is_closing: Callable[[Caller], bool] = lambda _: False
        self.spoiled: set[str] = set()
        """Runs that lost a frame: they may end with a protocol error."""


def check_outcome(caller: Caller, seen: Circumstances) -> None:
    """Raise Violation for an outcome that nothing accounts for."""
    outcome = caller.outcome
    problem = _problem(caller, outcome, seen)
    if problem is not None:
        raise SimulationViolation(f"{caller.order.span_id}: {problem}: {outcome!r}")


def _problem(caller: Caller, outcome: Ending | None, seen: Circumstances) -> str | None:
    calls = caller.calls()
    call = next((known for known in calls if known.attempt == caller.session.attempt), None)
    if isinstance(outcome, HeadraceError):
        if (problem := _attempts_problem(caller, outcome)) is not None:
            return problem
        if call is None and calls and isinstance(outcome, ProviderError | InvalidRequestError):
            call = calls[-1]  # what its provider said last counts, where the next attempt was not allowed
    match outcome:
        case Finished():
            return _finished_problem(caller, outcome, call)
        case Aborted():
            is_wanted = caller.aborted_at is not None or seen.is_closing(caller)
            return None if is_wanted else "aborted by nobody"
        case HeadraceError():
            return _error_problem(caller, outcome, call, seen)
        case _:
            return "no outcome"


def _attempts_problem(caller: Caller, error: HeadraceError) -> str | None:
    """Return what is wrong with the attempts of which an error tells."""
    numbers = [attempt.number for attempt in error.attempts]
    if numbers != sorted(set(numbers)) or any(number > caller.session.attempt for number in numbers):
        return f"its error tells of the attempts {numbers}, and there were {caller.session.attempt}"
    if caller.failures and not caller.is_given_up and len(numbers) < caller.failures:
        return f"its error tells of {len(numbers)} failed attempts, and {caller.failures} went on after a failure"
    return None


def _finished_problem(caller: Caller, outcome: Finished, call: Call | None) -> str | None:
    if call is None or call.answer.kind != "whole":
        return "finished, though the provider did not"
    if caller.order.streams and caller.text_length != len(call.answer.text):
        return f"finished with {caller.text_length} of {len(call.answer.text)} characters"
    if not caller.order.streams and (outcome.message is None or outcome.message.text != call.answer.text):
        return "finished with another text"
    return None


def _error_problem(caller: Caller, error: HeadraceError, call: Call | None, seen: Circumstances) -> str | None:
    match error:
        case RunTimeoutError():
            return _timeout_problem(caller, error, call)
        case PoisonRunError():
            return None if caller.session.deaths == MAX_WORKER_DEATHS else "poison, without the deaths"
        case WorkerLostError():
            if caller.order.streams and caller.delivered:
                return None if seen.has_trouble else "a worker was lost that nothing happened to"
            return None if seen.is_stopping() else "lost with its worker, though nothing of it had been delivered"
        case EngineUnavailableError():
            return None if seen.has_trouble or seen.is_closing(caller) else "no engine, though nothing happened to it"
        case QueueFullError():
            return None
        case RunError() if type(error) is RunError:
            return None if seen.has_io_trouble else "nothing accounts for it"
        case InvalidRequestError() | ProviderError():
            is_said = call is not None and call.answer.kind not in {"whole", "crash"}
            return None if is_said and getattr(error, "argument", None) is None else "the provider said no such thing"
        case _:
            return None if caller.order.span_id in seen.spoiled else "nothing accounts for it"


def _timeout_problem(caller: Caller, error: RunTimeoutError, call: Call | None) -> str | None:
    elapsed = caller.host.world.now - caller.submitted_at
    if elapsed < error.limit - _ROUNDING or not error.limit:
        return f"timed out after {elapsed:.3f} s"
    if error.clock == "idle" and call is not None and call.closed_at is not None:
        silent = call.closed_at - max(call.last_sent or 0.0, call.held_until or 0.0)
        return f"idle after {silent:.3f} s" if silent < error.limit - _ROUNDING else None
    return None


def must_finish(caller: Caller, seen: Circumstances) -> bool:
    """Return whether a run has nothing in its way: its only good outcome is to finish."""
    order = caller.order
    return (
        not seen.has_trouble
        and order.abort_at is None
        and order.kinds[0] == "whole"
        and order.total_timeout is None
        and order.stall_after is None
        and order.pace < TOTAL_TIMEOUT / 100
        and not seen.is_closing(caller)
        and order.span_id not in seen.spoiled
    )
