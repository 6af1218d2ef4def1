"""Sockets in virtual time, in place of ``UnixDealer`` and ``Router``.

A connection keeps order and loses nothing while it lives; between connections anything may overtake. When one ends (its
process dies, it is closed or cut) some of the last frames in each direction may be lost, and each side hears of the end
after the last frame that did arrive. A DEALER whose endpoint nobody has bound is told so, as of an end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator

from headrace.process.event_loop import EventLoop
from headrace.transport.router import SendResult
from tests.simulation.loops import Descriptors, SimLoop, SimReactor, new_descriptor
from tests.simulation.world import Host, SimulationViolation, World

_NEVER = 1 << 60
_TOLD_LATER = 0.1
"""Seconds by which the other side knows later, at most, of a connection that is shut down."""


class ClosedSocketError(RuntimeError):
    """A closed socket was used."""


class Way:
    """One direction of a connection."""

    __slots__ = ("_arrived", "_cut", "_last", "_sent", "_world", "extra", "slow_until", "take")

    def __init__(self, world: World, take: Callable[[bytes], None]) -> None:
        self.take = take
        self.extra = 0.0
        self.slow_until = 0.0
        self._world = world
        self._last = 0.0
        self._sent = 0
        self._arrived = 0
        self._cut = _NEVER

    def send(self, frame: bytes) -> None:
        world = self._world
        delay = world.latency * (0.5 + world.random.random())
        if world.now < self.slow_until:
            delay += self.extra
        self._last = max(self._last, world.now + delay)
        self._sent += 1
        world.at(self._last, self._arrive, (self._sent, frame))

    def end(self, *, loses: bool) -> float:
        """Let nothing more in; return when the other side knows."""
        world = self._world
        if loses and world.random.random() < 0.5:
            self._cut = world.random.randint(self._arrived, self._sent)
        return max(self._last, world.now) + world.latency

    def shut(self) -> None:
        """Let nothing arrive any more."""
        self._cut = self._arrived

    def _arrive(self, entry: tuple[int, bytes]) -> None:
        number, frame = entry
        if number <= self._cut:
            self._arrived = number
            self.take(frame)


class Pipe:
    """A connection between a dealer and a router."""

    def __init__(self, world: World, dealer: SimDealer, router: SimRouter) -> None:
        world.descriptors += 1
        self.identity = b"\0%d" % world.descriptors
        self.dealer = dealer
        self.router = router
        self.is_open = True
        self.to_router = Way(world, self._to_router)
        self.to_dealer = Way(world, self._to_dealer)
        self._world = world

    def end(self, *, loses: bool = True) -> None:
        """End it; each side is told, unless it is gone itself."""
        if not self.is_open:
            return
        self.is_open = False
        self._world.at(self.to_router.end(loses=loses), self._router_told)
        self._world.at(self.to_dealer.end(loses=loses), self._dealer_told)

    def cut(self) -> None:
        """Shut it down, which either side may hear of first."""
        if not self.is_open:
            return
        self.is_open = False
        later = _TOLD_LATER * self._world.random.random()
        if self._world.random.random() < 0.5:
            self._world.at(self.to_dealer.end(loses=True) + later, self._dealer_told)
            self.to_router.shut()
            self._router_told(None)
        else:
            self._world.at(self.to_router.end(loses=True) + later, self._router_told)
            self.to_dealer.shut()
            self._dealer_told(None)

    def slow(self, extra: float, until: float) -> None:
        """Have frames take longer for a while."""
        for way in (self.to_router, self.to_dealer):
            way.extra, way.slow_until = extra, until

    def _to_router(self, frame: bytes) -> None:
        self.router.arrived(self, frame)

    def _to_dealer(self, frame: bytes) -> None:
        self.dealer.arrived(frame)

    def _router_told(self, _: None) -> None:
        self.router.lost(self)

    def _dealer_told(self, _: None) -> None:
        self.dealer.lost(self)


class Network:
    """Who is bound where, and all connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pipes: list[Pipe] = []
        self.tap: Callable[[Pipe, bytes], bytes | None] | None = None
        """Sees each frame of a router; what it returns is sent, nothing for None."""
        self._bound: dict[str, SimRouter] = {}

    def close(self) -> None:
        """The schedule is over. Nothing here is real."""

    def dealer(self, endpoint: str, expects: Callable[[int], bool] | None) -> SimDealer:
        return SimDealer(self, endpoint, expects)

    def router(self, endpoint: str) -> SimRouter:
        return SimRouter(self, endpoint)

    def bind(self, router: SimRouter) -> None:
        self._bound[router.endpoint] = router

    def connect(self, dealer: SimDealer) -> None:
        self.world.at(self.world.now + self.world.latency, self._connect, dealer)

    def _connect(self, dealer: SimDealer) -> None:
        if dealer.is_closed or not dealer.host.is_alive:
            return
        router = self._bound.get(dealer.endpoint)
        if router is None or router.is_closed or not router.host.is_alive:
            dealer.failed()
            return
        pipe = Pipe(self.world, dealer, router)
        self.pipes = [known for known in self.pipes if known.is_open]
        self.pipes.append(pipe)
        router.joined(pipe)
        dealer.joined(pipe)


