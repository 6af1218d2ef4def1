"""Connects to one peer on an event loop: tries until the peer is there, and keeps what is to be sent meanwhile.

Each attempt is a new :class:`Dealer`, which looks at the directory and at the peer's process again. Used on its loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from headrace.files.trusted_directory import UntrustedDirectoryError
from headrace.process.event_loop import EventLoop
from headrace.transport.sockets import Dealer

_DELAY = 0.04
"""Seconds between two attempts: an engine that starts is waited for, and longer steps would be seen as a slower start."""
_PATIENT_DELAY = 0.2
_PATIENT_AFTER = 100
"""Attempts after which the peer is looked for less often."""
_ATTEMPT_TIMEOUT = 1.0
"""Seconds after which an attempt that ZeroMQ says nothing of is given up: it had no descriptor for it."""


class Connector:
    """One connection, from the first attempt to its end.

    ``dealer`` is the first attempt; None where there is no socket yet. ``again`` makes each further one; without
    it there is none. ``readable`` is called when input waits. ``ended`` is called once, with None when the peer went away, else with
    why it cannot be used: it is another user's, or its directory is not to be trusted.
    """

    def __init__(
        self,
        loop: EventLoop,
        dealer: Dealer | None,
        again: Callable[[], Dealer] | None,
        readable: Callable[[], None],
        ended: Callable[[str | None], None],
    ) -> None:
        self._loop = loop
        self._dealer = dealer
        self._again = again
        self._readable = readable
        self._ended = ended
        self._held: list[bytes] = []
        self._attempts = 1
        self._is_closed = False
        if dealer is None:
            loop.call_later(0.0, self._try)
        else:
            self._watch(dealer)

    @property
    def peer_pid(self) -> int:
        """The process that listens there, 0 while it is unknown; see :attr:`Dealer.peer_pid`."""
        return self._dealer.peer_pid if self._dealer is not None else 0

    def send(self, frame: bytes) -> None:
        """Send a frame, or keep it until the peer is there."""
        if self._dealer is None:
            self._held.append(frame)
        else:
            self._dealer.send(frame)

    def has_input(self) -> bool:
        """Return whether a frame waits. To be asked after each send: a send may swallow the descriptor's signal."""
        return self._dealer is not None and self._dealer.has_input()

    def receive(self) -> Iterator[bytes]:
        """Return the frames that wait."""
        return self._dealer.receive() if self._dealer is not None else iter(())

    def close(self, linger: float = 0.0) -> None:
        """Close; ``ended`` is not called any more. May be called twice. ``linger``: how long frames may take to leave, in seconds."""
        self._is_closed = True
        self._drop(linger)

    def _watch(self, dealer: Dealer) -> None:
        self._loop.add_reader(dealer.fd, self._readable)
        self._loop.add_reader(dealer.monitor_fd, self._look)
        self._loop.call_later(_ATTEMPT_TIMEOUT, partial(self._check_attempt, dealer))

    def _look(self) -> None:
        """Find out what became of the connection."""
        dealer = self._dealer
        if dealer is None:
            return
        if not dealer.is_disconnected():
            if dealer.has_input():
                self._readable()
        elif dealer.has_peer or dealer.refusal is not None:
            self._end(dealer.refusal)
        else:
            self._failed(dealer)

    def _check_attempt(self, dealer: Dealer) -> None:
        if self._dealer is dealer and not dealer.has_peer:
            self._failed(dealer)

    def _failed(self, dealer: Dealer) -> None:
        """The peer is not there: try again."""
        self._held = dealer.unsent()
        self._drop()
        if self._again is None:
            self._end(None)
        else:
            self._try_later()

    def _try_later(self) -> None:
        self._attempts += 1
        self._loop.call_later(_DELAY if self._attempts < _PATIENT_AFTER else _PATIENT_DELAY, self._try)

    def _try(self) -> None:
        if self._is_closed or self._again is None:
            return
        try:
            dealer = self._again()
        except UntrustedDirectoryError as error:
            self._end(error.strerror)
            return
        except OSError:  # there is no socket yet, or no descriptor at this moment
            self._try_later()
            return
        held, self._held = self._held, []
        for frame in held:
            dealer.send(frame)
        self._dealer = dealer
        self._watch(dealer)

    def _end(self, reason: str | None) -> None:
        if not self._is_closed:
            self._ended(reason)

    def _drop(self, linger: float = 0.0) -> None:
        dealer, self._dealer = self._dealer, None
        if dealer is not None:
            self._loop.remove_reader(dealer.fd)
            self._loop.remove_reader(dealer.monitor_fd)
            dealer.close(linger)
