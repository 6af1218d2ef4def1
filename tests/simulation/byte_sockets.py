"""Unix sockets in virtual time, byte by byte: under the product's own UnixDealer, Router and ZmtpConnection.

What one end writes arrives in pieces of any size, with delays. A buffer takes only so many bytes. When a connection ends, bytes of
each direction may be lost, also in the middle of a frame; each end reads what has arrived, and then the end.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

from headrace.transport.checked_connection import CheckedConnection
from headrace.transport.listener import Credentials
from headrace.transport.router import PeerLimits, Router, SendResult
from headrace.transport.unix_dealer import UnixDealer
from tests.simulation.loops import Descriptors, SimLoop, SimReactor, new_descriptor
from tests.simulation.world import Host, SimulationViolation, World

_TOLD_LATER = 0.1
"""Seconds by which the other end knows later, at most, of a connection that is cut."""
_CAPACITIES = (700, 5_000, 200_000)
"""Bytes that a buffer may take."""
_PIECES = 0.3
"""How often what is written arrives in pieces, and how often a read returns less than there is."""


class Stream:
    """One direction of a connection. ``woken`` is called when there is something to read, ``drained`` when there is room again."""

    def __init__(self, world: World, woken: Callable[[], None], drained: Callable[[], None]) -> None:
        self._world = world
        self._woken = woken
        self._drained = drained
        self._room = world.random.choice(_CAPACITIES)
        self._arrived = bytearray()
        self._last = 0.0
        self._cut_at: float | None = None
        self.is_ended = False
        """Whether the reader will read the end, after what has arrived."""
        self.is_shut = False
        """Whether nothing more can be written."""
        self.extra = 0.0
        self.slow_until = 0.0

    @property
    def has_room(self) -> bool:
        return self._room > 0 or self.is_shut

    @property
    def is_readable(self) -> bool:
        return bool(self._arrived) or self.is_ended

    def write(self, data: bytes) -> int:
        """Take bytes, as many as there is room for; return how many."""
        world, data = self._world, data[: self._room]
        self._room -= len(data)
        rest = data
        while rest:
            count = world.random.randint(1, len(rest)) if world.random.random() < _PIECES else len(rest)
            delay = world.latency * (0.5 + world.random.random())
            if world.now < self.slow_until:
                delay += self.extra
            self._last = max(self._last, world.now + delay)
            world.at(self._last, self._arrive, rest[:count])
            rest = rest[count:]
        return len(data)

    def _arrive(self, piece: bytes) -> None:
        if self.is_ended:
            return
        if self._cut_at is not None and self._world.now >= self._cut_at:
            piece = piece[: self._world.random.randint(0, len(piece))]  # the end is somewhere in here
            self._arrived += piece
            self.end_now()
            return
        self._arrived += piece
        self._woken()

    def read(self, count: int) -> bytes:
        """Return bytes that have arrived; none is the end. Raises BlockingIOError if nothing has."""
        if not self.is_readable:
            raise BlockingIOError
        count = min(count, len(self._arrived))
        if count > 1 and self._world.random.random() < _PIECES:
            count = self._world.random.randint(1, count)
        data = bytes(self._arrived[:count])
        del self._arrived[:count]
        if not self.is_shut:
            self._room += count
            self._world.at(self._world.now, _call, self._drained)
        return data

    def first(self) -> bytes:
        """Return the byte that would be read next, and leave it there. Raises BlockingIOError if nothing has arrived."""
        if not self.is_readable:
            raise BlockingIOError
        return bytes(self._arrived[:1])

    def end(self, *, loses: bool) -> None:
        """Let nothing more in. What is on its way still arrives, unless it is lost."""
        if self.is_shut:
            return
        self.is_shut = True
        world = self._world
        at = max(self._last, world.now) + world.latency
        if loses and world.random.random() < 0.5:
            self._cut_at = world.now + (at - world.now) * world.random.random()
        world.at(at, _call, self.end_now)

    def end_now(self) -> None:
        """Let nothing arrive any more: the reader finds the end behind what has arrived."""
        self.is_shut = True
        if not self.is_ended:
            self.is_ended = True
            self._woken()


class ByteSocket:
    """One end of a connection, in place of ``socket.socket``: as much of it as the product uses."""

    family = socket.AF_UNIX

    def __init__(self, network: ByteNetwork, host: Host) -> None:
        self.host = host
        self.fd = new_descriptor(network.world)
        self.pipe: BytePipe
        self.incoming: Stream
        self.outgoing: Stream
        self._network = network
        self._descriptors = _descriptors_of(host)
        self._is_closed = False

    def connected(self, pipe: BytePipe, incoming: Stream, outgoing: Stream) -> None:
        self.pipe, self.incoming, self.outgoing = pipe, incoming, outgoing
        self._network.sockets[self.fd] = self.events
        self._descriptors.add_level(self.fd, self.events)
        self.host.at_end.append(self._host_ended)

    def wake(self) -> None:
        """The state of the socket has changed."""
        if not self._is_closed and self.host.is_alive:
            self.host.nudge()

    def events(self) -> int:
        return (select.EPOLLIN if self.incoming.is_readable else 0) | (select.EPOLLOUT if self.outgoing.has_room else 0)

    def fileno(self) -> int:
        return -1 if self._is_closed else self.fd

    def setblocking(self, flag: bool) -> None:
        assert not flag

    def recv(self, count: int, flags: int = 0) -> bytes:
        self._check()
        if flags:  # a look
            return self.incoming.first()
        return self.incoming.read(count)

    def send(self, data: bytes) -> int:
        self._check()
        if self.outgoing.is_shut:
            raise BrokenPipeError
        count = self.outgoing.write(data)
        if not count:
            raise BlockingIOError
        return count

    def sendmsg(self, pieces: Sequence[bytes]) -> int:
        return self.send(b"".join(pieces))

    def shutdown(self, how: int) -> None:
        if self._is_closed:
            return
        self.outgoing.end(loses=False)
        if how == socket.SHUT_RDWR:
            self.pipe.is_open = False
            self.incoming.end_now()

    def close(self) -> None:
        if not self._is_closed:
            self.shutdown(socket.SHUT_RDWR)
            self._forget()

    def _forget(self) -> None:
        self._is_closed = True
        self._network.sockets.pop(self.fd, None)
        self._descriptors.remove_level(self.fd)

    def _host_ended(self) -> None:
        if not self._is_closed:
            self.pipe.is_open = False
            self.outgoing.end(loses=True)
            self.incoming.end_now()
            self._forget()

    def _check(self) -> None:
        if self._is_closed:
            raise SimulationViolation(f"{self.host.name}: a closed socket was used")


class BytePipe:
    """A connection between a dealer and a router."""

    def __init__(self, network: ByteNetwork, dealer: ByteSocket, router: ByteSocket, bound: ByteRouter) -> None:
        self.dealer = dealer
        self.router = router
        self.is_open = True
        self.to_dealer = _Words(bound, router)
        self._world = network.world
        to_router = Stream(network.world, router.wake, dealer.wake)
        to_dealer = Stream(network.world, dealer.wake, router.wake)
        dealer.connected(self, to_dealer, to_router)
        router.connected(self, to_router, to_dealer)

    def cut(self) -> None:
        """Shut it down, which either end may hear of first."""
        if not self.is_open:
            return
        self.is_open = False
        ends = [self.dealer, self.router]
        self._world.random.shuffle(ends)
        ends[0].incoming.end_now()
        later = self._world.now + _TOLD_LATER * self._world.random.random()
        self._world.at(later, _end, ends[0].outgoing)

    def slow(self, extra: float, until: float) -> None:
        """Have bytes take longer for a while."""
        for stream in (self.dealer.incoming, self.router.incoming):
            stream.extra, stream.slow_until = extra, until


class _Words:
    """Sends frames in the name of a router."""

    def __init__(self, bound: ByteRouter, end: ByteSocket) -> None:
        self._bound = bound
        self._end = end

    def send(self, frame: bytes) -> None:
        self._end.host.world.acting(self._end.host, lambda: self._bound.send_untapped(self._end, frame))


class ByteNetwork:
    """Who is bound where, and all connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pipes: list[BytePipe] = []
        self.sockets: dict[int, Callable[[], int]] = {}
        """Descriptor → what it is ready for."""
        self.bound: dict[str, ByteListener] = {}
        self.tap: Callable[[Any, bytes], bytes | None] | None = None
        """Sees each frame of a router; what it returns is sent, nothing for None."""
        self._routers: list[ByteRouter] = []

    def connect(self, endpoint: str, expects: Callable[[int], bool] | None) -> CheckedConnection:
        """In place of ``connect``."""
        listener = self.bound.get(endpoint)
        if listener is None:
            raise FileNotFoundError(endpoint)
        if listener.is_closed or not listener.host.is_alive or self.world.random.random() < 0.02:
            return CheckedConnection(None)  # nobody listens, or too many wait to be accepted
        host = self.world.current
        if expects is not None and not expects(listener.host.pid):
            raise SimulationViolation(
                f"{host.name}: {endpoint} is another process's than the one that should serve there"
            )
        dealer, router = ByteSocket(self, host), ByteSocket(self, listener.host)
        self.pipes = [known for known in self.pipes if known.is_open]
        self.pipes.append(BytePipe(self, dealer, router, listener.router))
        listener.arrived(router)
        return CheckedConnection(cast("socket.socket", dealer), listener.host.pid)

    def dealer(self, endpoint: str, expects: Callable[[int], bool] | None) -> ByteDealer:
        return ByteDealer(endpoint, expects, self.connect)

    def router(self, endpoint: str) -> ByteRouter:
        made = ByteRouter(self, endpoint)
        self._routers.append(made)
        return made

    def close(self) -> None:
        """The schedule is over: close the descriptors of this process that routers have."""
        for router in self._routers:
            router.host_ended()


