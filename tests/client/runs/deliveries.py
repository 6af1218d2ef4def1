"""Makes deliveries without processes. The test adds the events and the end of a run; a fake connection counts calls."""

from __future__ import annotations

import time

from headrace.runs.delivery import Delivery
from headrace.runs.run_plan import RunPlan
from headrace.runs.session import Session
from headrace.runs.task_alarm import TasksToWake
from headrace.types import RunEvent, Usage
from headrace.wire.messages import Chunk, Finished, Grant

SPAN = "sp_0123456789abcdef"
_EPOCH = 7


class FakeConnection:
    """In place of a connection: counts how often it is asked to abort and to give credit."""

    def __init__(self) -> None:
        self.aborts = 0
        self.credits = 0

    def post_abort(self, _: Delivery, /) -> None:
        self.aborts += 1

    def post_credit(self, _: Delivery, /) -> None:
        self.credits += 1

    def task_waits(self, loop: object, /) -> None:
        pass


class FakeRun:
    """A run that is on a worker, with its delivery. The test is the I/O thread, and the worker."""

    def __init__(self, *, streams: bool = True, total_timeout: float | None = None, started: float = 0.0) -> None:
        """``started``: how many seconds ago the run was asked for."""
        self.connection = FakeConnection()
        session = Session(RunPlan(SPAN, "openai", "gpt-4o", b"", streams, total_timeout=total_timeout))
        self.delivery = Delivery(session, "tr_0123456789abcdef", time.monotonic() - started, self.connection, 1)
        session.start(0.0)
        session.granted(Grant(SPAN, 1, "w1", "ipc://w1", _EPOCH), 0.0)

    def says(self, *events: RunEvent, attempt: int = 1) -> None:
        session = self.delivery.session
        session.chunk(_EPOCH, Chunk(SPAN, attempt, len(session.events), list(events)))
        to_wake = TasksToWake()
        self.delivery.arrived(to_wake)
        to_wake.wake()

    def ends(self) -> None:
        session = self.delivery.session
        length = sum(len(event) for event in session.events if isinstance(event, str))
        usage = Usage(1, 2, 3, source="provider")
        session.ended(_EPOCH, Finished(SPAN, 1, len(session.events), length, "stop", "stop", usage, [], "gpt-4o"), 0.0)
        to_wake = TasksToWake()
        self.delivery.ended(time.monotonic(), to_wake)
        to_wake.wake()
