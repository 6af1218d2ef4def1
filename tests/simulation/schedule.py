"""Runs one schedule from its seed to its end: starts the processes, brings the faults, and checks the results."""

from __future__ import annotations

from functools import partial
from typing import Any, cast

from headrace.errors import QueueFullError
from headrace.runs.session import ABORT_GRACE, DEADLINE_GRACE, DRAIN_GRACE, Phase
from headrace.wire.messages import Finished, Silent
from headrace_engine.liveness import HUNG_AFTER, START_WITHIN
from tests.simulation.allowed_outcomes import Circumstances, check_outcome, must_finish
from tests.simulation.callers import Caller
from tests.simulation.edges import Stage, enter
from tests.simulation.expectations import Expectations
from tests.simulation.faults import RECOVERY, Faults
from tests.simulation.plans import FIRST_CHUNK_TIMEOUT, IDLE_TIMEOUT, TOTAL_TIMEOUT, Order, Plan
from tests.simulation.processes import SimClient, SimEngine, admission_of
from tests.simulation.provider_calls import Call, ScriptedAnswer, draw_answer
from tests.simulation.world import Host, SimulationViolation, World

SLACK = 0.3
"""Seconds by which a promise about time may be late for nothing: messages travel, loops take turns."""
LOSS_BOUND = 0.25
"""Seconds from a worker's death to the time when its clients know."""
CLOSE_BOUND = 0.5
"""Seconds from an abort, or a client's death, to the closed connection at the provider."""
BEATS = 2.0
"""How often clients look at their runs' deadlines, workers send heartbeats, and the broker looks at them, put together."""
HORIZON = 200.0
"""Seconds after which nothing may be left to happen."""
SAMPLE_INTERVAL = 0.5