class SimDealer:
    """In place of ``UnixDealer``."""

    def __init__(self, network: Network, endpoint: str, expects: Callable[[int], bool] | None = None) -> None:
        world = network.world
        self.endpoint = endpoint
        self.host = world.current
        self.is_closed = False
        self.fd = new_descriptor(world)
        self._expects = expects
        self.pipe: Pipe | None = None
        self._descriptors = descriptors_of(self.host)
        self._unsent: list[bytes] = []
        self._inbox: deque[bytes] = deque()
        self._has_lost = False
        self.refusal: str | None = None
        self.peer_pid = 0
        self.host.at_end.append(self.close)
        network.connect(self)

    def watch(self, loop: EventLoop, ready: Callable[[], None]) -> None:
        loop.add_reader(self.fd, ready)

    def unwatch(self, loop: EventLoop) -> None:
        loop.remove_reader(self.fd)

    def send(self, frame: bytes) -> None:
        self._check()
        if self.pipe is None:
            self._unsent.append(frame)
        elif self.pipe.is_open:
            self.pipe.to_router.send(frame)

    @property
    def has_peer(self) -> bool:
        return self.pipe is not None

    def unsent(self) -> list[bytes]:
        unsent, self._unsent = self._unsent, []
        return unsent

    def receive(self) -> list[bytes]:
        self._check()
        frames = list(self._inbox)
        self._inbox.clear()
        return frames

    @property
    def is_disconnected(self) -> bool:
        return self._has_lost

    def close(self, linger: float = 0.0) -> None:
        self.is_closed = True
        self._inbox.clear()
        if self.pipe is not None:
            self.pipe.end(loses=not linger)

    # The network's side.

    def joined(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.peer_pid = pipe.router.host.pid
        self.host.world.acting(self.host, self._check_peer)
        for frame in self.unsent():
            pipe.to_router.send(frame)

    def _check_peer(self) -> None:
        if self._expects is not None and not self._expects(self.peer_pid):
            raise SimulationViolation(
                f"{self.host.name}: {self.endpoint} is another process's than the one that should serve there"
            )

    def failed(self) -> None:
        self._has_lost = True
        self._descriptors.signal(self.fd)

    def arrived(self, frame: bytes) -> None:
        if not self.is_closed:
            self._inbox.append(frame)
            self._descriptors.signal(self.fd)

    def lost(self, pipe: Pipe) -> None:
        if not self.is_closed and pipe is self.pipe:
            self._has_lost = True
            self._descriptors.signal(self.fd)

    def _check(self) -> None:
        if self.is_closed:
            raise ClosedSocketError(self.endpoint)


class SimRouter:
    """In place of ``Router``."""

    def __init__(self, network: Network, endpoint: str) -> None:
        world = network.world
        self.endpoint = endpoint
        self.host = world.current
        self.is_closed = False
        self.is_full = False
        self.fd = new_descriptor(world)
        self.monitor_fd = new_descriptor(world)
        self._network = network
        self._descriptors = descriptors_of(self.host)
        self._pipes: dict[bytes, Pipe] = {}
        self._pids: dict[bytes, int] = {}
        self._connected_at: dict[bytes, float] = {}
        self._heard: set[bytes] = set()
        self._inbox: deque[tuple[bytes, bytes]] = deque()
        self._departed: list[bytes] = []
        self.host.at_end.append(self.close)
        network.bind(self)

    def pid(self, identity: bytes) -> int:
        return self._pids[identity]

    def connected_at(self, identity: bytes) -> float:
        return self._connected_at[identity]

    def is_connected(self, identity: bytes) -> bool:
        pipe = self._pipes.get(identity)
        return pipe is not None and pipe.is_open

    def breach(self, identity: bytes) -> str:  # noqa: ARG002 - the router's form
        return ""

    def dismiss(self, identity: bytes, frame: bytes) -> None:
        self.send(identity, frame)

    def wait(self, seconds: float) -> None:
        """A worker rests: that takes no simulated time."""

    needs_looks = False

    def end_silent(self) -> None:
        """No peer connects here without a hello."""

    def is_foreign(self, identity: bytes) -> bool:  # noqa: ARG002 - the router's form
        return False

    def send(self, identity: bytes, frame: bytes) -> SendResult:
        pipe = self._pipes.get(identity)
        if pipe is None:
            return SendResult.GONE
        tap = self._network.tap
        if tap is not None:
            seen = tap(pipe, frame)
            if seen is None:
                return SendResult.SENT
            frame = seen
        if pipe.is_open:
            pipe.to_dealer.send(frame)
        return SendResult.SENT

    def has_input(self) -> bool:
        return bool(self._inbox)

    def receive(self, limit: int = 1000, busy: Collection[int] = ()) -> Iterator[tuple[bytes, bytes]]:
        later: list[tuple[bytes, bytes]] = []
        for _ in range(limit):
            if not self._inbox:
                break
            identity, frame = self._inbox.popleft()
            if self._pids[identity] in busy:
                later.append((identity, frame))
                continue
            self._heard.add(identity)
            yield identity, frame
        self._inbox.extendleft(reversed(later))

    def departed(self) -> Iterator[bytes]:
        departed, self._departed = self._departed, []
        for identity in departed:
            if identity in self._heard:
                self._heard.remove(identity)
                yield identity

    def disconnect(self, identity: bytes) -> None:
        if (pipe := self._pipes.get(identity)) is not None:
            pipe.end()

    def close(self, linger: float = 0.0) -> None:
        self.is_closed = True
        for pipe in list(self._pipes.values()):
            pipe.end(loses=not linger)

    # The network's side.

    def joined(self, pipe: Pipe) -> None:
        self._pipes[pipe.identity] = pipe
        self._pids[pipe.identity] = pipe.dealer.host.pid
        self._connected_at[pipe.identity] = self._network.world.now

    def arrived(self, pipe: Pipe, frame: bytes) -> None:
        if not self.is_closed:
            self._inbox.append((pipe.identity, frame))
            self._descriptors.signal(self.fd)

    def lost(self, pipe: Pipe) -> None:
        del self._pipes[pipe.identity]
        if not self.is_closed:
            self._departed.append(pipe.identity)
            self._descriptors.signal(self.monitor_fd)


def descriptors_of(host: Host) -> Descriptors:
    """Return the descriptors of a process's loop."""
    loop = host.loop
    assert isinstance(loop, SimReactor | SimLoop)
    return loop.descriptors
