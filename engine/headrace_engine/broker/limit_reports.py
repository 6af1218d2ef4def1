"""The limits in the broker process: what workers report of them, the file that keeps them for a new broker, their part of the status."""

from __future__ import annotations

import logging
from typing import Protocol

import msgspec

from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import KeyReport, LimitReport, RefusalKind, Refuse
from headrace_engine.broker.admission import Admission, Send
from headrace_engine.broker.shared_budget import SharedBudget
from headrace_engine.limits.gate import Gates

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 0.5
"""Seconds from a change of the limits until they are in the file, at most. A broker that is killed forgets so much."""
_LIMIT_KINDS: frozenset[RefusalKind] = frozenset({"over_budget", "no_retry", "no_hedge"})
"""Refusals that only clients with the capability ``limits`` understand."""


class StateStore(Protocol):
    """Where the state of the limits is kept: see ``state_file``."""

    def read(self, now: float) -> bytes | None:
        """Return the state of an earlier broker of this boot; None if there is none."""

    def write(self, state: bytes, now: float) -> None:
        """Keep a state."""


class LimitReports:
    """The limits of one engine, as its broker uses them."""

    def __init__(
        self, gates: Gates, admission: Admission, store: StateStore, budget: SharedBudget | None = None
    ) -> None:
        self._gates = gates
        self._budget = budget
        self._admission = admission
        self._store = store
        self._save_at: float | None = None
        self._is_failing = False

    def restore(self, now: float) -> None:
        """Take over what the broker before this one knew. If that cannot be read, begin with nothing."""
        try:
            if (state := self._store.read(now)) is not None:
                self._gates.restore(state, now)
        except (OSError, msgspec.DecodeError) as error:
            logger.warning("limits of the broker before cannot be read", extra={"reason": str(error)})

    def reported(self, epoch: int, report: LimitReport | KeyReport, now: float) -> list[Send]:
        """A worker tells of responses, or of its keys."""
        if isinstance(report, LimitReport):
            return self._admission.answered(epoch, report.responses, now)
        self._gates.keys_told(epoch, report.keys, now)
        return self._admission.limits_changed(now)

    def worker_left(self, epoch: int) -> None:
        """A worker is gone, and its keys with it."""
        self._gates.worker_left(epoch)

    def block_changed(self, now: float) -> list[Send]:
        """The store of the shared budget has answered: runs that wait for it may go on."""
        return self._admission.limits_changed(now)

    def reloaded(self, now: float) -> list[Send]:
        """The settings and the keys are read again."""
        self._gates.reloaded()
        return self._admission.limits_changed(now)

    # Time.

    def turn_ended(self, now: float) -> float | None:
        """The broker has handled what there was. Return when :meth:`due` has something to do; None for never."""
        if self._gates.is_changed:
            self._log_facts()
            if self._save_at is None:
                self._save_at = now + SAVE_INTERVAL
        ask_at = None if self._budget is None else self._budget.turn_ended(now)
        return min((at for at in (self._save_at, ask_at) if at is not None), default=None)

    def due(self, now: float) -> None:
        """Write the state of the limits, if it is time."""
        if self._save_at is None or now < self._save_at:
            return
        self._save_at = None
        if (state := self._gates.state(now)) is None:
            return
        try:
            self._store.write(state, now)
        except OSError as error:
            if not self._is_failing:
                logger.warning("limits cannot be kept for the next broker", extra={"reason": str(error)})
            self._is_failing = True
        else:
            self._is_failing = False

    def _log_facts(self) -> None:
        for fact in self._gates.facts():
            logger.error(
                "provider refuses a key",
                extra={"provider": fact.provider, "key": fact.key, "left": fact.left},
            )

    # The status.

    def pools(self, now: float) -> list[PoolStatus]:
        """Return the pools of the engine's status."""
        return self._gates.pools(self._admission.waiting_at_gates(), now)

    def budget(self) -> str:
        """Return the state of the budget that several engines share, for the engine's status; empty for none."""
        return "" if self._budget is None else self._budget.status


def understood(refusal: Refuse, *, has_limits: bool) -> Refuse:
    """Return a refusal as a client understands it. ``has_limits``: it has the capability ``limits``."""
    if has_limits or refusal.kind not in _LIMIT_KINDS:
        return refusal
    return msgspec.structs.replace(refusal, kind="queue_full")
