"""The end of a worker's turn: frames leave before the rest, whenever they were made, and one client's fault is not another's."""

from __future__ import annotations

import asyncio

import pytest

from headrace_workers.runs.frame_timing import INTERVAL
from headrace_workers.runs.live_run import ConnectedClient
from headrace_workers.runs.turn_end import TurnEnd


class Turns:
    """A loop that runs until it has rested so many times, and what was done in it, in order."""

    def __init__(self, rests: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.done: list[str] = []
        self.end = TurnEnd(self.loop, self._send, self._wait)
        self.clients = [ConnectedClient(name, 1) for name in (b"one", b"two")]
        self.fault = ""
        self._rests = rests

    def frame(self, number: int = 0) -> None:
        """Have a frame sent to a client."""
        client = self.clients[number]
        if not client.is_frame_due:
            self.end.frame_is_due(client)

    def run(self) -> list[str]:
        """Run the loop, with a frame in each turn, until the worker has rested."""
        self._next()
        self.loop.run_forever()
        self.loop.close()
        return self.done

    def _next(self) -> None:
        self.frame()
        self.loop.call_soon(self._next)

    def _send(self, client: ConnectedClient) -> None:
        name = client.identity.decode()
        if name == self.fault:
            raise ValueError(name)
        self.done.append(name)

    def _wait(self, seconds: float) -> None:
        assert 0 < seconds <= INTERVAL
        self.done.append("rest")
        if self.done.count("rest") == self._rests:
            self.loop.stop()


def test_no_frame_waits_for_the_end_of_a_rest() -> None:
    turns = Turns(rests=20)
    made: list[bool] = []
    wait = turns.end._wait

    def look_and_wait(seconds: float) -> None:
        made.append(any(client.is_frame_due for client in turns.clients))
        wait(seconds)

    turns.end._wait = look_and_wait
    done = turns.run()

    assert made == [False] * 20, "what was made before a rest has left"
    assert "one" in done


def test_a_frame_that_cannot_be_made_does_not_keep_another_clients(caplog: pytest.LogCaptureFixture) -> None:
    turns = Turns(rests=1)
    turns.fault = "one"
    turns.frame(0)
    turns.frame(1)

    assert "two" in turns.run()
    assert "frame cannot be sent" in caplog.text
