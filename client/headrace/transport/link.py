"""The connecting end between two processes: says hello, hands over the peer's messages, and notices the peer's end and its successor.

:class:`Link` is one connection to one peer. :class:`StandingLink` connects again after each end. To be used on the loop's thread only.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Generic, TypeVar

import msgspec

from headrace.errors import ProtocolError
from headrace.process.callbacks import log
from headrace.process.event_loop import EventLoop
from headrace.process.history import History
from headrace.transport.connector import Connector
from headrace.transport.frame_socket import FrameSocket
from headrace.wire.codec import FrameDecoder, encode_frame
from headrace.wire.messages import (
    CAPABILITIES,
    MAX_FRAME_BYTES,
    MAX_FRAME_MESSAGES,
    PROTOCOL_MINOR,
    Goodbye,
    Heartbeat,
    Hello,
    PeerRole,
    Welcome,
)

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=msgspec.Struct)

REOPEN_DELAY = 0.05
"""Seconds from the end of a peer to the next attempt to connect."""
RETRY_DELAY = 1.0
"""Seconds to the next attempt after the peer has refused this process, was refused itself, or if there was no descriptor."""
HEARTBEAT_INTERVAL = 1.0
"""Seconds between two heartbeats."""


def hello_of(role: PeerRole, name: str = "", endpoint: str = "", capacity: int = -1) -> Hello:
    """Return the hello of this process in a role. A worker also says its name, its endpoint and how many runs it can have."""
    return Hello(role, PROTOCOL_MINOR, os.getpid(), CAPABILITIES, name, endpoint, capacity)


def _log_unreadable(error: ProtocolError) -> None:
    log(logger, logging.ERROR, "message cannot be read", error=error)


def one_by_one(received: Callable[[M], None]) -> Callable[[list[M]], None]:
    """Return what calls ``received`` with each message of a frame."""

    def receive(messages: list[M]) -> None:
        for message in messages:
            received(message)

    return receive


class Link(Generic[M]):
    """One connection to one peer, from :meth:`open` until the peer has gone or :meth:`close`.

    ``dial`` makes a socket, which checks whose process listens. ``hello`` is said first. ``received`` is called with the messages of
    each frame.
    ``ended`` is called once, when the peer has gone or is refused: after its last message, and not after :meth:`close`. Then the
    link closes itself. ``unreadable`` is called for a frame that cannot be decoded; by default the frame is logged and left out.

    If ``waits`` is true, the link tries again until the peer is there. If not, a peer that is not there has gone.
    """

    def __init__(
        self,
        loop: EventLoop,
        dial: Callable[[], FrameSocket],
        hello: Callable[[], Hello],
        epoch: int,
        decoder: FrameDecoder[M],
        received: Callable[[list[M]], None],
        ended: Callable[[], None],
        *,
        waits: bool = True,
        unreadable: Callable[[ProtocolError], None] = _log_unreadable,
        max_frame: int = MAX_FRAME_BYTES,
        history: History | None = None,
    ) -> None:
        self._loop = loop
        self._dial = dial
        self._hello = hello
        self._epoch = epoch
        self._decode = decoder.decode
        self._received = received
        self._ended = ended
        self._waits = waits
        self._unreadable = unreadable
        self._max_frame = max_frame
        self._history = history
        self._connector: Connector | None = None
        self._welcome: Welcome | None = None
        self.peer_epoch = 0
        """The epoch of the peer's process, as its last frame said. 0 before its first frame."""
        self.refusal: str | None = None
        """Why the peer may not be used: it is another user's process, or its directory is not to be trusted. None if it may."""

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent. They are kept until the peer is there."""
        return self._connector is not None

    @property
    def is_connected(self) -> bool:
        """Whether the peer is there."""
        return self._connector is not None and self._connector.is_connected

    @property
    def is_welcomed(self) -> bool:
        """Whether the peer has answered the hello."""
        return self._welcome is not None

    @property
    def capabilities(self) -> Collection[str]:
        """Which optional messages the peer understands. None are known before it has answered the hello."""
        return self._welcome.capabilities if self._welcome is not None else ()

    @property
    def peer_pid(self) -> int:
        """The peer's process, as the kernel says. 0 while it is unknown."""
        return self._connector.peer_pid if self._connector is not None else 0

    def open(self) -> None:
        """Connect, and say hello.

        Raises OSError if there is no descriptor, and UntrustedDirectoryError if the directory is not to be trusted. Raises
        FileNotFoundError if the peer is not there and the link does not wait.
        """
        socket: FrameSocket | None = None
        try:
            socket = self._dial()
        except FileNotFoundError:
            if not self._waits:
                raise
        again = self._dial if self._waits else None
        self._connector = Connector(self._loop, socket, again, self._take, self._peer_ended)
        self.send([self._hello()])

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send messages, in one frame if the peer takes so much in one. A message that is too long alone is left out."""
        connector = self._connector
        if connector is None:
            return
        if len(messages) > MAX_FRAME_MESSAGES or len(frame := encode_frame(self._epoch, messages)) > self._max_frame:
            half = len(messages) // 2
            for some in (messages[:half], messages[half:]) if half else ():
                self.send(some)
            return
        if self._history is not None:
            self._history.frame("sent", messages)
        connector.send(frame)

    def _take(self, frames: Sequence[bytes]) -> None:
        """Hand over the messages of the frames that have come."""
        left = iter(frames)
        try:
            for frame in left:
                if self._connector is None:
                    return
                try:
                    self.peer_epoch, messages = self._decode(frame)
                except ProtocolError as error:
                    self._unreadable(error)
                    continue
                if self._history is not None:
                    self._history.frame("received", messages, self.peer_epoch)
                if self._welcome is None:
                    self._welcome = next((said for said in messages if isinstance(said, Welcome)), None)
                self._received(messages)
        except BaseException:
            self._loop.call_soon(partial(self._take, [*left]))  # an error of one frame does not lose the others
            raise

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long frames may take to leave, in seconds."""
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.close(linger)

    def _peer_ended(self, reason: str | None) -> None:
        self.refusal = reason
        try:
            self._ended()
        finally:
            self.close()


