"""The caller's event loop as the guest of the Reactor: who has the turns, a blocked or closed guest, exceptions of signal handlers, forks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import uvloop

from headrace.process.callbacks import is_io_thread, mark_io_thread, note_interrupt
from headrace.transport.guest_loop import GUEST_CHECK, Offers
from headrace.transport.reactor import Reactor

LONG = 10.0
LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.fixture
def reactor() -> Iterator[Reactor]:
    """Return a reactor whose thread runs."""
    made = Reactor()

    def serve() -> None:
        mark_io_thread()
        made.run()

    thread = threading.Thread(target=serve)
    thread.start()
    yield made
    made.stop()
    thread.join(LONG)
    assert not thread.is_alive()


class Pipe:
    """A pipe that the reactor reads. Notes which thread has read each byte, and that no two threads read at once."""

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.read_fd, False)
        self.got = b""
        self.threads: list[int] = []
        self.waiting: asyncio.Future[None] | None = None
        self.is_reading = False
        self.has_clashed = False
        self.action: Callable[[], None] = lambda: None
        reactor.call(partial(reactor.add_reader, self.read_fd, self.read))

    def read(self) -> None:
        self.has_clashed = self.has_clashed or self.is_reading
        self.is_reading = True
        assert is_io_thread()
        with contextlib.suppress(BlockingIOError):
            data = os.read(self.read_fd, 1000)
            self.got += data
            self.threads += [threading.get_ident()] * len(data)
        self.is_reading = False
        self.action()
        if (waiting := self.waiting) is not None and not waiting.done():
            waiting.get_loop().call_soon_threadsafe(_resolve, waiting)

    def write(self, data: bytes) -> None:
        os.write(self.write_fd, data)

    async def until(self, count: int) -> None:
        """Wait, as a reader of a stream does, until so many bytes have come."""
        loop = asyncio.get_running_loop()
        while len(self.got) < count:
            self.waiting = loop.create_future()
            if len(self.got) < count:
                self.reactor.offer(loop)
                await self.waiting

    async def exchange(self, byte: bytes) -> None:
        """Write a byte, and wait until it was read."""
        count = len(self.got) + 1
        self.write(byte)
        await self.until(count)

    def wait(self, count: int) -> None:
        """Wait, in a thread, until so many bytes have come."""
        until = time.monotonic() + LONG
        while len(self.got) < count:
            assert time.monotonic() < until, f"only {len(self.got)} of {count} bytes came"
            time.sleep(0.001)

    def close(self) -> None:
        done = threading.Event()
        self.reactor.call(partial(self.reactor.remove_reader, self.read_fd))
        self.reactor.call(done.set)
        assert done.wait(LONG)
        os.close(self.read_fd)
        os.close(self.write_fd)


def _note_and_resolve(ran: list[int], future: asyncio.Future[None]) -> None:
    ran.append(threading.get_ident())
    future.get_loop().call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@pytest.fixture
def pipe(reactor: Reactor) -> Iterator[Pipe]:
    """Return a pipe that the reactor reads."""
    made = Pipe(reactor)
    yield made
    made.close()


async def become_guest(pipe: Pipe) -> None:
    """Read byte by byte until the loop of this task reads them itself."""
    own, until = threading.get_ident(), time.monotonic() + LONG
    while pipe.threads[-3:] != [own] * 3:
        assert time.monotonic() < until, "the loop has not become the guest"
        await pipe.exchange(b"x")


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_loop_whose_tasks_wait_often_reads_itself(
    pipe: Pipe, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(become_guest(pipe))


def test_a_loop_whose_tasks_wait_seldom_does_not_read() -> None:
    now = 0.0

    def clock() -> float:
        return now

    offers = Offers()
    for _ in range(100):
        now += 0.05
        assert not offers.is_enough(clock)
    for _ in range(7):
        assert not offers.is_enough(clock)
    assert any(offers.is_enough(clock) for _ in range(8))
    offers.pause(now)
    assert not any(offers.is_enough(clock) for _ in range(100))


@pytest.mark.parametrize("new_loop", LOOPS)
def test_while_the_guest_is_blocked_the_reactors_thread_reads(
    pipe: Pipe, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def block() -> None:
        await become_guest(pipe)
        before = len(pipe.got)
        pipe.write(b"while blocked")
        pipe.wait(before + 13)  # blocks the loop
        assert threading.get_ident() not in pipe.threads[before:]
        await become_guest(pipe)  # and later it reads again

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(block())


def run_in_new_loop(pipe: Pipe, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(become_guest(pipe))


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_guest_whose_loop_is_closed_is_replaced(
    reactor: Reactor, pipe: Pipe, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run_in_new_loop(pipe, new_loop)
        count = len(pipe.got)
        pipe.write(b"later")
        pipe.wait(count + 5)
        called = threading.Event()
        reactor.call(called.set)
        assert called.wait(LONG)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1, "a closed loop has left its descriptor"


def test_a_closed_guest_is_replaced_also_while_timers_and_calls_keep_the_reactor_busy(
    reactor: Reactor, pipe: Pipe
) -> None:
    is_over = threading.Event()

    def again() -> None:
        if not is_over.is_set():
            reactor.call_later(0.01, again)

    def call_on() -> None:
        while not is_over.wait(0.003):
            reactor.call(lambda: None)

    reactor.call(again)
    caller = threading.Thread(target=call_on)
    caller.start()
    try:
        for _ in range(3):
            run_in_new_loop(pipe, asyncio.new_event_loop)
            count = len(pipe.got)
            pipe.write(b"later")
            pipe.wait(count + 5)
    finally:
        is_over.set()
        caller.join()


def test_calls_of_other_threads_do_not_wait_for_a_blocked_guest(reactor: Reactor, pipe: Pipe) -> None:
    async def block() -> None:
        await become_guest(pipe)
        called = threading.Event()
        other = threading.Thread(target=reactor.call, args=(called.set,))
        other.start()
        assert called.wait(LONG)
        other.join()
        called.clear()
        reactor.call_now(called.set)  # in the guest's own thread
        assert called.wait(LONG)
        called.clear()
        reactor.call(called.set)  # the guest would run it next, and is blocked
        assert called.wait(LONG)

    asyncio.run(block())


def test_calls_of_the_guests_thread_run_in_it(reactor: Reactor, pipe: Pipe) -> None:
    async def call() -> None:
        await become_guest(pipe)
        ran: list[int] = []
        for _ in range(20):
            called = asyncio.get_running_loop().create_future()
            reactor.call(partial(_note_and_resolve, ran, called))
            await asyncio.wait_for(asyncio.shield(called), LONG)
            await pipe.exchange(b"x")
        assert ran.count(threading.get_ident()) > 10

    asyncio.run(call())


def test_timers_run_while_there_is_a_guest(reactor: Reactor, pipe: Pipe) -> None:
    async def wait() -> None:
        await become_guest(pipe)
        due = threading.Event()
        reactor.call(partial(reactor.call_later, 0.001, due.set))
        await asyncio.to_thread(due.wait, LONG)
        assert due.is_set()
        await become_guest(pipe)
        later = asyncio.get_running_loop().create_future()
        reactor.call(partial(reactor.call_later, 0.02, partial(_note_and_resolve, [], later)))
        await asyncio.wait_for(later, LONG)

    asyncio.run(wait())


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("is_caught", [False, True], ids=["outside of a guard", "caught by a guard"])
def test_what_a_signal_handler_raises_reaches_the_program(
    pipe: Pipe, error: type[BaseException], *, is_caught: bool
) -> None:
    own = threading.get_ident()

    def raise_once() -> None:
        if threading.get_ident() != own or pipe.got[-1:] != b"!":
            return
        pipe.action = lambda: None
        if is_caught:
            note_interrupt(error())
        else:
            raise error

    async def interrupted() -> None:
        await become_guest(pipe)
        pipe.action = raise_once
        while True:
            await pipe.exchange(b"!")

    with asyncio.Runner() as runner:
        with pytest.raises(error):
            runner.run(interrupted())
        runner.run(become_guest(pipe))  # the reactor goes on


@pytest.mark.parametrize("is_at_turn_end", [False, True])
def test_a_call_that_a_signal_handler_has_interrupted_runs_again(
    reactor: Reactor, pipe: Pipe, *, is_at_turn_end: bool
) -> None:
    own = threading.get_ident()
    ran: list[int] = []

    def interrupted_once() -> None:
        ran.append(threading.get_ident())
        if ran == [own]:
            raise KeyboardInterrupt

    action = partial(reactor.at_turn_end, interrupted_once) if is_at_turn_end else interrupted_once

    async def call() -> None:
        while not ran:
            await become_guest(pipe)
            reactor.call(action)
            await asyncio.sleep(0)

    with asyncio.Runner() as runner, contextlib.suppress(KeyboardInterrupt):
        runner.run(call())
    until = time.monotonic() + LONG
    while len(ran) < 2 and ran[0] == own:
        assert time.monotonic() < until
        reactor.call(lambda: None)  # the next turn
        time.sleep(0.001)


def test_a_loop_that_cannot_watch_descriptors_is_no_guest(reactor: Reactor, pipe: Pipe) -> None:
    class Proactor(asyncio.SelectorEventLoop):
        def add_reader(self, fd: object, callback: Callable[..., object], *args: object) -> None:
            if getattr(fd, "fileno", None) is None and self._has_begun:
                raise NotImplementedError
            super().add_reader(fd, callback, *args)  # type: ignore[arg-type]

        _has_begun = False

    async def read() -> None:
        Proactor._has_begun = True
        for _ in range(50):
            await pipe.exchange(b"x")
        assert threading.get_ident() not in pipe.threads

    with asyncio.Runner(loop_factory=Proactor) as runner:
        runner.run(read())


def test_a_forked_child_leaves_the_reactor_alone(pipe: Pipe) -> None:
    async def fork() -> None:
        await become_guest(pipe)
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
        await become_guest(pipe)

    asyncio.run(fork())


def test_many_loops_and_threads_lose_nothing(reactor: Reactor) -> None:
    """Four loops read pipes, block now and then, end and begin anew. Threads call. One turn at a time, all in order."""
    drawn = random.Random(16)
    pipes = [Pipe(reactor) for _ in range(4)]
    calls: list[int] = []
    sent = [b""] * len(pipes)

    def serve(number: int, seed: int) -> None:
        own, pipe = random.Random(seed), pipes[number]

        async def read() -> None:
            for _ in range(60):
                data = bytes([own.randrange(256)]) * own.randrange(1, 4)
                sent[number] += data
                pipe.write(data)
                if own.random() < 0.02:
                    time.sleep(1.5 * GUEST_CHECK)  # noqa: ASYNC251 - a program that blocks its loop
                await pipe.until(len(sent[number]))
                reactor.call(partial(calls.append, number))

        for _ in range(3):
            asyncio.run(read())

    threads = [threading.Thread(target=serve, args=(number, drawn.random())) for number in range(len(pipes))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(6 * LONG)
        assert not thread.is_alive()
    done = threading.Event()
    reactor.call(done.set)
    assert done.wait(LONG)
    for pipe, data in zip(pipes, sent, strict=True):
        assert pipe.got == data
        assert not pipe.has_clashed
        pipe.close()
    assert len(calls) == 4 * 3 * 60
