"""Keeps what the failed attempts of one run met, and how often its present model was tried again. Pure."""

from __future__ import annotations

from typing import Any

from headrace.errors import HeadraceError
from headrace.failed_attempt import FailedAttempt
from headrace.runs.run_plan import RunPlan
from headrace.wire.messages import Failed


class FailedAttempts:
    """The failed attempts of one run. Most runs have none, and no such object."""

    __slots__ = ("_found", "last_failure", "retries")

    def __init__(self) -> None:
        self.retries = 0
        """How often the present model was tried again after a failure of its provider."""
        self.last_failure: Failed | None = None
        """The last failure of a provider. It is the run's error if no further attempt is allowed."""
        self._found: list[FailedAttempt] = []

    def add(self, plan: RunPlan, number: int, error: HeadraceError, seconds: float) -> None:
        """An attempt has failed with ``error``, after so many seconds."""
        facts: Any = error
        self._found.append(
            FailedAttempt(
                number=number,
                provider=plan.provider,
                model=plan.model,
                error=type(error).__name__,
                reason=getattr(facts, "reason", None) or str(error),
                status_code=getattr(facts, "status_code", None),
                request_id=getattr(facts, "request_id", None),
                retry_after=getattr(facts, "retry_after", None),
                seconds=max(seconds, 0.0),
            )
        )

    def model_changed(self) -> None:
        """The run was given to another model, which has all its retries."""
        self.retries = 0
        self.last_failure = None

    def has(self, number: int) -> bool:
        """Return whether the attempt with this number is among them."""
        return bool(self._found) and self._found[-1].number == number

    def count_of(self, status_code: int) -> int:
        """Return how many attempts failed with an HTTP status."""
        return sum(attempt.status_code == status_code for attempt in self._found)

    def attach(self, error: HeadraceError) -> None:
        """Tell an error of the attempts."""
        error.attempts = tuple(self._found)