class Simulation:
    """A schedule under way."""

    def __init__(self, plan: Plan, *, is_traced: bool = False) -> None:
        self.plan = plan
        self.world = World(plan.seed, is_traced=is_traced)
        self.world.latency = plan.latency
        self.stage = Stage(self.world, sends_bytes=plan.sends_bytes)
        enter(self.stage)
        self.seen = Circumstances()
        self.expected = Expectations(self.world)
        self.clients = [SimClient(self.stage, number, self._told) for number in range(plan.clients)]
        self.engine = SimEngine(self.stage, plan)
        self.faults = Faults(self.stage.network, self.engine, self.clients, self.seen, self)
        self._orders = {order.span_id: order for order in plan.orders}
        self._client_of = {order.span_id: self.clients[order.client] for order in plan.orders}
        self._not_yet = list(plan.orders)
        self._is_quiet = False
        self._is_settled = False
        self._disagreements: set[tuple[str, int, str]] = set()
        self.seen.is_stopping = self._is_draining
        self.seen.is_closing = lambda caller: self._client_of[caller.order.span_id].is_closing
        self.engine.on_worker_end = self._worker_ended
        provider = self.stage.provider
        provider.answer, provider.on_call, provider.on_close = self._answer, self._called, self._closed

    def run(self) -> None:
        """Let it happen; raises Violation."""
        SimulationViolation.latest = None
        try:
            self._run()
        finally:
            self.stage.network.close()
        if SimulationViolation.latest is not None:
            raise SimulationViolation.latest

    def _run(self) -> None:
        supervisor = self.engine.supervisor
        for client in self.clients:
            client.open(supervisor if self.plan.is_embedded else None)
        self.engine.start(self.plan, self.clients[0].host if self.plan.is_embedded else None)
        self.engine.shell.on_hung = self._hung
        for order in self.plan.orders:
            host = self.clients[order.client].host
            host.act(1000.0 + order.at, partial(self._submit, order))
        self.faults.plan(self.plan.faults)
        self.world.at(self.world.now + SAMPLE_INTERVAL, self._sample)
        self._settle()
        if self._can_serve():
            self._probe()
            self._settle()
        self._check_end()

    # What is asked for.

    def _submit(self, order: Order) -> None:
        self._not_yet.remove(order)
        client = self._client_of[order.span_id]
        client.submit(order)
        caller = client.callers[-1]
        caller.expect = self.expected.add
        caller.has_lost = lambda host, epoch: self._has_lost(host, self.engine.workers[epoch])
        bound = (order.total_timeout or TOTAL_TIMEOUT) + DEADLINE_GRACE + SLACK
        what = f"{order.span_id}: its outcome by its bound"
        # Whatever the I/O thread does: nothing of that is an excuse.
        self.expected.add(bound, lambda: caller.is_over, what, client.stops)

    def _probe(self) -> None:
        """Ask for one more run, after all that happened: the engine must have recovered."""
        self.faults.disarm()
        client = self._probing_client()
        number = self.clients.index(client)
        order = Order("sp_probe", number, 0.0, True, ["whole"])
        self._orders[order.span_id], self._client_of[order.span_id] = order, client
        self._not_yet.append(order)
        client.host.act(self.world.now, lambda: self._submit(order))

    def _probing_client(self) -> SimClient:
        """Return a client that had a fault of its I/O thread, which must have recovered; else a new client."""
        if self.seen.has_io_trouble:
            for client in self.clients:
                if client.host.is_alive and not client.is_closing:
                    client.io_thread.arm(0)
                    return client
        client = SimClient(self.stage, len(self.clients), self._told)
        client.open(None)
        self.clients.append(client)
        return client

    def _answer(self, span_id: str, number: int) -> ScriptedAnswer:
        order = self._orders[span_id]
        if order.answer is not None:
            return order.answer
        kind = order.kinds[min(number, len(order.kinds) - 1)]
        tag = f"{span_id[-2:]}c{number}:"
        return draw_answer(self.world.random, kind, tag, streams=order.streams, is_large=order.is_large)

    # What is seen.

    def _told(self, caller: Caller) -> None:
        """A run was aborted, or has ended."""
        order = caller.order
        if caller.ended_at is not None:
            self._ended(caller)
            return
        grace = DRAIN_GRACE if order.on_abort == "drain" else ABORT_GRACE
        self.expected.add(grace + SLACK, lambda: caller.is_over, f"{order.span_id}: its outcome after an abort")
        if order.on_abort == "close":
            what = f"{order.span_id}: the provider's connection closed after an abort"
            self.expected.add(CLOSE_BOUND, lambda: not any(c.closed_at is None for c in caller.calls()), what)

    def _ended(self, caller: Caller) -> None:
        check_outcome(caller, self.seen)
        outcome = caller.outcome
        is_probe = caller.order.span_id == "sp_probe"
        if not isinstance(outcome, Finished) and (is_probe or must_finish(caller, self.seen)):
            if isinstance(outcome, QueueFullError) and not is_probe:
                return
            raise SimulationViolation(f"{caller.order.span_id}: did not finish, with nothing in its way: {outcome!r}")

    def _called(self, call: Call) -> None:
        client = self._client_of[call.span_id]
        caller = next(known for known in client.callers if known.order.span_id == call.span_id)
        # A hedge may be on its way when the first attempt has an event.
        if not call.is_hedge and any(attempt < call.attempt for attempt in caller.delivered):
            raise SimulationViolation(f"{call.span_id}: the provider is called again after content was delivered")
        if call.answer.kind == "crash":
            self.seen.has_trouble = True
            self.world.disturbed(self.world.now, self.world.now + RECOVERY)
        bound = TOTAL_TIMEOUT + SLACK
        self.expected.add(
            bound, lambda: call.closed_at is not None, f"{call.span_id}: its call ended by the total clock"
        )

    def _closed(self, call: Call) -> None:
        """A call is over: not later than the clock that ran in it allows."""
        if not self._orders[call.span_id].streams or call.held_until == float("inf"):
            return
        if call.last_sent is None:
            since, limit = call.started_at, FIRST_CHUNK_TIMEOUT
        else:
            since, limit = max(call.last_sent, call.held_until or 0.0), IDLE_TIMEOUT
        late = self.world.now - since - limit
        if late > SLACK and late > SLACK + self.world.disturbance(since, self.world.now):
            raise SimulationViolation(
                f"{call.span_id}: its provider was silent for {late + limit:.2f} s, and was waited for"
            )

    def _worker_ended(self, host: Host, epoch: int) -> None:
        """A worker's process ends: the callers of its runs must learn of it soon."""
        for client in self.clients:
            if not client.host.is_alive or self._has_lost(client.host, host):
                continue
            for caller in client.callers:
                if not _has_moved(caller, epoch):
                    what = f"{caller.order.span_id}: knows that its worker is lost"
                    self.expected.add(LOSS_BOUND, partial(_has_moved, caller, epoch), what)

    def client_ended(self, client: SimClient) -> None:
        """Part of Watch: a client is dead, or has been closed."""
        what = f"{client.host.name}: its provider connections closed after its end"
        calls = [call for caller in client.callers for call in caller.calls()]
        self.expected.add(CLOSE_BOUND, lambda: not any(call.closed_at is None for call in calls), what)

    def stopped(self, host: Host, seconds: float) -> None:
        """Part of Watch: a process of the engine will say nothing for so long."""
        bound = BEATS + (HUNG_AFTER if self._is_known(host) else START_WITHIN)
        if seconds < bound or self._is_draining():
            return
        brokers = self.engine.brokers

        def excuse() -> float:
            # Each further broker has to find out anew.
            return (self.engine.brokers - brokers) * (HUNG_AFTER + RECOVERY)

        what = f"{host.name}: a process that is hung has been ended"
        self.expected.add(bound, lambda: not host.is_alive or not host.is_stopped, what, host, excuse)

    def _is_known(self, host: Host) -> bool:
        """Return whether the processes that watch this process know of its end."""
        if host is self.engine.broker:
            liveness = cast("Any", self.engine.shell._broker._liveness)
            return any(self.engine.by_epoch[epoch] is host for epoch in liveness._last_seen)
        admission = self._admission()
        return admission is not None and any(self.engine.by_epoch[epoch] is host for epoch in admission.joined)

    def _hung(self, silent: Silent) -> None:
        host = self.engine.by_epoch[silent.epoch]
        supervisor, now = self.engine.supervisor, self.world.now
        # Word may be old: one that was stopped itself hears late of a worker that has come back since.
        was_silent = self.world.was_stopped(host, now - HUNG_AFTER - BEATS) or self.world.was_stopped(
            supervisor, now - BEATS
        )
        if host.is_alive and not was_silent:
            raise SimulationViolation(
                f"{host.name}: is taken for hung after {silent.silence:.1f} s, though it was never stopped"
            )

    def _has_lost(self, host: Host, worker: Host) -> bool:
        """Return whether a client's process has no connection to a worker."""
        pipes = self.stage.network.pipes
        return not any(p.dealer.host is host and p.router.host is worker and p.is_open for p in pipes)

    # Now and then, and at the end.

    def _sample(self, _: None) -> None:
        self.world.at(self.world.now + SAMPLE_INTERVAL, self._sample)
        self.expected.look()
        self._compare_leases()
        was_quiet, self._is_quiet = (
            self._is_quiet,
            (
                not self.faults.left
                and not self.expected
                and self.world.is_calm(self.world.now - SAMPLE_INTERVAL)
                and not any(self._client_of[order.span_id].host.is_alive for order in self._not_yet)
                and all(caller.is_over for client in self.clients for caller in client.callers)
                and not self.stage.provider.open_calls
            ),
        )
        self._is_settled = was_quiet and self._is_quiet

    def _settle(self) -> None:
        self._is_quiet = self._is_settled = False
        if not self.world.run(lambda: self._is_settled, self.world.now + HORIZON):
            callers = [caller for client in self.clients for caller in client.callers if not caller.is_over]
            what = [f"{caller.order.span_id} ({caller.session.phase.value})" for caller in callers]
            calls = [call.span_id for call in self.stage.provider.open_calls]
            raise SimulationViolation(f"nothing ends: runs {what}, calls {calls}")

    def _compare_leases(self) -> None:
        """The broker knows the leases that clients hold, once all clients have had time to report them."""
        broker = self._admission()
        if broker is None or self.seen.has_forgotten_leases or not self.world.is_calm(self.world.now - SAMPLE_INTERVAL):
            self._disagreements.clear()
            return
        workers = self.engine.workers
        held = {
            (span_id, lease.attempt) for span_id, lease in broker.held_leases.items() if workers[lease.epoch].is_alive
        }
        had = {
            (span_id, attempt)
            for client in self.clients
            if client.host.is_alive
            for caller in client.callers
            if not caller.connection.is_lost
            for span_id, attempt, epoch in caller.session.leases()
            if workers[epoch].is_alive
        }
        phases = {caller.order.span_id: caller.session.phase for client in self.clients for caller in client.callers}
        # On its way to the client now, and given back half a second later, is no disagreement that lasts.
        disagreements = {(*lease, phases[lease[0].partition(":")[0]].value) for lease in held ^ had}
        if lasting := disagreements & self._disagreements:
            raise SimulationViolation(f"the broker's leases are not those of its clients: {sorted(lasting)}")
        self._disagreements = disagreements

    def _admission(self) -> Any:
        broker = self.engine.broker
        shell = self.engine.serving(broker) if broker is not None else None
        return admission_of(shell) if shell is not None else None

    def _is_draining(self) -> bool:
        return self.engine.shell._is_draining or not self.engine.supervisor.is_alive

    def _can_serve(self) -> bool:
        return not self._is_draining() and not self.plan.is_embedded

    def _check_end(self) -> None:
        for client in self.clients:
            for caller in client.callers:
                if caller.ended_at is not None:
                    caller.check_unchanged()
            if client.host.is_alive:
                self._check_client(client)
        admission = self._admission()
        if admission is not None:
            clients = [*admission._leases._of_client, *admission._lanes._of_client]
            if admission.lease_count or admission.waiting_count or clients:
                raise SimulationViolation(
                    f"{admission.lease_count} leases and {admission.waiting_count} places in the queue are left: {clients}"
                )
        for host in self.engine.workers.values():
            worker = cast("Any", self.engine.serving(host))
            if worker is not None and (runs := [span for c in worker._clients.values() for span in c.runs]):
                raise SimulationViolation(f"{host.name}: keeps runs that have ended: {runs}")

    def _check_client(self, client: SimClient) -> None:
        connection = client.connection
        if connection.is_lost:
            return
        served = connection._engine_runs
        runs = [
            *served._deliveries,
            *(span for link in served._workers._by_endpoint.values() for span in link.deliveries),
        ]
        if runs:
            raise SimulationViolation(f"{client.host.name}: keeps runs that have ended: {runs}")


def _has_moved(caller: Caller, epoch: int) -> bool:
    """Return whether a run is not on the worker with this epoch, or not any more."""
    session = caller.session
    return caller.is_over or session.phase is not Phase.RUNNING or session.lease is None or session.lease.epoch != epoch
