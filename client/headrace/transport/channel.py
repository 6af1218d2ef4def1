"""A connection to one peer on an event loop, the reactor or asyncio's: frames in and out, its end, and its successor's beginning.

Used on its loop's thread only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec

from headrace.errors import ProtocolError
from headrace.process.callbacks import log
from headrace.process.event_loop import EventLoop
from headrace.transport.connector import Connector
from headrace.transport.sockets import Dealer
from headrace.wire.codec import FrameDecoder, encode_frame

logger = logging.getLogger(__name__)

M = TypeVar("M")

REOPEN_DELAY = 0.05
"""Seconds after which a peer that went away is looked for again."""
RETRY_DELAY = 1.0
"""Seconds after which one that refused, or for which there was no descriptor, is."""


class Channel(Generic[M]):
    """One connection, until it ends: ``received`` is called with each message, ``lost`` once when the peer has gone.

    ``again`` makes further attempts until the peer is there. Without it a peer that is not there is lost at once.
    """

    def __init__(
        self,
        dealer: Dealer | None,
        loop: EventLoop,
        epoch: int,
        decoder: FrameDecoder[M],
        received: Callable[[M], None],
        lost: Callable[[], None],
        again: Callable[[], Dealer] | None = None,
    ) -> None:
        self._loop = loop
        self._epoch = epoch
        self._decoder = decoder
        self._received = received
        self._lost = lost
        self._is_open = True
        self.is_refused = False
        """Whether it ended because the peer is not to be told anything."""
        self._connector = Connector(loop, dealer, again, self._read, self._ended)

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send one frame."""
        self._connector.send(encode_frame(self._epoch, messages))
        if self._connector.has_input():
            self._loop.call_later(0.0, self._read)

    def close(self) -> None:
        """Close; ``lost`` is not called. May be called twice."""
        if self._is_open:
            self._is_open = False
            self._connector.close()

    def _read(self) -> None:
        if not self._is_open:
            return
        for frame in self._connector.receive():
            try:
                _, messages = self._decoder.decode(frame)
            except ProtocolError as error:
                log(logger, logging.ERROR, "message cannot be read", error=error)
                continue
            for message in messages:
                self._received(message)
            if not self._is_open:
                return

    def _ended(self, reason: str | None) -> None:
        if reason is not None:
            self.is_refused = True
            log(logger, logging.ERROR, "peer is not trusted", extra={"reason": reason})
        self._read()  # what it said last
        if self._is_open:
            self.close()
            self._lost()


class StandingChannel(Generic[M]):
    """A connection to whoever is, or comes, at a place: one that went away comes back as another, which does not know us.

    ``dealer`` opens a socket; ``opened`` is called whenever there is a new connection, or the first attempt at one, and says hello.
    """

    def __init__(
        self,
        dealer: Callable[[], Dealer],
        loop: EventLoop,
        epoch: int,
        decoder: FrameDecoder[M],
        received: Callable[[M], None],
        opened: Callable[[], None],
    ) -> None:
        self._new_dealer = dealer
        self._loop = loop
        self._epoch = epoch
        self._decoder = decoder
        self._received = received
        self._opened = opened
        self._channel: Channel[M] | None = None
        self._is_closed = False
        self.reopen_delay = REOPEN_DELAY

    @property
    def is_open(self) -> bool:
        """Whether something can be sent."""
        return self._channel is not None

    def open(self) -> None:
        """Open; where there are no descriptors for it, or the directory is not to be trusted, later."""
        if self._is_closed:
            return
        dealer: Dealer | None = None
        try:
            dealer = self._new_dealer()
        except FileNotFoundError:
            pass  # further attempts are made
        except OSError as error:
            log(logger, logging.ERROR, "peer cannot be reached", error=error)
            self._loop.call_later(RETRY_DELAY, self.open)
            return
        self._channel = Channel(
            dealer, self._loop, self._epoch, self._decoder, self._received, self._lost, self._new_dealer
        )
        self._opened()

    def send(self, messages: Sequence[msgspec.Struct]) -> None:
        """Send one frame, if there is a connection."""
        if self._channel is not None:
            self._channel.send(messages)

    def close(self) -> None:
        """Close for good; may be called twice."""
        self._is_closed = True
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _lost(self) -> None:
        channel, self._channel = self._channel, None
        is_refused = channel is not None and channel.is_refused
        self._loop.call_later(RETRY_DELAY if is_refused else self.reopen_delay, self.open)
