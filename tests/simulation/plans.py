"""Draws from a seed: an engine, its clients, their runs, and the faults.

All of it is drawn before the schedule starts.
"""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from headrace.wire.messages import AbortMode
from headrace_engine.liveness import HUNG_AFTER, SUSPECT_AFTER
from tests.simulation.provider_calls import AnswerKind, ScriptedAnswer

FaultKind = Literal[
    "kill",
    "stop",
    "freeze",
    "cut",
    "slow",
    "clock",
    "drain worker",
    "recycle",
    "drain",
    "close",
    "stray",
    "vanish",
    "io raises",
    "io ends",
    "io blocks",
]
Role = Literal["worker", "broker", "client", "supervisor", "client-worker", "client-broker", "worker-broker", "-"]

CONNECT_TIMEOUT = 2.0
FIRST_CHUNK_TIMEOUT = 4.0
IDLE_TIMEOUT = 3.0
TOTAL_TIMEOUT = 12.0
WHOLE_TOTAL_TIMEOUT = 8.0
ENGINE_CONNECT_TIMEOUT = 6.0
"""How long a client waits for an engine."""
STALLED_READER_TIMEOUT = 9.0
BUSY = 4.0
"""Seconds in which runs begin and faults happen."""


class Fault(msgspec.Struct):
    """A fault, or an action of an operator. ``pick`` chooses among the processes or links that it can happen to."""

    at: float
    kind: FaultKind
    role: Role = "-"
    pick: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        target = f" {self.role} {self.pick}" if self.role != "-" else ""
        return f"{self.at:7.3f}  {self.kind}{target}" + (f" for {self.seconds:.3f} s" if self.seconds else "")


class Order(msgspec.Struct):
    """One run that a client asks for, how it is answered, and what its reader does."""

    span_id: str
    client: int
    at: float
    streams: bool
    kinds: list[AnswerKind]
    """How its calls are answered, the last of them again and again."""
    is_large: bool = False
    answer: ScriptedAnswer | None = None
    """How all its calls are answered, where that is not to be drawn."""
    priority: Literal["interactive", "batch"] = "interactive"
    on_abort: AbortMode = "close"
    total_timeout: float | None = None
    reading: Literal["iterate", "result"] = "iterate"
    pace: float = 0.0
    stall_after: int | None = None
    """After so many events the reader pauses."""
    stall_seconds: float = 0.0
    abort_at: float | None = None
    abort_by: Literal["abort", "drop"] = "abort"
    max_retries: int = 0
    hedge_after: float | None = None
    fallbacks: int = 0
    """How many further models are asked if one fails."""

    def __str__(self) -> str:
        parts = [f"{self.at:7.3f}  {self.span_id} of client {self.client}: {' then '.join(self.kinds)}"]
        if not self.streams:
            parts.append("without streaming")
        if self.total_timeout is not None:
            parts.append(f"total {self.total_timeout:g} s")
        parts.append(self.reading if not self.pace else f"{self.reading} each {self.pace:g} s")
        if self.stall_after is not None:
            parts.append(f"stalls after {self.stall_after} for {self.stall_seconds:.1f} s")
        if self.abort_at is not None:
            parts.append(f"{self.abort_by} ({self.on_abort}) at {self.abort_at:.3f}")
        if self.max_retries or self.fallbacks:
            parts.append(f"{self.max_retries} retries, {self.fallbacks} fallbacks")
        if self.hedge_after is not None:
            parts.append(f"hedged after {self.hedge_after:g} s")
        return ", ".join(parts)


class Plan(msgspec.Struct):
    """One schedule."""

    seed: int
    workers: int
    clients: int
    max_runs: int
    max_waiting: int
    latency: float
    is_embedded: bool
    orders: list[Order]
    faults: list[Fault]
    max_concurrency: int | None = None
    """How many runs the settings allow at once at the provider; None: any number."""
    says_limits: bool = False
    """Whether the provider's responses tell its limits."""
    sends_bytes: bool = False
    """Whether sockets carry bytes in pieces, under the product's own transport, instead of whole frames."""

    def lines(self) -> list[str]:
        head = (
            f"{self.workers} workers of {self.max_runs} runs, {self.clients} clients, queue of {self.max_waiting}, "
            f"latency {self.latency * 1000:g} ms{', embedded' if self.is_embedded else ''}"
            f"{f', {self.max_concurrency} runs at once' if self.max_concurrency else ''}"
            f"{', a provider that tells its limits' if self.says_limits else ''}{', sockets of bytes' if self.sends_bytes else ''}"
        )
        orders = sorted(self.orders, key=lambda order: order.at)
        return [head, "runs:", *(f"  {order}" for order in orders), "faults:", *(f"  {fault}" for fault in self.faults)]


