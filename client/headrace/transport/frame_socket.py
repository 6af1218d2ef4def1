"""The interface of a connecting socket: frames in, frames out, who the peer is, and that the peer has gone.

:class:`~headrace.transport.unix_dealer.UnixDealer` implements it. A second transport implements the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.process.event_loop import EventLoop


class FrameSocket(Protocol):
    """One attempt to connect to one peer, and the connection that follows. It never connects a second time.

    A frame is one whole message of the layer below. To be used on one thread.
    """

    @property
    def has_peer(self) -> bool:
        """Whether there is a connection, or was one, and the peer is the right process. Before that nothing is sent or received."""

    @property
    def peer_pid(self) -> int:
        """The process that listens, as the kernel says. 0 while it is unknown."""

    @property
    def refusal(self) -> str | None:
        """Why the peer is not the right process, for example another user's. None if it was not refused."""

    def watch(self, loop: EventLoop, ready: Callable[[], None]) -> None:
        """Call ``ready`` when frames wait, or when ``is_disconnected`` may have changed.

        ``ready`` calls :meth:`receive`, and then looks at ``is_disconnected``. It is called again while more frames wait.
        """

    def unwatch(self, loop: EventLoop) -> None:
        """Undo :meth:`watch`. A call of ``ready`` may still follow."""

    def send(self, frame: bytes) -> None:
        """Queue a frame. Never blocks. The frame is kept until there is a peer, and dropped after the peer has gone."""

    def unsent(self) -> list[bytes]:
        """Return the frames that wait for a peer, and forget them. They belong to the next attempt."""

    def receive(self) -> Sequence[bytes]:
        """Return frames that wait, not necessarily all. A breach of the rules of the layer below is returned as an empty frame."""

    @property
    def is_disconnected(self) -> bool:
        """Whether the connection has ended, could not be made, or is refused. All that the peer has said was received."""

    def close(self, linger: float = 0.0) -> None:
        """Close; may be called twice. ``linger`` is how long queued frames may take to leave, in seconds."""
