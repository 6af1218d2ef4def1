"""The limits in the broker process: what workers report of them, the file that keeps them for a new broker, their part of the status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from headrace.settings.settings import Settings
from headrace.wire.engine_status import PoolStatus, SpendingStatus
from headrace.wire.messages import KeyReport, LimitReport, RefusalKind, Refuse
from headrace_engine.broker.admission import Admission, Send
from headrace_engine.broker.settings_reload import SettingsReload
from headrace_engine.broker.shared_budget import SharedBudget
from headrace_engine.limits.gate import Gates

if TYPE_CHECKING:  # it loads SQLite and the prices, which few engines need here
    from headrace_engine.broker.spending_thread import SpendingThread

logger = logging.getLogger(__name__)

SAVE_INTERVAL = 0.5
"""Seconds from a change of the limits until they are in the file, at most. A broker that is killed forgets so much."""
_SAVE_SHARE = 50
"""Of thousands of pools the state takes long to write. It is written so seldom that it takes one part of this many of the time."""
_LIMIT_KINDS: frozenset[RefusalKind] = frozenset({"over_budget", "no_retry", "no_hedge"})
"""Refusals that only clients with the capability ``limits`` understand."""


class StateStore(Protocol):
    """Where the state of the limits is kept: see ``state_file``."""

    def read(self, now: float) -> bytes | None:
        """Return the state of an earlier broker of this boot; None if there is none."""

    def write(self, state: bytes, now: float) -> None:
        """Keep a state."""


class EngineLimits(msgspec.Struct, frozen=True):
    """What limits the runs of an engine.

    ``gates``: the limits that the broker asks. ``budget``: those of them that other engines share. ``spending`` keeps the
    spending limits, which the gates have, in step with their store.
    """

    gates: Gates
    budget: SharedBudget | None = None
    spending: SpendingThread | None = None


class BrokerLimits:
    """The limits of one engine, as its broker uses them. ``send`` takes the leases that come of them."""

    def __init__(
        self, limits: EngineLimits, admission: Admission, store: StateStore, send: Callable[[list[Send]], None]
    ) -> None:
        self._gates = limits.gates
        self._budget = limits.budget
        self._spending = limits.spending
        self._admission = admission
        self._store = store
        self._send = send
        self._settings_reload = SettingsReload(self._configure)
        self._save_at: float | None = None
        self._saved_at = float("-inf")
        self._is_failing = False

    def start(self, call: Callable[[Callable[[], None]], None]) -> None:
        """Take over what the broker before knew, and begin. ``call`` runs an action on the broker's loop, from any thread."""
        self._restore(time.monotonic())
        if self._budget is not None:
            self._budget.start(call, self._block_changed)
        if self._spending is not None:
            self._spending.start(call)

    def end(self) -> None:
        """Store what is not stored yet."""
        if self._spending is not None:
            self._spending.end()

    def _restore(self, now: float) -> None:
        """Take over what the broker before this one knew. If that cannot be read, begin with nothing."""
        try:
            if (state := self._store.read(now)) is not None:
                self._gates.restore(state, now)
        except Exception as error:  # noqa: BLE001 - whatever is in the file, the broker must start
            logger.warning("limits of the broker before cannot be read", extra={"reason": str(error)})

    def _block_changed(self) -> None:
        """The store of the shared budget has answered: runs that wait for it may go on."""
        self._send(self._admission.limits_changed(time.monotonic()))

    def reported(self, epoch: int, report: LimitReport | KeyReport, now: float) -> list[Send]:
        """A worker tells of responses, or of its keys."""
        if isinstance(report, LimitReport):
            return self._admission.answered(epoch, report.responses, now)
        self._gates.keys_told(epoch, report.keys, now)
        return self._admission.limits_changed(now)

    def worker_left(self, epoch: int) -> None:
        """A worker is gone, and its keys with it."""
        self._gates.worker_left(epoch)

    def reloaded(self, now: float, *, reads_settings: bool) -> None:
        """The workers are being replaced, and read the keys again. ``reads_settings``: the settings are read here too."""
        if reads_settings:
            self._settings_reload.reload()
        self._gates.reloaded()
        self._send(self._admission.limits_changed(now))

    def _configure(self, settings: Settings) -> None:
        self._gates.configure(settings, time.monotonic())
        if self._spending is not None:
            self._spending.configure(settings)

    # Time.

    def turn_ended(self, now: float) -> float | None:
        """The broker has handled what there was, and has sent no answer yet. Return when :meth:`due` has something to do.

        None for never. The first change after a pause is in the file before its answer leaves: a burst of grants, after
        which the broker is killed, is not forgotten.
        """
        if self._gates.is_changed:
            self._log_facts()
            if self._save_at is None:
                self._save_at = self._saved_at + SAVE_INTERVAL
            self.due(now)
        if self._spending is not None:
            self._spending.turn_ended()
        ask_at = None if self._budget is None else self._budget.turn_ended(now)
        return min((at for at in (self._save_at, ask_at) if at is not None), default=None)

    def due(self, now: float) -> None:
        """Write the state of the limits, if it is time."""
        if self._save_at is None or now < self._save_at:
            return
        self._save_at = None
        began = time.thread_time()  # time that is spent waiting for a busy machine is nobody's work
        self._saved_at = now
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
        took = time.thread_time() - began
        self._saved_at = now + max(_SAVE_SHARE * took - SAVE_INTERVAL, 0.0)

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

    def spending(self, now: float) -> list[SpendingStatus]:
        """Return the spending limits of the engine's status."""
        return [] if self._spending is None else self._spending.limits.status(now)

    def budget(self) -> str:
        """Return the state of the budget that several engines share, for the engine's status; empty for none."""
        return "" if self._budget is None else self._budget.status


def understood(refusal: Refuse, *, has_limits: bool) -> Refuse:
    """Return a refusal as a client understands it. ``has_limits``: it has the capability ``limits``."""
    if has_limits or refusal.kind not in _LIMIT_KINDS:
        return refusal
    return msgspec.structs.replace(refusal, kind="queue_full")
