"""What the inbox promises: each peer's messages in order, and no peer behind all of another's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.transport.inbox import SLICE, Inbox

ANN, BOB = b"ann", b"bob"


def test_a_message_waits_for_one_turn_of_another_peer_at_most() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(ANN, 1, list(range(100_000)))
    assert len(list(inbox.take(500))) >= 500
    inbox.put(BOB, 2, [7])

    handled = [each[:3] for each in inbox.take(2 * SLICE)]
    assert (BOB, 2, 7) in handled
    assert handled.index((BOB, 2, 7)) <= SLICE


def test_take_yields_at_most_the_limit_and_the_rest_of_a_slice() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(ANN, 1, list(range(1000)))
    inbox.put(BOB, 1, list(range(1000)))

    assert list(inbox.take(0)) == []
    assert len(list(inbox.take(1))) == SLICE
    assert len(list(inbox.take(SLICE))) == SLICE
    assert len(list(inbox.take(SLICE + 1))) == 2 * SLICE
    assert len(list(inbox.take(10_000))) == 2000 - 4 * SLICE


def test_a_slice_is_32_messages() -> None:
    assert SLICE == 32


def test_the_messages_of_a_dropped_peer_are_not_handled() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(ANN, 1, [1, 2, 3])
    inbox.put(BOB, 1, [4])

    handled = []
    for peer, _, message, _ in inbox.take(10):
        handled.append(message)
        if peer == ANN:
            inbox.drop(ANN)

    assert handled == [1, 4]
    assert not inbox


@given(
    st.lists(st.tuples(st.sampled_from([ANN, BOB, b"cyd"]), st.integers(0, 100)), max_size=20),
    st.integers(1, 200),
)
def test_each_message_is_handled_once_and_in_order(frames: list[tuple[bytes, int]], limit: int) -> None:
    inbox: Inbox[int] = Inbox()
    expected: dict[bytes, list[int]] = {}
    handled: dict[bytes, list[int]] = {}
    number = 0
    for peer, size in frames:
        messages = list(range(number, number + size))
        number += size
        inbox.put(peer, 1, messages)
        expected.setdefault(peer, []).extend(messages)
        for who, _, message, _ in inbox.take(limit // 10):
            handled.setdefault(who, []).append(message)
    while inbox:
        for who, _, message, _ in inbox.take(limit):
            handled.setdefault(who, []).append(message)

    assert handled == {peer: messages for peer, messages in expected.items() if messages}


def test_a_process_with_many_waiting_bytes_is_busy_until_some_are_handled() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(100):  # by however many connections
        inbox.put(b"%d" % number, 1, list(range(10)), process=7, size=11_000)
    inbox.put(BOB, 1, [1], process=8, size=100)
    assert inbox.busy == {7}

    list(inbox.take(500))
    assert inbox.busy == set()
    for number in range(100):
        inbox.put(b"%d" % number, 1, [1], process=7, size=11_000)
    for number in range(100):
        inbox.drop(b"%d" % number)
    assert inbox.busy == set()


def test_many_connections_of_one_process_get_no_more_turns_than_one() -> None:
    inbox: Inbox[int] = Inbox()
    for number in range(1000):
        inbox.put(b"%d" % number, 1, list(range(100)), process=7)
    inbox.put(BOB, 1, [1], process=8)

    handled = [peer for peer, _, _, _ in inbox.take(3 * SLICE)]
    assert handled.index(BOB) <= SLICE
