"""What the sockets promise of peers that come and go."""

from __future__ import annotations

import threading
from pathlib import Path

from headrace.sockets import Dealer, Router, new_context


def test_every_departure_is_told_once_and_of_the_peer_that_left(tmp_path: Path) -> None:
    """Descriptors are used again at once, so that an event of one connection may arrive after the next one's hello."""
    context = new_context()
    endpoint = f"ipc://{tmp_path / 's'}"
    router = Router(context, endpoint)
    stays = Dealer(context, endpoint)
    stays.send(b"stays")
    heard: dict[bytes, bytes] = {}
    departed: list[bytes] = []
    names = [str(number).encode() for number in range(100)]

    def until(condition: str) -> None:
        for _ in range(1000):
            heard.update((frame, peer) for peer, frame in router.receive())
            if condition.encode() in heard:
                return
            threading.Event().wait(0.005)
        raise AssertionError(f"nothing heard of {condition}")

    until("stays")
    for name in names:
        guest = Dealer(context, endpoint)
        guest.send(name)
        until(name.decode())
        guest.close(0.1)
        if int(name) % 3 == 0:  # so that events are behind in the others
            departed.extend(router.departed())
    for _ in range(1000):
        departed.extend(router.departed())
        if len(departed) >= len(names):
            break
        threading.Event().wait(0.005)

    assert sorted(departed) == sorted(heard[name] for name in names)
    assert router.peer(heard[b"stays"]) is not None
    stays.close()
    router.close()
    context.term()
