"""The simulated provider accepts many connections in one turn of its event loop: streams that begin at one moment do not wait for each other."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from headrace.testing.server import Listener

CONNECTIONS = 200


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_connections_that_wait_are_accepted_in_a_few_turns(new_loop: type[asyncio.AbstractEventLoop]) -> None:
    made: list[asyncio.Protocol] = []
    all_made = asyncio.Event()

    class Counted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(self)
            if len(made) == CONNECTIONS:
                all_made.set()
            transport.close()

    async def turns() -> int:
        listener = Listener("127.0.0.1", 0, Counted)
        await listener.open()
        clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(CONNECTIONS)]
        count = 0
        while not all_made.is_set():
            count += 1
            await asyncio.sleep(0)
        for client in clients:
            client.close()
        await listener.close()
        return count

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(turns()) < CONNECTIONS // 8