BYTE_SEEDS = 1 << 30
"""From this seed on, sockets carry bytes instead of frames."""


def draw_plan(seed: int) -> Plan:
    """Return the schedule of a seed."""
    rng = random.Random(seed)
    clients = rng.choice((1, 1, 2, 3))
    orders = [_draw_order(rng, number, clients) for number in range(rng.choices((1, 2, 4, 7), (20, 35, 35, 10))[0])]
    faults = [_draw_fault(rng, orders) for _ in range(rng.choices((0, 1, 2, 3, 5), (15, 40, 25, 12, 8))[0])]
    for fault in faults:
        # Whom a run meets while somebody has fallen silent.
        if fault.kind == "stop" and fault.role == "worker" and fault.seconds > SUSPECT_AFTER and rng.random() < 0.7:
            order = _draw_order(rng, len(orders), clients)
            order.at = fault.at + SUSPECT_AFTER + rng.random() * (HUNG_AFTER - SUSPECT_AFTER)
            order.abort_at = None
            orders.append(order)
    _draw_failures(random.Random(f"failures {seed}"), orders)
    _draw_group(random.Random(f"groups {seed}"), orders, clients)
    return Plan(
        seed=seed,
        workers=rng.choice((1, 2, 2, 3)),
        clients=clients,
        max_runs=rng.choice((1, 2, 2, 3, 16)),
        max_waiting=rng.choice((1, 4, 100)),
        latency=rng.choice((0.00005, 0.0005, 0.004)),
        is_embedded=clients == 1 and rng.random() < 0.3,
        orders=orders,
        faults=sorted(faults, key=lambda fault: fault.at),
        max_concurrency=random.Random(f"limits {seed}").choice((None, None, None, 1, 2, 3)),
        says_limits=random.Random(f"headers {seed}").random() < 0.3,
        sends_bytes=seed >= BYTE_SEEDS,
    )


_ANSWERS: dict[AnswerKind, int] = {
    "whole": 64,
    "error": 5,
    "refused": 2,
    "cut": 4,
    "eof": 2,
    "stall": 5,
    "silent": 3,
    "garbage": 2,
    "error_event": 2,
    "crash": 5,
}
_FAULTS: list[tuple[FaultKind, Role, int]] = [
    ("kill", "worker", 16),
    ("kill", "broker", 10),
    ("kill", "client", 8),
    ("kill", "supervisor", 2),
    ("stop", "worker", 14),
    ("stop", "broker", 6),
    ("stop", "client", 8),
    ("stop", "supervisor", 2),
    ("freeze", "-", 5),
    ("cut", "client-worker", 5),
    ("cut", "client-broker", 3),
    ("cut", "worker-broker", 3),
    ("slow", "client-worker", 5),
    ("slow", "client-broker", 4),
    ("slow", "worker-broker", 2),
    ("clock", "-", 3),
    ("drain worker", "worker", 10),
    ("recycle", "-", 5),
    ("drain", "-", 3),
    ("close", "client", 3),
    ("stray", "-", 6),
    ("vanish", "-", 4),
]


_FAILURES: dict[AnswerKind, int] = {
    "busy": 60,
    "error": 10,
    "refused": 10,
    "cut": 8,
    "eof": 4,
    "silent": 2,
    "garbage": 3,
    "error_event": 3,
}
"""How the first calls of a run fail that is tried again."""


def _draw_failures(rng: random.Random, orders: list[Order]) -> None:
    """Have the providers of some runs fail first, in half of all schedules. All other draws are the same without it."""
    if rng.random() < 0.5:
        return
    for order in orders:
        if rng.random() < 0.5:
            continue
        order.max_retries = rng.choice((0, 1, 2, 2, 3))
        order.fallbacks = rng.choice((0, 0, 1, 2))
        if rng.random() < 0.4:
            order.hedge_after = rng.choice((0.001, 0.02, 0.2, 1.0)) * (0.5 + rng.random())
        count = rng.choice((0, 1, 1, 2, 3, 6))
        order.kinds = [*rng.choices(list(_FAILURES), list(_FAILURES.values()), k=count), *order.kinds]


