"""The thread that keeps the spending limits and their store in step, so that a slow disk holds up no run."""

from __future__ import annotations

import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from headrace.errors import ConfigurationError
from headrace.pricing.prices import PriceTable
from headrace.settings.settings import Settings
from headrace.spans.data_directory import data_directory
from headrace_engine.broker.spending_store import SpendingStore
from headrace_engine.limits.spending import Amounts, Day, Spender, SpendingLimits, day_of

logger = logging.getLogger(__name__)

REFRESH = 1.0
"""Seconds after which the amounts of other engines are read again, and after which a store that failed is tried again."""
_END_TIMEOUT = 2.0
_PROBLEMS = (sqlite3.Error, OSError)


class AmountStore(Protocol):
    """Where amounts are kept: see :class:`~headrace_engine.broker.spending_store.SpendingStore`."""

    def exchange(self, amounts: Amounts, day: Day) -> Mapping[Spender, int]:
        """Add ``amounts``, and return the totals of ``day``."""

    def close(self) -> None:
        """Close the store."""


class _NoStore:
    """Stands in the place of a store that has no directory."""

    def __init__(self, problem: str) -> None:
        self._problem = problem

    def exchange(self, amounts: Amounts, day: Day) -> Mapping[Spender, int]:  # noqa: ARG002 - as a store's
        raise OSError(self._problem)

    def close(self) -> None:
        pass


def open_spending(settings: Settings, environ: Mapping[str, str]) -> SpendingThread | None:
    """Return the spending limits of the settings, with their store in the data directory; None if there are none."""
    if not settings.spending:
        return None
    try:
        store: AmountStore = SpendingStore(data_directory(settings.spans, environ))
    except ConfigurationError as error:
        store = _NoStore(str(error))
    return SpendingThread(SpendingLimits(settings.spending, PriceTable(settings.prices), _unix_time, _warn), store)


def _unix_time(now: float) -> float:
    """Return a time of the monotonic clock in seconds since 1970."""
    return time.time() + now - time.monotonic()


def _warn(provider: str, model: str) -> None:
    logger.warning("model has no price", extra={"provider": provider, "model": model})


class SpendingThread:
    """Keeps ``limits`` and ``store`` in step, from :meth:`start` to :meth:`end`. Only the thread uses the store meanwhile."""

    def __init__(self, limits: SpendingLimits, store: AmountStore, unix_time: Callable[[], float] = time.time) -> None:
        self.limits = limits
        self._store = store
        self._unix_time = unix_time
        self._amounts: queue.SimpleQueue[Amounts] = queue.SimpleQueue()
        self._call: Callable[[Callable[[], None]], None] = lambda _action: None
        self._is_failing = False
        self._has_ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, call: Callable[[Callable[[], None]], None]) -> None:
        """Read the store, and start the thread. ``call`` runs an action on the loop that uses the limits."""
        self._call = call
        day = day_of(self._unix_time())
        if (totals := self._exchange({}, day)) is not None:
            self.limits.told(day, totals)
        self._thread = threading.Thread(target=self._run, name="headrace-spending", daemon=True)
        self._thread.start()

    def configure(self, settings: Settings) -> None:
        """Take the spending tables and the prices of settings that were read again."""
        self.limits.configure(settings.spending, PriceTable(settings.prices))

    def turn_ended(self) -> None:
        """Give the store what has been spent since the last turn."""
        if (amounts := self.limits.unsaved()) is not None:
            self._amounts.put(amounts)

    def end(self) -> None:
        """End the thread, and store the last amounts. The loop has ended: no more answers are taken."""
        if self._thread is None:
            return
        self._has_ended.set()
        self._amounts.put({})
        self._thread.join(_END_TIMEOUT)
        if not self._thread.is_alive():
            if amounts := self.limits.not_handed():
                self._exchange(amounts, day_of(self._unix_time()))
            self._store.close()

    def _run(self) -> None:
        told: tuple[Day, Mapping[Spender, int]] | None = None
        while not self._has_ended.is_set() or not self._amounts.empty():
            amounts: Amounts = {}
            with contextlib.suppress(queue.Empty):
                amounts = self._amounts.get(timeout=REFRESH)
            day = day_of(self._unix_time())
            totals = self._exchange(amounts, day)
            if totals is None:
                self._has_ended.wait(REFRESH)
            if amounts or (totals is not None and told != (day, totals)):
                self._call(partial(self._answer, amounts, day, totals))
            told = None if totals is None else (day, totals)

    def _answer(self, amounts: Amounts, day: Day, totals: Mapping[Spender, int] | None) -> None:
        if amounts and totals is None:
            self.limits.failed()
        elif amounts:
            self.limits.saved()
        if totals is not None:
            self.limits.told(day, totals)

    def _exchange(self, amounts: Amounts, day: Day) -> Mapping[Spender, int] | None:
        try:
            totals = self._store.exchange(amounts, day)
        except _PROBLEMS as error:
            if not self._is_failing:
                logger.warning("amounts spent cannot be stored", extra={"reason": str(error)})
            self._is_failing = True
            return None
        if self._is_failing:
            self._is_failing = False
            logger.warning("amounts spent are stored again")
        return totals