class ByteDealer(UnixDealer):
    """The product's dealer. Its wait at the end takes no time: what it may still send leaves at once."""

    def _linger(self, deadline: float) -> None:  # noqa: ARG002 - the dealer's form
        if self._is_ready:
            cast("ByteSocket", self._wire._connection).outgoing._room = 1 << 40
            self._wire.flush()


class ByteListener:
    """In place of ``ConnectionListener``."""

    is_full = False
    is_out_of_descriptors = False

    def __init__(self, network: ByteNetwork, endpoint: str, router: ByteRouter) -> None:
        self.router = router
        self.host = network.world.current
        self.fd = new_descriptor(network.world)
        self.is_closed = False
        self._waiting: deque[ByteSocket] = deque()
        network.sockets[self.fd] = self._events
        network.bound[endpoint] = self

    def _events(self) -> int:
        return select.EPOLLIN if self._waiting else 0

    def arrived(self, connection: ByteSocket) -> None:
        self._waiting.append(connection)
        self.host.world.at(self.host.world.now + self.host.world.latency, _nudge, self.host)

    def accept(self) -> Iterator[tuple[socket.socket, Credentials]]:
        while self._waiting:
            connection = self._waiting.popleft()
            yield cast("socket.socket", connection), (connection.pipe.dealer.host.pid, os.geteuid())

    def connection_ended(self, pid: int | None) -> bool:  # noqa: ARG002 - the listener's form
        return False

    def accept_again(self) -> None:
        """There are always descriptors."""

    def close(self) -> None:
        self.is_closed = True