def _draw_group(rng: random.Random, orders: list[Order], clients: int) -> None:
    """Have one client ask for several runs at one instant, in a quarter of all schedules. All other draws are the same without it.

    Not where providers fail again and again: so many runs would wait longer for a provider's breaker than they may.
    """
    if rng.random() < 0.5 or any(len(order.kinds) > 1 for order in orders):
        return
    client, at = rng.randrange(clients), rng.choice(orders).at + rng.choice((0.0, 0.01))
    for number in range(rng.choice((2, 3, 8, 20))):
        order = _draw_order(rng, 100 + number, clients)
        order.client, order.at, order.streams, order.is_large = client, at, False, False
        order.reading, order.pace, order.stall_after, order.abort_at = "iterate", 0.0, None, None
        order.priority, order.on_abort, order.total_timeout = "batch", "close", None
        if rng.random() < 0.8:
            order.kinds = ["whole"]
        orders.append(order)


def draw_io_plan(seed: int) -> Plan:
    """Return the schedule of a seed with something wrong in a client's I/O thread; half of them have other faults too."""
    plan = draw_plan(seed)
    rng = random.Random(f"io {seed}")
    if rng.random() < 0.5:
        plan.faults = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.choice(plan.orders).at + rng.random() * rng.choice((0.001, 0.01, 0.1, 1.0, 3.0))
        fault = Fault(at, rng.choice(("io raises", "io ends", "io blocks")), "client", rng.randrange(8))
        if fault.kind == "io blocks":
            fault.seconds = rng.choice((0.5, 3.0, 8.0, 30.0)) * (0.5 + rng.random())
        plan.faults.append(fault)
    plan.faults.sort(key=lambda fault: fault.at)
    return plan


def _draw_fault(rng: random.Random, orders: list[Order]) -> Fault:
    kind, role, _ = rng.choices(_FAULTS, [weight for _, _, weight in _FAULTS])[0]
    if rng.random() < 0.5:
        at = rng.random() * rng.choice((0.4, BUSY))
    else:
        # While a run begins, which is when most can go wrong.
        at = rng.choice(orders).at + rng.random() * rng.choice((0.01, 0.1, 1.0))
    fault = Fault(at, kind, role, rng.randrange(8))
    match kind:
        case "stop" | "freeze":
            fault.seconds = rng.choice((0.05, 1.0, 3.0, 7.0, 14.0)) * (0.5 + rng.random())
            if role in ("worker", "broker") and rng.random() < 0.1:
                fault.seconds = 45.0
        case "slow":
            fault.seconds = rng.choice((0.05, 0.5, 2.0)) * (0.5 + rng.random())
        case "clock":
            fault.seconds = rng.choice((-3600.0, 3600.0))
        case "drain worker":
            fault.seconds = rng.choice((0.0, 0.0, 0.2, 1.0))
        case "drain":
            fault.seconds = rng.choice((0.0, 0.3, 3.0))
        case _:
            pass
    return fault


def _draw_order(rng: random.Random, number: int, clients: int) -> Order:
    streams = rng.random() < 0.9
    kinds = rng.choices(list(_ANSWERS), list(_ANSWERS.values()), k=1)
    if kinds[0] == "crash" and rng.random() < 0.5:
        kinds.append("whole")
    is_large = streams and rng.random() < 0.1
    order = Order(
        span_id=f"sp_{number:016x}",
        client=rng.randrange(clients),
        at=rng.random() * rng.choice((0.05, 0.5, BUSY)),
        streams=streams,
        kinds=kinds,
        is_large=is_large,
        priority="batch" if rng.random() < 0.2 else "interactive",
        on_abort="drain" if rng.random() < 0.2 else "close",
        total_timeout=rng.choice((0.5, 3.0, 8.0)) if rng.random() < 0.2 else None,
    )
    if streams:
        order.reading = "iterate" if rng.random() < 0.8 else "result"
        order.pace = rng.choice((0.0, 0.0, 0.001, 0.05, 0.4))
        if rng.random() < (0.6 if is_large else 0.1):
            order.stall_after = rng.choice((1, 5, 40, 70))
            order.stall_seconds = rng.choice((0.5, 4.0, 7.0)) * (0.5 + rng.random())
        if rng.random() < 0.25:
            order.abort_at = order.at + rng.random() * rng.choice((0.002, 0.05, 0.5, 3.0))
            order.abort_by = "drop" if rng.random() < 0.3 else "abort"
    return order
