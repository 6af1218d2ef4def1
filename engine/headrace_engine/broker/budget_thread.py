"""The thread in which the broker asks the budget's store, so that a slow store holds up no run."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from headrace_engine.limits.budget import BudgetAsk, BudgetLease, BudgetSource, BudgetStoreError

logger = logging.getLogger(__name__)

_RETRY = 1.0
"""Seconds in which a store that does not answer is not asked again. Its engines go on with their shares meanwhile."""

Answer = Sequence[BudgetLease] | BudgetStoreError


class BudgetThread:
    """Asks ``source``. ``call`` runs an action on the broker's loop; ``answered`` gets each answer there."""

    def __init__(
        self, source: BudgetSource, call: Callable[[Callable[[], None]], None], answered: Callable[[Answer], None]
    ) -> None:
        self._source = source
        self._call = call
        self._answered = answered
        self._questions: queue.SimpleQueue[Sequence[BudgetAsk]] = queue.SimpleQueue()
        self._is_away = False
        self._problem = ""
        threading.Thread(target=self._run, name="headrace-budget", daemon=True).start()

    def ask(self, asks: Sequence[BudgetAsk]) -> None:
        """Ask for these limits. The answer comes later; the caller asks no second time before it."""
        self._questions.put(asks)

    def _run(self) -> None:
        away_until = 0.0
        while True:
            asks = self._questions.get()
            if time.monotonic() < away_until:
                answer: Answer = BudgetStoreError(self._problem)
            else:
                answer = self._lease(asks)
                if isinstance(answer, BudgetStoreError):
                    away_until = time.monotonic() + _RETRY
                    self._problem = str(answer)
            self._call(partial(self._answered, answer))

    def _lease(self, asks: Sequence[BudgetAsk]) -> Answer:
        try:
            answer = self._source.lease(asks)
        except BudgetStoreError as error:
            if not self._is_away:
                self._is_away = True
                logger.warning("budget store does not answer", extra={"reason": str(error)})
            return error
        if self._is_away:
            self._is_away = False
            logger.warning("budget store answers again")
        return answer
