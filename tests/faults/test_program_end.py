"""Calls from exit handlers work, or raise at once; the interpreter's end waits for nobody."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.programs import run_program
from tests.repetition import is_long, repeated
from tests.waiting import busyness

pytestmark = pytest.mark.timeout(180)

_BODY = """
address = sys.argv[1] or None

def make():
    return Client(address)

async def arun(client):
    return (await client.arun_local(**said(text="whole"))).text

async def astream(client):
    return "".join([chunk async for chunk in await client.arun_local(**said(text="whole"), stream=True)])

async def aclosing():
    async with make() as client:
        await client.aflush(1.0)
        return await arun(client)

def callback(client):
    called = threading.Event()
    client.run_local(**said(text="whole"), stream=True).result.add_done_callback(lambda _: called.set())
    return called.wait(30)

CALLS = {
    "an old client": lambda: text(client),
    "a new client": lambda: text(make()),
    "a stream": lambda: "".join(client.run_local(**said(text="whole"), stream=True)),
    "its result": lambda: client.run_local(**said(text="whole"), stream=True).result.result().text,
    "asyncio": lambda: asyncio.run(arun(client)),
    "an async stream": lambda: asyncio.run(astream(client)),
    "an async client": lambda: asyncio.run(aclosing()),
    "a callback": lambda: callback(client),
    "a flush": lambda: client.flush(1.0) and "flushed",
    "a close": lambda: client.close(),
}

client = make()

# Registered before the first run, as a program does that sets itself up and then works.
def handler(names):
    for name in names:
        print(name, outcome(CALLS[name]), flush=True)

atexit.register(handler, sys.argv[3:])
if sys.argv[2] == "second":
    print(text(client))
"""

CALLS = {
    "an old client": "whole",
    "a new client": "whole",
    "a stream": "whole",
    "its result": "whole",
    "asyncio": "whole",
    "an async stream": "whole",
    "an async client": "whole",
    "a callback": "True",
    "a flush": "flushed",
    "a close": "None",
}


WITH_OWN_ENGINE = ("an async client", "an old client", "a new client", "a close")
"""The calls whose program has an engine of its own. The first finds no loop that another call has started."""
TOGETHER = {
    "its own engine": [*WITH_OWN_ENGINE],
    "a shared engine": [call for call in CALLS if call not in WITH_OWN_ENGINE],
}
CASES = repeated([*TOGETHER.items()], [(call, [call]) for call in CALLS])
"""Calls of one program, in this order; with `scripts/test --long`, each has a program and an engine of its own."""


@pytest.mark.parametrize(("which", "calls"), CASES, ids=[name for name, _ in CASES])
def test_an_exit_handler_may_ask_for_runs(
    engine: str, provider: SimulatedProvider, which: str, calls: Sequence[str]
) -> None:
    if sys.version_info[:2] == (3, 12):  # it starts no thread in an exit handler: the callback is called after it
        calls = [call for call in calls if call != "a callback"]
    address = engine if which == "a shared engine" else ""
    ended = run_program(_BODY, provider, address, "second", *calls)

    assert ended.lines == ["whole", *(f"{call} {CALLS[call]}" for call in calls)], ended.stderr
    assert ended.code == 0, ended.stderr
    assert ended.seconds < 15 * busyness()


@pytest.mark.parametrize("call", ["an old client", "an async stream"])
def test_the_first_run_of_all_in_an_exit_handler_works_or_says_why_not(
    engine: str, provider: SimulatedProvider, call: str
) -> None:
    """From Python 3.12 on no thread can be started there."""
    address = "" if call == "an old client" or is_long() else engine
    ended = run_program(_BODY, provider, address, "first", call)

    assert ended.lines in ([f"{call} whole"], [f"{call} EngineUnavailableError"]), ended.stderr
    assert ended.code == 0
    assert ended.seconds < 15 * busyness()


def test_an_exit_handler_may_use_a_shared_engine(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_BODY, provider, engine, "second", "a new client")

    assert ended.lines == ["whole", "a new client whole"], ended.stderr


# Registered before Headrace is imported, this handler runs after Headrace's own.
_BEFORE_IMPORT = """
import atexit, time
late = []

def last():
    begun = time.monotonic()
    for call in late:
        print(outcome(call), flush=True)
    print(time.monotonic() - begun, flush=True)

atexit.register(last)
"""
_AFTER = """
client = Client()

async def arun():
    return await client.arun_local(**said())

async def aclosing():
    async with Client() as other:
        return await other.arun_local(**said())

stream = None
if sys.argv[1] == "used":
    stream = client.run_local(**said(repeat=100000, pace=0.01), stream=True)
    iterator = iter(stream)
    next(iterator)
late += [
    lambda: client.run_local(**said()),
    lambda: Client().run_local(**said()),
    lambda: client.run_local(**said(), stream=True),
    lambda: asyncio.run(arun()),
    lambda: asyncio.run(aclosing()),
]
if stream is not None:
    late += [
        lambda: stream.result.result().aborted,
        lambda: stream.abort(),
        lambda: [*iterator] and "more",
        lambda: client.close(),
    ]
"""


@pytest.mark.parametrize("use", ["used", "unused"])
def test_after_headraces_own_exit_handler_each_call_ends_at_once(provider: SimulatedProvider, use: str) -> None:
    ended = run_program(_AFTER, provider, use, before_import=_BEFORE_IMPORT)

    assert ended.code == 0, ended.stderr
    assert ended.lines[:5] == ["EngineUnavailableError"] * 5, ended.stderr
    assert ended.lines[5:-1] == (["True", "None", "[]", "None"] if use == "used" else [])
    assert float(ended.lines[-1]) < 1.0 * busyness()


_BUSY_END = """
from headrace.runs.session import Session

client = Client()
print(text(client))

def block(*_):
    time.sleep(60)

if sys.argv[1] == "blocked":
    Session.start = block
    stream = client.run_local(**said(), stream=True)
elif sys.argv[1] == "sleeping callbacks":
    future = client.run_local(**said(repeat=4, pace=0.2), stream=True).result
    for _ in range(20):
        client.run_local(**said(repeat=3, pace=0.2), stream=True).result.add_done_callback(block)
    future.result()
elif sys.argv[1] == "several engines":
    others = [Client("ipc:///tmp/nowhere-at-all-%d" % number) for number in range(5)]
    streams = [other.run_local(**said(), stream=True) for other in others]
elif sys.argv[1] == "a finalizer":
    class Last:
        def __del__(self):
            print(outcome(lambda: text(client)), flush=True)
    last = Last()
print(time.monotonic(), flush=True)
"""


WITH_SHARED_ENGINE = repeated(("sleeping callbacks", "several engines"), ())
"""The programs that have no engine of their own."""


@pytest.mark.parametrize("way", ["blocked", "sleeping callbacks", "several engines", "a finalizer"])
def test_the_end_of_a_program_takes_two_seconds_at_most(engine: str, provider: SimulatedProvider, way: str) -> None:
    before = "import atexit, time; atexit.register(lambda: print(time.monotonic(), flush=True))"
    address = engine if way in WITH_SHARED_ENGINE else None
    ended = run_program(_BUSY_END, provider, way, before_import=before, engine=address)

    assert ended.code == 0, ended.stderr
    began, over = float(ended.lines[1]), float(ended.lines[2])
    assert over - began < 2.0 * busyness()
    assert ended.seconds < 15 * busyness()
