"""Faults: what each kind does to the processes and links of a schedule."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

from headrace.wire.codec import encode_frame, from_worker
from headrace.wire.messages import Chunk
from headrace_engine.liveness import HUNG_AFTER
from tests.simulation.allowed_outcomes import Circumstances
from tests.simulation.byte_sockets import ByteNetwork, BytePipe
from tests.simulation.plans import Fault, Role
from tests.simulation.processes import SimClient, SimEngine
from tests.simulation.simulated_sockets import Network, Pipe
from tests.simulation.world import Host, World

T = TypeVar("T")

RECOVERY = 2.0
"""Seconds after a loss in which the others may still be finding out, and starting anew."""
_STRAY_DELAY = 1.0
_HARMLESS = ("clock", "stray", "vanish")


class Watch(Protocol):
    """The faults report themselves to this interface, so that their effects can be checked."""

    def client_ended(self, client: SimClient) -> None:
        """A client is dead, or has been closed."""

    def stopped(self, host: Host, seconds: float) -> None:
        """A worker or a broker will say nothing for so long."""


class Faults:
    """Carries a schedule's faults out."""

    def __init__(
        self,
        network: Network | ByteNetwork,
        engine: SimEngine,
        clients: list[SimClient],
        seen: Circumstances,
        watch: Watch,
    ) -> None:
        self.world: World = network.world
        self.left = 0
        self._network = network
        self._engine = engine
        self._clients = clients
        self._seen = seen
        self._watch = watch
        self._strays = 0
        self._vanishing = 0

    def plan(self, faults: Sequence[Fault]) -> None:
        """Have the faults happen at their times."""
        self.left = len(faults)
        for fault in faults:
            self.world.at(1000.0 + fault.at, self._happens, fault)

    def _happens(self, fault: Fault) -> None:
        self.left -= 1
        self.world.note(None, f"FAULT {fault}")
        if fault.kind not in _HARMLESS:
            self._seen.has_trouble = True
        if fault.kind.startswith("io "):
            self._hurt_io_thread(fault)
            return
        match fault.kind:
            case "kill":
                self._kill(fault)
            case "stop":
                self._stop(fault)
            case "freeze":
                self._freeze(fault)
            case "cut" | "slow":
                self._disturb_link(fault)
            case "clock":
                self.world.wall += fault.seconds
            case _:
                self._other(fault)

    def _other(self, fault: Fault) -> None:
        match fault.kind:
            case "drain worker":
                self._drain_worker(fault)
            case "recycle":
                self._engine.supervisor.signal(signal.SIGHUP)
            case "drain":
                self._drain(fault)
            case "close":
                if client := _pick([c for c in self._clients if c.host.is_alive and not c.is_closing], fault.pick):
                    client.host.act(self.world.now, client.close)
                    client.is_closing = True
                    self._watch.client_ended(client)
            case "stray":
                self._strays = 3
                self._network.tap = self._tap
            case "vanish":
                self._vanishing = 1
                self._network.tap = self._tap
            case _:
                raise AssertionError(fault.kind)

    def _hurt_io_thread(self, fault: Fault) -> None:
        """Have callbacks raise, the thread end, or something in a callback wait. The rest of its process goes on."""
        client = _pick([c for c in self._clients if c.host.is_alive], fault.pick)
        if client is None:
            return
        self._seen.has_io_trouble = True
        now = self.world.now
        if fault.kind == "io raises":
            client.io_thread.arm(1 + fault.pick * 2)
            self.world.disturbed(now, now + RECOVERY, client.stops, is_stop=True)
        elif fault.kind == "io ends":
            client.io_thread.end()
            self.world.disturbed(now, now + RECOVERY, client.stops, is_stop=True)
        else:
            client.io_thread.block(fault.seconds)
            self.world.disturbed(now, now + fault.seconds + RECOVERY, client.stops, is_stop=True)

    def _kill(self, fault: Fault) -> None:
        host = _pick(self._hosts(fault.role), fault.pick)
        if host is None:
            return
        self.world.disturbed(self.world.now, self.world.now + RECOVERY)
        host.kill()
        for client in self._clients:
            if client.host is host:
                self._watch.client_ended(client)

    def _stop(self, fault: Fault) -> None:
        host = _pick([h for h in self._hosts(fault.role) if not h.is_stopped], fault.pick)
        if host is None:
            return
        aftermath = RECOVERY if fault.role == "broker" else 0.5
        self.world.disturbed(self.world.now, self.world.now + fault.seconds + aftermath, host, is_stop=True)
        host.stop()
        self.world.at(self.world.now + fault.seconds, _resume, host)
        if fault.role in ("worker", "broker") and fault.seconds > HUNG_AFTER:
            self._watch.stopped(host, fault.seconds)

    def _freeze(self, fault: Fault) -> None:
        """Stop everybody, as a frozen container does or Ctrl-Z; they go on in any order."""
        if any(host.is_stopped and host.is_alive for host in self.world.hosts.values()):
            return
        self.world.disturbed(self.world.now, self.world.now + fault.seconds + 0.5)
        for host in list(self.world.hosts.values()):
            if host.is_alive and not host.is_stopped:
                host.stop()
                after = fault.seconds + self.world.random.random() * 0.05
                self.world.at(self.world.now + after, _resume, host)

    def _disturb_link(self, fault: Fault) -> None:
        first, second = fault.role.split("-")
        pipes = [
            pipe
            for pipe in self._network.pipes
            if pipe.is_open and not pipe.router.host.is_stopped and _roles(pipe) == (first, second)
        ]
        pipe = _pick(pipes, fault.pick)
        if pipe is None:
            return
        now = self.world.now
        if fault.kind == "cut":
            self.world.disturbed(now, now + RECOVERY)
            self._seen.has_forgotten_leases |= first == "worker"
            pipe.cut()
        else:
            host = pipe.dealer.host if first == "worker" else None
            self.world.disturbed(now, now + 2 * fault.seconds, host)
            pipe.slow(fault.seconds, now + fault.seconds)

    def _drain_worker(self, fault: Fault) -> None:
        """Tell a worker to leave; the broker may hear of it late, and send it runs meanwhile."""
        host = _pick(self._hosts("worker"), fault.pick)
        if host is None:
            return
        if fault.seconds:
            self.world.disturbed(self.world.now, self.world.now + 2 * fault.seconds, host)
            for pipe in self._network.pipes:
                if pipe.is_open and pipe.dealer.host is host:
                    pipe.slow(fault.seconds, self.world.now + fault.seconds)
        host.signal(signal.SIGTERM)

    def _drain(self, fault: Fault) -> None:
        supervisor = self._engine.supervisor
        supervisor.signal(signal.SIGTERM)
        if fault.seconds:
            self.world.at(self.world.now + fault.seconds, lambda _: supervisor.signal(signal.SIGTERM))

    def _hosts(self, role: Role) -> list[Host]:
        hosts: list[Host | None]
        match role:
            case "worker":
                hosts = list(self._engine.workers.values())
            case "broker":
                hosts = [self._engine.broker]
            case "supervisor":
                hosts = [self._engine.supervisor]
            case _:
                hosts = [client.host for client in self._clients]
        return [host for host in hosts if host is not None and host.is_alive]

    def disarm(self) -> None:
        """Let frames pass as they are from here on."""
        self._strays = self._vanishing = 0
        self._network.tap = None

    # Frames that should not be: what a link that keeps its promises never does.

    def _tap(self, pipe: Pipe | BytePipe, frame: bytes) -> bytes | None:
        if pipe.router.host is self._engine.broker:
            return frame
        epoch, messages = from_worker.decode(frame)
        chunk = next((message for message in messages if isinstance(message, Chunk)), None)
        if chunk is None:
            return frame
        if self._strays:
            self._strays -= 1
            self._send_stray(pipe, epoch, chunk)
        if self._vanishing and all(isinstance(message, Chunk) for message in messages):
            self._vanishing -= 1
            self._seen.spoiled |= {
                message.span_id.partition(":")[0] for message in messages if isinstance(message, Chunk)
            }
            self.world.note(pipe.router.host, f"{chunk.span_id}: a frame vanishes")
            return None
        return frame

    def _send_stray(self, pipe: Pipe | BytePipe, epoch: int, chunk: Chunk) -> None:
        """Have a chunk come again, late: as one of another attempt, or of another process."""
        if self.world.random.random() < 0.5:
            chunk = msgspec.structs.replace(chunk, attempt=chunk.attempt + self.world.random.choice((-1, 1)))
        else:
            epoch += 1
        stray = encode_frame(epoch, [chunk])
        self.world.at(self.world.now + self.world.random.random() * _STRAY_DELAY, lambda _: _arrive(pipe, stray))


def _resume(host: Host) -> None:
    host.resume()


def _arrive(pipe: Pipe | BytePipe, frame: bytes) -> None:
    if pipe.is_open:
        pipe.to_dealer.send(frame)


def _roles(pipe: Pipe | BytePipe) -> tuple[str, str]:
    return _role(pipe.dealer.host), _role(pipe.router.host)


def _role(host: Host) -> str:
    return {"c": "client", "b": "broker", "s": "supervisor"}.get(host.name[0], "worker")


def _pick(among: Sequence[T], number: int) -> T | None:
    return among[number % len(among)] if among else None
