"""The client's I/O thread raises, ends, is blocked or cannot start.

Runs end with a typed error, and later runs work.
"""

from __future__ import annotations

import itertools

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.programs import run_program
from tests.repetition import only_long, repeated
from tests.waiting import busyness

pytestmark = pytest.mark.timeout(180)

ODD_PATHS = {
    "a Path": "pathlib.Path('x')",
    "bytes": "b'x'",
    "a number": "7",
    "None": "None",
    "a null character": "'a\\0b'",
    "half a surrogate pair": "'\\ud800'",
}


@pytest.mark.parametrize("odd", ["all of them", *only_long(*ODD_PATHS)])
def test_what_python_passes_over_in_its_search_path_keeps_no_engine_from_starting(
    engine: str, provider: SimulatedProvider, odd: str
) -> None:
    entries = [ODD_PATHS[odd]] if odd in ODD_PATHS else [*ODD_PATHS.values()]
    # Python's own imports stumble over some of these: a run at another engine has everything imported.
    body = f"""
import headrace.connections.embedded_engine
with Client(sys.argv[1]) as client: print(text(client))
sys.path += [{", ".join(entries)}]
print(text(Client()))
"""
    ended = run_program(body, provider, engine)

    assert ended.lines == ["whole", "whole"], ended.stderr


_CANNOT_START = """
import subprocess
popen = subprocess.Popen
raised = []

def fail(*_, **__):
    raised.append(error)
    raise error

subprocess.Popen = fail
client = Client(connect_timeout=30)
stream = said(text="whole") | {"stream": True}

async def task():
    return await client.arun_local(**said())

async def iterate():
    return [chunk async for chunk in await client.arun_local(**stream)]

for error in (OSError(24, "no files"), TypeError("odd"), RuntimeError("odd"), SystemExit(3), KeyboardInterrupt()):
    print(
        repr(error),
        outcome(lambda: text(client)),
        outcome(lambda: list(client.run_local(**stream))),
        outcome(lambda: client.run_local(**stream).result.result()),
        outcome(lambda: client.run_embedding(model="text-embedding-3-small", input="x")),
        outcome(lambda: asyncio.run(task())),
        outcome(lambda: asyncio.run(iterate())),
        type(wait([client.run_local(**stream).result]).done.pop().exception()).__name__,
        outcome(lambda: client.flush(1.0)),
        "raised" if error in raised else "not raised",
        sep=": ",
    )
subprocess.Popen = popen
print(text(client))
"""


@pytest.mark.tries(5)
def test_an_engine_whose_start_raises_ends_the_runs_that_wait_for_it(provider: SimulatedProvider) -> None:
    ended = run_program(_CANNOT_START, provider)

    *by_error, last = ended.lines
    assert len(by_error) == 5, ended.stderr
    for line in by_error:
        _, *outcomes, is_raised = line.split(": ")
        assert len(outcomes) == 8, line
        assert set(outcomes) <= {"EngineUnavailableError", "RunError"}, line
        assert is_raised == "raised", line
    assert last == "whole"
    assert ended.seconds < 20 * busyness()


_RAISES = """
import importlib
kind = {{"ValueError": ValueError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}}[sys.argv[1]]
armed = None

def make_raise(callback):
    module, owner, name = callback.split(":")
    owner = getattr(importlib.import_module(module), owner)
    original = getattr(owner, name)

    def raising(*arguments, **named):
        if armed == callback and threading.current_thread().name == "headrace-io":
            raise kind("injected")
        return original(*arguments, **named)

    setattr(owner, name, raising)

callbacks = {may_succeed}
for callback in callbacks:
    make_raise(callback)  # before there is a connection, which keeps some of them
for callback, may_succeed in callbacks.items():
    client = Client()
    lines = [callback, text(client)]
    armed = callback
    for arguments in ({{}}, {{"stream": True}}):
        def run():
            begun = client.run_local(**said(repeat=200, pace=0.001), timeout_ms=3000, **arguments)
            return "".join(begun) if arguments else begun.text
        ended = outcome(run if may_succeed else lambda: run() and "no error")
        lines.append("".join(ended.split()))
    armed = None
    print(*lines, text(client), flush=True)
"""

CALLBACKS = {
    "headrace.runs.session:Session:start": False,
    "headrace.runs.session:Session:granted": False,
    "headrace.runs.session:Session:ended": False,
    "headrace.runs.session:Session:due": True,
    "headrace.runs.reader_credit:ReaderCredit:is_due": True,
    "headrace.runs.delivery:Delivery:arrived": True,
    "headrace.runs.delivery:Delivery:ended": False,
    "headrace.connections.engine_link:EngineLink:_from_broker": False,
    "headrace.connections.engine_runs:EngineRuns:_finish": False,
    "headrace.connections.run_links:Links:flush": False,
    "headrace.connections.run_links:Links:open_worker": True,
    "headrace.connections.run_links:Links:queue": False,
}
"""What an exception is injected into, and whether runs may succeed all the same."""


KINDS = ("ValueError", "SystemExit", "KeyboardInterrupt")
INJECTIONS = repeated(
    [([*CALLBACKS][number::3], kind) for number, kind in enumerate(KINDS)],
    [([callback], kind) for callback, kind in itertools.product(CALLBACKS, KINDS)],
)
"""One kind for each place, several places in one program; with `scripts/test --long`, all of them, each alone."""