class StandingLink(Generic[M]):
    """A link that stays: when the peer has gone, it connects again, to the same peer or to its successor.

    ``peer`` is the peer's role, for the log. The other arguments are those of :class:`Link`, but ``received`` is called with each
    message. ``opened`` is called after each
    hello: a new peer knows nothing of what was said before. ``heartbeat`` makes the message of :meth:`beat`. The owner beats at times that
    it has other work too, so that an idle process wakes up once for all of it.
    """

    def __init__(
        self,
        peer: PeerRole,
        loop: EventLoop,
        dial: Callable[[], FrameSocket],
        hello: Callable[[], Hello],
        epoch: int,
        decoder: FrameDecoder[M],
        received: Callable[[M], None],
        *,
        opened: Callable[[], None] = lambda: None,
        heartbeat: Callable[[], Heartbeat] | None = None,
    ) -> None:
        self._peer = peer
        self._loop = loop
        self._dial = dial
        self._hello = hello
        self._epoch = epoch
        self._decoder = decoder
        self._received = received
        self._opened = opened
        self._heartbeat = heartbeat
        self._link: Link[M] | None = None
        self._is_dismissed = False
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether something can be sent. It is kept until the peer is there."""
        return self._link is not None

    def open(self) -> None:
        """Connect. If there is no descriptor, or the directory is not to be trusted, try again after :data:`RETRY_DELAY`."""
        if self._is_closed:
            return
        self._is_dismissed = False
        link = Link(
            self._loop,
            self._dial,
            self._hello,
            self._epoch,
            self._decoder,
            one_by_one(self._hand_over),
            self._connection_ended,
        )
        try:
            link.open()
        except OSError as error:
            log(logger, logging.ERROR, "peer cannot be reached", error=error, extra={"peer": self._peer})
            self._loop.call_later(RETRY_DELAY, self.open)
            return
        self._link = link
        self._opened()

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send messages in one frame, if the link is open."""
        if self._link is not None:
            self._link.send(messages)

    def beat(self) -> None:
        """Send a heartbeat now, or when the peer is there."""
        if self._heartbeat is not None:
            self.send([self._heartbeat()])

    def beat_if_connected(self) -> None:
        """Send a heartbeat if the peer is there. To be called every :data:`HEARTBEAT_INTERVAL` where a peer expects heartbeats."""
        if self._link is not None and self._link.is_connected:
            self.beat()

    def close(self) -> None:
        """Close for good; may be called twice."""
        self._is_closed = True
        if self._link is not None:
            self._link.close()
            self._link = None

    def _hand_over(self, message: M) -> None:
        if isinstance(message, Goodbye):
            logger.warning("refused by peer", extra={"peer": self._peer, "reason": message.reason})
            self._is_dismissed = True
        else:
            self._received(message)

    def _connection_ended(self) -> None:
        link, self._link = self._link, None
        refusal = link.refusal if link is not None else None
        if refusal is not None:
            log(logger, logging.ERROR, "peer is not trusted", extra={"peer": self._peer, "reason": refusal})
        self._loop.call_later(RETRY_DELAY if refusal is not None or self._is_dismissed else REOPEN_DELAY, self.open)
