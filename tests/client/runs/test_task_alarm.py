"""Tasks are woken once for each event loop; those of the loop that has the turn at once, and without another thread's wake-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from headrace.runs.task_alarm import TasksToWake


class FakeTurns:
    """In place of the reactor. The test ends the turn."""

    def __init__(self) -> None:
        self.turn_loop: asyncio.AbstractEventLoop | None = None
        self.at_end: list[Callable[[], None]] = []
        self.offered: list[asyncio.AbstractEventLoop] = []

    def at_turn_end(self, action: Callable[[], None], /) -> None:
        self.at_end.append(action)

    def offer(self, loop: asyncio.AbstractEventLoop, /) -> None:
        self.offered.append(loop)

    def end(self) -> None:
        while self.at_end:
            self.at_end.pop(0)()


def test_tasks_of_the_loop_that_has_the_turn_are_woken_at_once() -> None:
    async def main() -> None:
        turns = FakeTurns()
        turns.turn_loop = loop = asyncio.get_running_loop()
        future, cancelled = loop.create_future(), loop.create_future()
        cancelled.cancel()
        to_wake = TasksToWake(turns)
        to_wake.add(future)
        to_wake.add(cancelled)
        assert future.done()
        assert (turns.at_end, turns.offered) == ([], [])

    asyncio.run(main())


def test_other_tasks_are_woken_at_the_end_of_the_turn_and_their_loop_is_offered_once() -> None:
    async def main() -> None:
        turns, loop = FakeTurns(), asyncio.get_running_loop()
        to_wake = TasksToWake(turns)
        for _ in range(2):
            futures = [loop.create_future() for _ in range(3)]
            for future in futures:
                to_wake.add(future)
            assert len(turns.at_end) == 1
            turns.end()
            assert not any(future.done() for future in futures), "the wake-up comes from another thread"
            await asyncio.gather(*futures)
        assert turns.offered == [loop, loop]

    asyncio.run(main())


def test_a_loop_that_is_closed_does_not_keep_others_waiting() -> None:
    closed = asyncio.new_event_loop()
    late = closed.create_future()
    closed.close()

    async def main() -> None:
        to_wake, future = TasksToWake(), asyncio.get_running_loop().create_future()
        to_wake.add(late)
        to_wake.add(future)
        to_wake.wake()
        await asyncio.wait_for(future, 60)

    asyncio.run(main())