@pytest.mark.slow
@pytest.mark.parametrize(("callbacks", "kind"), INJECTIONS)
def test_whatever_a_callback_raises_ends_its_runs_and_no_other(
    engine: str, provider: SimulatedProvider, callbacks: list[str], kind: str
) -> None:
    program = _RAISES.format(may_succeed={callback: CALLBACKS[callback] for callback in callbacks})
    bound = 30.0 * len(callbacks)  # two runs of each may take 3 s
    ended = run_program(program, provider, kind, engine=engine, timeout=2 * bound)

    assert [line.split()[0] for line in ended.lines] == callbacks, ended.stderr
    for line in ended.lines:
        callback, first, *outcomes, last = line.split()
        assert (first, len(outcomes), last) == ("whole", 2, "whole"), line
        if not CALLBACKS[callback]:
            assert set(outcomes) <= {"RunError", "EngineUnavailableError", "RunTimeoutError"}, line
    assert ended.seconds < bound * busyness()


_KILLED = """
import ctypes

client = Client()
stream = client.run_local(**said(repeat=100000, pace=0.005), stream=True)
iterator = iter(stream)
next(iterator)
other = client.run_local(**said(repeat=100000, pace=0.005), stream=True).result

async def task():
    begun = asyncio.ensure_future(client.arun_local(**said(first_token_delay=600)))
    await asyncio.sleep(0.2)
    end()
    return await begun

def end():
    for thread in threading.enumerate():
        if thread.name == "headrace-io":
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object({error}))

print(outcome(lambda: asyncio.run(task())))
print(outcome(lambda: [*iterator]))
print(type(other.exception(60)).__name__)
print(text(client))
print(sum(thread.name == "headrace-io" for thread in threading.enumerate()))
"""


@pytest.mark.parametrize("error", ["SystemExit", "MemoryError"])
def test_a_thread_that_dies_ends_its_runs_and_is_replaced(engine: str, provider: SimulatedProvider, error: str) -> None:
    ended = run_program(_KILLED.format(error=error), provider, engine=engine)

    assert len(ended.lines) == 5, ended.stderr
    assert set(ended.lines[:3]) <= {"RunError", "EngineUnavailableError"}
    assert ended.lines[3:] == ["whole", "1"]


_BLOCKED = """
from headrace.runs.session import Session

client = Client()
print(text(client))
granted = Session.granted

def block(*arguments):
    time.sleep(60)
    return granted(*arguments)

Session.granted = block
begun = time.monotonic()
streams = [client.run_local(**said(text="whole"), stream=True, timeout_ms=500) for _ in range(4)]

async def task():
    return await client.arun_local(**said(text="whole"), timeout_ms=500)

async def iterate():
    return [chunk async for chunk in await client.arun_local(**said(), stream=True, timeout_ms=500)]

async def both():
    return await asyncio.gather(task(), iterate(), return_exceptions=True)

called = threading.Event()
streams[0].result.add_done_callback(lambda _: called.set())
lines = []
threads = [
    threading.Thread(target=lambda: lines.append(outcome(lambda: text(client, timeout_ms=500)))),
    threading.Thread(target=lambda: lines.append(outcome(lambda: list(streams[1])))),
    threading.Thread(target=lambda: lines.append(outcome(streams[2].result.result))),
    threading.Thread(target=lambda: lines.append(type(wait([streams[3].result]).done.pop().exception()).__name__)),
    threading.Thread(target=lambda: lines.extend(type(error).__name__ for error in asyncio.run(both()))),
]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(called.wait(60))
print(time.monotonic() - begun)
print(*lines)
begun = time.monotonic()
atexit.register(lambda: None)
"""


def test_a_blocked_thread_lets_no_run_outlive_its_total_timeout_by_more_than_five_seconds(
    engine: str,
    provider: SimulatedProvider,
) -> None:
    ended = run_program(_BLOCKED, provider, engine=repeated(engine, None))

    assert ended.lines[:2] == ["whole", "True"], ended.stderr
    assert 5.0 < float(ended.lines[2]) < 5.5 + 2.0 * busyness()
    assert ended.lines[3].split() == ["RunTimeoutError"] * 6
    assert ended.seconds < 20 * busyness()  # and its end waits for nobody


_TRACED = """
def raising(*_):
    raise ValueError("odd")

client = Client()

async def task():
    return await client.arun_local(**said())

getattr(threading, sys.argv[1])(raising)
print(outcome(lambda: text(client)))
print(outcome(lambda: asyncio.run(task())))
print(outcome(lambda: client.run_local(**said(), stream=True)))
getattr(threading, sys.argv[1])(None)
print(text(client))
"""


@pytest.mark.parametrize("hook", ["settrace", "setprofile"])
def test_a_thread_that_ends_before_it_serves_fails_the_call(
    engine: str, provider: SimulatedProvider, hook: str
) -> None:
    """What the program has each thread do first (a debugger's hook, say) raises."""
    ended = run_program(_TRACED, provider, hook, engine=engine)

    assert ended.lines == ["EngineUnavailableError"] * 3 + ["whole"], ended.stderr
