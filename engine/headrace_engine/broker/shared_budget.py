"""The limits that this engine shares with other engines, in the broker process: asks their store, and tells of its answers."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from headrace.settings.limit_settings import BudgetConfig
from headrace_engine.broker.budget_thread import Answer, BudgetThread
from headrace_engine.limits.budget import BudgetSource, BudgetStoreError
from headrace_engine.limits.shared_limits import SharedLimits


class SharedBudget:
    """Asks ``source`` four times a second while there are runs. ``limits`` are what the engine knows of it."""

    def __init__(self, limits: SharedLimits, source: BudgetSource) -> None:
        self.limits = limits
        self._source = source
        self._thread: BudgetThread | None = None
        self._changed: Callable[[], None] = lambda: None

    def start(self, call: Callable[[Callable[[], None]], None], changed: Callable[[], None]) -> None:
        """Begin. ``call`` runs an action on the broker's loop, from any thread; ``changed`` is called there after each answer."""
        self._changed = changed
        self._thread = BudgetThread(self._source, call, self._answered)

    def turn_ended(self, now: float) -> float | None:
        """Ask what is to be asked. Return when to ask next; None if nothing is due before the next run."""
        if self._thread is not None and (asks := self.limits.asks(now)):
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


def shared_budget(config: BudgetConfig) -> SharedBudget | None:
    """Return the budget of the settings; None if the engine's limits are its own. Raises ConfigurationError."""
    if not config.url:
        return None
    from headrace_engine.broker.redis_budget import RedisBudget

    source = RedisBudget(config.url, config.name, secrets.token_hex(8))
    return SharedBudget(SharedLimits(config.engines), source)
