"""The limits that this engine shares with other engines, in the broker process: asks their store, and tells of its answers."""

from __future__ import annotations

from collections.abc import Callable

from headrace_engine.broker.budget_thread import Answer, BudgetThread
from headrace_engine.limits.budget import BudgetSource, BudgetStoreError
from headrace_engine.limits.shared_limits import SharedLimits


class SharedBudget:
    """Asks ``source`` four times a second while there are runs. ``limits`` are what the engine knows of it.

    ``call`` runs an action on the broker's loop, from any thread.
    """

    def __init__(self, limits: SharedLimits, source: BudgetSource, call: Callable[[Callable[[], None]], None]) -> None:
        self.limits = limits
        self._thread = BudgetThread(source, call, self._answered)
        self._changed: Callable[[], None] = lambda: None

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call ``changed`` after each answer: runs that wait may go on."""
        self._changed = changed

    def turn_ended(self, now: float) -> float | None:
        """Ask what is to be asked. Return when to ask next; None if nothing is due before the next run."""
        if asks := self.limits.asks(now):
            self._thread.ask(asks)
        return self.limits.next_ask(now)

    @property
    def status(self) -> str:
        """The state of the store, as the engine's status has it."""
        return self.limits.problem or "ok"

    def _answered(self, answer: Answer) -> None:
        if isinstance(answer, BudgetStoreError):
            self.limits.failed(str(answer))
        else:
            self.limits.answered(answer)
        self._changed()
