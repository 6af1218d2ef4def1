"""Switches guards of the product off, one at a time. The simulation must then find a broken promise.

A guard is replaced on its own class, for as long as the context lasts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from headrace.connections.connection import Connection
from headrace.connections.engine_runs import EngineRuns
from headrace.errors import HeadraceError
from headrace.runs.delivery import Delivery
from headrace.runs.failed_attempts import FailedAttempts
from headrace.runs.hedged_session import HedgedSession
from headrace.runs.session import Phase, Session
from headrace.runs.session_commands import Command, RunEnded, WakeAt
from headrace.types import Usage
from headrace.wire.messages import Aborted, AbortMode, Chunk, Failed, Terminal
from headrace_engine.broker.admission import Admission, Send
from headrace_engine.broker.newest_connections import NewestConnections, ProcessKey
from headrace_engine.broker.tickets import Tickets
from headrace_engine.broker.waiting_run import WaitingRun
from headrace_engine.liveness import Liveness
from headrace_engine.supervisor.restart_policy import RestartPolicy, StartAt
from headrace_workers.runs.outgoing_events import OutgoingEvents
from headrace_workers.runs.provider_run import ProviderRun
from headrace_workers.runs.run_commands import Commands
from headrace_workers.runs.timeouts import Clocks

_UNLIMITED = 1 << 40

Replacement = tuple[type, str, Callable[..., Any]]


@contextlib.contextmanager
def without(guard: str | None) -> Iterator[None]:
    """Switch a guard off; ``None`` for none of them."""
    if guard is None:
        yield
        return
    owner, name, replacement = {**GUARDS, **IO_GUARDS}[guard]
    original = owner.__dict__[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, original)


_clocks_next = Clocks._next
_outgoing_init = OutgoingEvents.__init__
_session_stop = Session.stop
_session_chunk = Session.chunk
_session_ended = Session.ended
_session_end = Session._end
_session_failed_at_provider = Session._failed_at_provider
_session_back_off = Session._back_off
_carry_out = EngineRuns._carry_out
_session_worker_lost = Session.worker_lost
_admission_choose = Admission._choose
_liveness_hung = Liveness.hung
_run_take = ProviderRun.take


def _unlimited_outgoing(self: OutgoingEvents, _events: int, _characters: int, *others: Any) -> None:
    _outgoing_init(self, _UNLIMITED, _UNLIMITED, *others)


def _from_any_attempt(self: Session, epoch: int, attempt: int) -> bool:
    return self.lease is not None and epoch == self.lease.epoch


def _from_any_epoch(self: Session, epoch: int, attempt: int) -> bool:
    return attempt == self.attempt and self.lease is not None


def _not_while_waiting(self: Session, now: float, mode: AbortMode | None = None) -> list[Command]:
    return [] if self.phase is Phase.WAITING else _session_stop(self, now, mode)


def _aborted_without_a_word(self: Session, now: float, mode: AbortMode | None = None) -> list[Command]:
    commands = _session_stop(self, now, mode)
    if self.phase is Phase.STOPPING:
        return self._end(Aborted(self.plan.span_id, self.attempt, len(self.events), Usage()))
    return commands


def _ended_again(self: Session, epoch: int, terminal: Terminal, now: float) -> list[Command]:
    if self.phase is Phase.ENDED and self.lease is not None:
        self.phase = Phase.RUNNING
    return _session_ended(self, epoch, terminal, now)


def _ended_without_release(self: Session, outcome: Any) -> list[Command]:
    return [command for command in _session_end(self, outcome) if isinstance(command, RunEnded)]


def _lost_whatever_was_delivered(self: Session, reason: str, now: float, span_id: str | None = None) -> list[Command]:
    if self.phase is Phase.RUNNING:
        self.deaths += 1
        self._avoid_worker()
        return self._try_again(now)
    return _session_worker_lost(self, reason, now, span_id)


def _lost_without_counting(self: Session, *arguments: Any) -> list[Command]:
    self.deaths = 0
    return _session_worker_lost(self, *arguments)


def _retried_whatever_was_delivered(self: Session, failed: Failed, now: float) -> list[Command]:
    events, self.events = self.events, []
    commands = _session_failed_at_provider(self, failed, now)
    if self.phase is Phase.ENDED:
        self.events = events
    return commands


def _retried_without_counting(self: Session, until: float, failures: FailedAttempts) -> list[Command]:
    failures.retries = -1
    return _session_back_off(self, until, failures)


def _looked_at_each_second(self: EngineRuns, delivery: Delivery, commands: list[Command]) -> None:
    _carry_out(self, delivery, [command for command in commands if not isinstance(command, WakeAt)])


def _hedge_left_alone(self: HedgedSession) -> list[Command]:
    self._hedge = self._hedge_at = None
    return []


def _chunk_in_any_order(self: Session, epoch: int, chunk: Chunk) -> list[Command]:
    return _session_chunk(self, epoch, msgspec.structs.replace(chunk, sequence=len(self.events)))


def _nothing_held(self: Session, now: float) -> list[Command]:
    return self._acquire(now) if self.phase is Phase.WAITING else []


def _client_left(self: Admission, client: bytes) -> list[Send]:
    return []


def _all_of_them(self: NewestConnections, peer: bytes, process: ProcessKey) -> None:
    return


def _choose_any(self: Admission, waiting: WaitingRun) -> Any:
    question = msgspec.structs.replace(waiting.question, avoid=[])
    return _admission_choose(self, msgspec.structs.replace(waiting, question=question))


def _whatever_the_gate_says(self: Admission, *gate_and_run: Any) -> Any:
    return self._choose(gate_and_run[-1])


def _kept_share(self: Tickets, lease: Any, release: Any, now: float) -> None:
    return


def _not_suspected(self: Admission, epoch: int, is_suspect: bool) -> list[Send]:
    return []


def _never_hung(self: Liveness, now: float) -> list[int]:
    _liveness_hung(self, now)
    return []


def _no_excuse(self: Liveness, now: float) -> None:
    self._looked_at = now


def _never_again(self: RestartPolicy, status: str, now: float, *, has_served: bool = True) -> StartAt:
    return StartAt(now + 1e9)


def _no_idle_clock(self: Clocks) -> tuple[float, str, float]:
    life, self.last_life = self.last_life, None
    try:
        return _clocks_next(self)
    finally:
        self.last_life = life


def _not_paused(self: Clocks) -> None:
    return


def _terminal_first(self: ProviderRun, now: float) -> tuple[list[Any], Commands]:
    messages, commands = _run_take(self, now)
    if self._ending.end is not None and self.terminal is None:
        self.terminal = self._ending.terminal(self._ending.end)
        messages.append(self.terminal)
    return messages, commands


def _no_bound(self: Delivery, now: float) -> None:
    return


def _nobody_given_up(self: Connection, error: HeadraceError | None = None, owner: int | None = None) -> None:
    return


def _nobody_told(self: EngineRuns, *_: object, **__: object) -> None:
    return


def _submitted_whatever_became_of_it(self: EngineRuns, delivery: Delivery, now: float) -> None:
    self._deliveries[delivery.span_id] = delivery
    self._carry_out(delivery, delivery.session.start(now))


GUARDS: dict[str, Replacement] = {
    "credit": (OutgoingEvents, "__init__", _unlimited_outgoing),
    "attempt-fence": (Session, "_is_current", _from_any_attempt),
    "epoch-fence": (Session, "_is_current", _from_any_epoch),
    "abort-while-waiting": (Session, "stop", _not_while_waiting),
    "abort-before-dropping": (Session, "stop", _aborted_without_a_word),
    "one-terminal": (Session, "ended", _ended_again),
    "release": (Session, "_end", _ended_without_release),
    "no-rerun-after-content": (Session, "worker_lost", _lost_whatever_was_delivered),
    "no-retry-after-content": (Session, "_failed_at_provider", _retried_whatever_was_delivered),
    "retry-count": (Session, "_back_off", _retried_without_counting),
    "retry-timer": (EngineRuns, "_carry_out", _looked_at_each_second),
    "beaten-hedge": (HedgedSession, "_drop_hedge", _hedge_left_alone),
    "poison": (Session, "worker_lost", _lost_without_counting),
    "sequence": (Session, "chunk", _chunk_in_any_order),
    "hold": (Session, "broker_changed", _nothing_held),
    "client-left": (Admission, "client_left", _client_left),
    "newer-connection": (NewestConnections, "joined", _all_of_them),
    "avoid": (Admission, "_choose", _choose_any),
    "gate": (Admission, "_choose_at", _whatever_the_gate_says),
    "ticket": (Tickets, "give_back", _kept_share),
    "suspect": (Admission, "worker_suspected", _not_suspected),
    "hung": (Liveness, "hung", _never_hung),
    "frozen": (Liveness, "_excuse", _no_excuse),
    "restart": (RestartPolicy, "exited", _never_again),
    "idle-clock": (Clocks, "_next", _no_idle_clock),
    "reader-pause": (Clocks, "paused", _not_paused),
    "terminal-last": (ProviderRun, "take", _terminal_first),
}
"""By name: the class, its method, and what takes the method's place."""

IO_GUARDS: dict[str, Replacement] = {
    "bound": (Delivery, "look", _no_bound),
    "thread-end": (Connection, "give_up_all", _nobody_given_up),
    "unexpected": (EngineRuns, "_fail_unexpectedly", _nobody_told),
    "given-up-before-submission": (EngineRuns, "_submit", _submitted_whatever_became_of_it),
}
"""The same for guards that are missed only if the client's I/O thread is hurt."""
