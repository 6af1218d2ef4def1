"""ZeroMQ connections for tests, without an event loop: one checks its peer as Headrace does, one trusts every peer."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator

import zmq

from tests.waiting import wait_until

_numbers = itertools.count()


def new_context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return a context for libzmq's sockets. It is to be terminated after they are closed."""
    return zmq.Context()


def until_disconnected(peer: RawDealer, timeout: float = 10.0) -> list[bytes]:
    """Return what a peer says until it ends the connection, its last words too."""
    said: list[bytes] = []

    def is_over() -> bool:
        has_ended = peer.is_disconnected  # asked first: what came before the end is there then
        said.extend(peer.receive())
        return has_ended

    wait_until(is_over, timeout, "the end of the connection", lambda: said[-1:])
    return said


class RawDealer:
    """ZeroMQ's own connection to an address. It reconnects by itself, and checks neither the directory nor the user of its peer."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        for option in (zmq.LINGER, zmq.RCVHWM, zmq.SNDHWM):
            self._socket.setsockopt(option, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 80)
        address = f"inproc://raw-dealer-{next(_numbers)}"
        self._socket.monitor(address, int(zmq.EVENT_DISCONNECTED))
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)
        self._socket.connect(endpoint)

    def send(self, frame: bytes) -> None:
        """Queue a frame for the peer that is connected, or that connects next."""
        self._socket.send(frame, zmq.NOBLOCK)

    def has_input(self) -> bool:
        """Return whether a frame waits."""
        return bool(self._socket.poll(0, zmq.POLLIN))

    def receive(self) -> Iterator[bytes]:
        """Yield the frames that wait."""
        with contextlib.suppress(zmq.Again):
            while True:
                yield b"".join(self._socket.recv_multipart(zmq.NOBLOCK))

    @property
    def is_disconnected(self) -> bool:
        """Return whether a connection has ended since the last call."""
        has_ended = False
        with contextlib.suppress(zmq.Again):
            while True:
                self._monitor.recv_multipart(zmq.NOBLOCK)
                has_ended = True
        return has_ended

    def close(self, linger: float = 0.0) -> None:
        """Close; ``linger`` is how long queued frames may take to leave, in seconds."""
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))
