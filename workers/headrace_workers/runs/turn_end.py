"""The end of each turn of a worker's loop: a frame for each client that has something to hear, then a rest under load."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from headrace_workers.runs.frame_timing import WorkerPace
from headrace_workers.runs.live_run import ConnectedClient

logger = logging.getLogger(__name__)


class TurnEnd:
    """Sends frames with ``send`` at the end of each turn, and then rests with ``wait`` as :class:`WorkerPace` says.

    ``wait`` blocks for some seconds, and returns as soon as a client says something. The order matters: a frame that is made before
    a rest leaves before it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[ConnectedClient], None],
        wait: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._wait = wait
        self._pace = WorkerPace()
        self._due: list[ConnectedClient] = []
        self._is_ending = False

    def frame_is_due(self, client: ConnectedClient) -> None:
        """Send a frame to a client at the end of this turn. To be called once: see ``client.is_frame_due``."""
        client.is_frame_due = True
        self._due.append(client)
        if not self._is_ending:
            self._is_ending = True
            self._loop.call_soon(self._end)

    def _end(self) -> None:
        self._send_all()
        self._loop.call_soon(self._rest)  # after the loop has sent the requests of this turn to their providers

    def _rest(self) -> None:
        self._send_all()  # what the loop has read meanwhile
        self._is_ending = False
        if seconds := self._pace.rest(time.monotonic(), time.thread_time()):
            self._wait(seconds)

    def _send_all(self) -> None:
        while self._due:
            client = self._due.pop()
            client.is_frame_due = False
            try:
                self._send(client)
            except Exception:  # it is a fault of this client's messages: the frames of others leave
                logger.exception("frame cannot be sent", extra={"pid": client.pid, "runs": len(client.runs)})
