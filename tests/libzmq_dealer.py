"""A FrameSocket on libzmq's DEALER, for tests: the other implementation of the interface, and of ZMTP."""

from __future__ import annotations

import itertools
import os
import socket
import struct
from collections.abc import Callable, Iterator
from typing import cast

import zmq

from headrace.process.event_loop import EventLoop
from headrace.transport.checked_connection import OTHER_PROCESS
from headrace.transport.peer_identity import credentials, refusal_of_peer

_EVENT = struct.Struct("=Hi")
"""The first frame of a monitor's message: the kind of event, and a descriptor."""

_NEVER = 3_600_000
"""Milliseconds until libzmq connects again. If it is told not to, it drops the frames that have arrived before the end."""

_numbers = itertools.count()


class LibzmqDealer:
    """A connection to a process of this user. Its directory is not checked."""

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str, expects: Callable[[int], bool] | None = None
    ) -> None:
        os.lstat(endpoint.removeprefix("ipc://"))
        self.has_peer = False
        self.peer_pid = 0
        self.refusal: str | None = None
        self._expects = expects
        self._held: list[bytes] = []
        self._is_over = False
        self._loop: EventLoop | None = None
        self._socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0), (zmq.HANDSHAKE_IVL, 5000), (zmq.RECONNECT_IVL, _NEVER), (zmq.RCVHWM, 0), (zmq.SNDHWM, 0),
        ):  # fmt: skip
            self._socket.setsockopt(option, value)
        address = f"inproc://libzmq-dealer-{next(_numbers)}"
        self._socket.monitor(address, int(zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED))
        self._monitor = context.socket(zmq.PAIR)
        self._monitor.setsockopt(zmq.RCVHWM, 0)
        self._monitor.setsockopt(zmq.LINGER, 0)
        self._monitor.connect(address)
        for _ in self._events():  # the descriptor signals nothing until the pipe was found empty once
            pass
        self._fds = [_number(self._socket, zmq.FD), _number(self._monitor, zmq.FD)]
        self._socket.connect(endpoint)

    def watch(self, loop: EventLoop, ready: Callable[[], None]) -> None:
        self._loop, self._ready = loop, ready
        for fd in self._fds:
            loop.add_reader(fd, ready)

    def unwatch(self, loop: EventLoop) -> None:
        self._loop = None
        for fd in self._fds:
            loop.remove_reader(fd)

    def send(self, frame: bytes) -> None:
        if self._is_over and self.has_peer:
            return
        if not self.has_peer:
            self._held.append(frame)
            return
        self._socket.send(frame, zmq.NOBLOCK)
        self._look_again()

    def _look_again(self) -> None:
        """Have ``ready`` called if frames wait: the descriptors are edge-triggered, and each use of the socket may hide their signal."""
        if self._loop is not None and _number(self._socket, zmq.EVENTS) & zmq.POLLIN:
            self._loop.call_soon(self._ready)

    def unsent(self) -> list[bytes]:
        held, self._held = self._held, []
        return held

    def receive(self) -> list[bytes]:
        frames: list[bytes] = []
        self._take_events()
        while self.has_peer and _number(self._socket, zmq.EVENTS) & zmq.POLLIN:
            parts = self._socket.recv_multipart(zmq.NOBLOCK)
            frames.append(parts[0] if len(parts) == 1 else b"")
        return frames

    @property
    def is_disconnected(self) -> bool:
        return self._is_over

    def close(self, linger: float = 0.0) -> None:
        if self._socket.closed:
            return
        if self._held and linger and not self._is_over:
            self._monitor.poll(int(linger * 1000))
            self._take_events()
        self._is_over = True
        self._socket.disable_monitor()
        self._monitor.close(0)
        self._socket.close(int(linger * 1000))

    def _take_events(self) -> None:
        for kind, descriptor in self._events():
            if kind == zmq.EVENT_CONNECTED:
                self._meet(*_credentials(descriptor))
            else:
                self._is_over = True

    def _meet(self, pid: int | None, uid: int | None) -> None:
        self.refusal = refusal_of_peer(uid)
        if self.refusal is None and self._expects is not None and not self._expects(pid or 0):
            self.refusal = OTHER_PROCESS
        if self.refusal is not None:
            self._is_over = True
            return
        self.peer_pid = pid or 0
        self.has_peer = True
        for frame in self.unsent():
            self.send(frame)

    def _events(self) -> Iterator[tuple[int, int]]:
        while self._monitor.poll(0):
            kind, descriptor = _EVENT.unpack(self._monitor.recv_multipart(zmq.NOBLOCK)[0])
            yield kind, descriptor


def _credentials(descriptor: int) -> tuple[int | None, int | None]:
    connection = socket.socket(fileno=descriptor)
    try:
        return credentials(connection)
    finally:
        connection.detach()  # it is libzmq's


def _number(source: zmq.Socket[bytes], option: zmq.SocketOption) -> int:
    return cast("int", source.getsockopt(option))