class ByteEpoll:
    """In place of ``select.epoll``."""

    def __init__(self, network: ByteNetwork, descriptors: Descriptors, fd: int) -> None:
        self._network = network
        self._descriptors = descriptors
        self._fd = fd
        self._wanted: dict[int, int] = {}
        descriptors.add_level(fd, self._events)

    def fileno(self) -> int:
        return self._fd

    def register(self, fd: int, events: int) -> None:
        assert fd not in self._wanted
        self._wanted[fd] = events

    def modify(self, fd: int, events: int) -> None:
        assert fd in self._wanted
        self._wanted[fd] = events

    def unregister(self, fd: int) -> None:
        del self._wanted[fd]

    def poll(self, timeout: float = 0.0) -> list[tuple[int, int]]:  # noqa: ARG002 - epoll's
        ready = [
            (fd, events)
            for fd, wanted in self._wanted.items()
            if (look := self._network.sockets.get(fd)) is not None and (events := look() & wanted)
        ]
        self._network.world.random.shuffle(ready)
        return ready

    def close(self) -> None:
        self._wanted.clear()
        self._descriptors.remove_level(self._fd)

    def _events(self) -> int:
        sockets = self._network.sockets
        is_ready = any((look := sockets.get(fd)) is not None and look() & wanted for fd, wanted in self._wanted.items())
        return select.EPOLLIN if is_ready else 0


class ByteRouter(Router):
    """The product's router, on a simulated listener and simulated sockets."""

    def __init__(self, network: ByteNetwork, endpoint: str, limits: PeerLimits | None = None) -> None:
        self.host = network.world.current
        self._network = network
        self._descriptors = _descriptors_of(self.host)
        fd = new_descriptor(network.world)
        room = "headrace.transport.router"
        kernel = SimpleNamespace(
            epoll=lambda: ByteEpoll(network, self._descriptors, fd), EPOLLIN=select.EPOLLIN, EPOLLOUT=select.EPOLLOUT
        )
        listener = ByteListener(network, endpoint, self)
        with mock.patch(f"{room}.select", kernel), mock.patch(f"{room}.ConnectionListener", return_value=listener):
            super().__init__(endpoint, limits=limits)
        self._epoll.register(self._listener.fd, select.EPOLLIN)
        self.host.at_end.append(self.host_ended)

    def wait(self, seconds: float) -> None:
        """A worker rests: that takes no simulated time."""

    def send(self, identity: bytes, frame: bytes) -> SendResult:
        peer, tap = self._peers.get(identity), self._network.tap
        if peer is not None and tap is not None:
            seen = tap(cast("Any", peer.wire._connection).pipe, frame)
            if seen is None:
                return SendResult.SENT
            frame = seen
        return super().send(identity, frame)

    def send_untapped(self, end: ByteSocket, frame: bytes) -> None:
        for peer in list(self._peers.values()):
            if cast("Any", peer.wire._connection) is end:
                super().send(peer.identity, frame)

    def close(self, linger: float = 0.0) -> None:
        for peer in self._peers.values() if linger else ():
            cast("Any", peer.wire._connection).outgoing._room = 1 << 40
            self._flush(peer)
        super().close(0.0)

    def _signal(self) -> None:
        super()._signal()
        self._descriptors.signal(self.monitor_fd)

    def host_ended(self) -> None:
        """Its process has ended."""
        self._peers.clear()  # the sockets end by themselves, each in its own way
        super().close(0.0)


def _descriptors_of(host: Host) -> Descriptors:
    loop = host.loop
    assert isinstance(loop, SimReactor | SimLoop)
    return loop.descriptors


def _call(action: Callable[[], None]) -> None:
    action()


def _end(stream: Stream) -> None:
    stream.end(loses=True)


def _nudge(host: Host) -> None:
    if host.is_alive:
        host.nudge()
