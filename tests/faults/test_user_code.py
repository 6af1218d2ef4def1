"""What a program's own code may do to the client.

Callbacks, log handlers, finalizers, signal handlers, several readers.
"""

from __future__ import annotations

import pytest

from headrace.testing import SimulatedProvider
from tests.faults.programs import run_program
from tests.waiting import busyness

pytestmark = pytest.mark.timeout(180)


_CALLS_BACK_IN = """
client = Client()
lines = []
done = threading.Semaphore(0)

def said_by(name, action):
    def callback(future):
        lines.append((name, outcome(action)))
        done.release()
    return callback

async def arun():
    return (await client.arun_local(**said(text="whole"))).text

def stream():
    return client.run_local(**said(text="whole", first_token_delay=0.3), stream=True)

actions = {
    "run_local": lambda: text(client),
    "iteration": lambda: "".join(stream()),
    "result": lambda: stream().result.result().text,
    "asyncio": lambda: asyncio.run(arun()),
    "embedding": lambda: client.run_embedding(model="text-embedding-3-small", input="x") and "whole",
    "flush": lambda: client.flush(5.0) and "whole",
    "its own result": lambda: future.result().text,
    "a further callback": lambda: nested() and "whole",
    "a client that is closed": lambda: closes() or "whole",
}

def nested():
    called = threading.Event()
    stream().result.add_done_callback(lambda _: called.set())
    return called.wait(60)

def closes():
    with Client() as other:
        text(other)

future = client.run_local(**said(repeat=3, pace=0.2), stream=True).result
actions["its own result"] = lambda: future.result().text and "whole"
for name, action in actions.items():
    (future if name == "its own result" else stream().result).add_done_callback(said_by(name, action))
for _ in actions:
    done.acquire(timeout=30)
print(*(f"{name}: {line}" for name, line in sorted(lines)), sep="\\n")
"""


def test_a_done_callback_may_do_whatever_the_program_may(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_CALLS_BACK_IN, provider, engine=engine)

    assert len(ended.lines) == 9, ended.stderr
    assert {line.rpartition(": ")[2] for line in ended.lines} == {"whole"}


_SLEEPS = """
client = Client()
text(client)
slow = [client.run_local(**said(repeat=3, pace=0.2), stream=True).result for _ in range(5)]
for future in slow:
    future.add_done_callback(lambda _: time.sleep(20))
wait(slow)
begun = time.monotonic()
called = threading.Event()
future = client.run_local(**said(repeat=3, pace=0.2), stream=True).result
future.add_done_callback(lambda _: called.set())
print(text(client), "".join(client.run_local(**said(text="whole"), stream=True)), called.wait(60))
print(time.monotonic() - begun)
"""


def test_a_callback_that_sleeps_holds_nobody_up(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_SLEEPS, provider, engine=engine)

    assert ended.lines[0] == "whole whole True", ended.stderr
    assert float(ended.lines[1]) < 3.0 * busyness()


_RAISES = """
client = Client()

def has_callbacks(error):
    order, called = [], threading.Event()

    def raising(_):
        order.append("raised")
        raise error

    future = client.run_local(**said(repeat=3, pace=0.2), stream=True).result
    future.add_done_callback(raising)
    future.add_done_callback(lambda _: order.append(threading.current_thread().name))
    future.add_done_callback(lambda _: called.set())
    print(future.result().text, called.wait(60), *order)
    print(text(client))
    future.add_done_callback(lambda _: print("at once, in", threading.current_thread().name))

for error in (ValueError("odd"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
    has_callbacks(error)
"""


@pytest.mark.tries(4)
def test_what_a_callback_raises_keeps_no_other_from_being_called(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_RAISES, provider, engine=engine)

    by_error = ["0 1 2  True raised headrace-callbacks", "whole", "at once, in MainThread"]
    assert ended.lines == by_error * 4, ended.stderr
    assert ended.stderr.count("callback failed") == 4
    assert ended.code == 0


_FINALIZER = """
from headrace.connections.run_links import Links
flush = Links.flush
client = Client()
text(client)
lines, is_armed = [], True

async def arun():
    return await client.arun_local(**said())

def everything():
    lines.append(outcome(lambda: text(client)))
    lines.append(outcome(lambda: list(client.run_local(**said(), stream=True))))
    lines.append(outcome(lambda: client.run_local(**said(), stream=True).result.result()))
    lines.append(outcome(lambda: asyncio.run(arun())))
    lines.append(outcome(lambda: client.run_embedding(model="text-embedding-3-small", input="x")))
    lines.append(outcome(lambda: client.flush(5.0)))
    lines.append(outcome(lambda: Client().close()))

class Garbage:
    def __del__(self):
        lines.append(threading.current_thread().name)
        begun = time.monotonic()
        everything()
        lines.append(time.monotonic() - begun)
        done.set()

def collecting(*arguments):
    global is_armed
    if is_armed:
        is_armed = False
        garbage = Garbage()
        garbage.itself = garbage
        del garbage
        gc.collect()
    return flush(*arguments)

done = threading.Event()
Links.flush = collecting
print(text(client))
done.wait(30)
print(*lines)
print(text(client))
"""


def test_a_finalizer_on_the_io_thread_that_would_wait_is_refused_at_once(
    engine: str, provider: SimulatedProvider
) -> None:
    ended = run_program(_FINALIZER, provider, engine=engine)

    assert (ended.lines[0], ended.lines[2]) == ("whole", "whole"), ended.stderr
    thread, *outcomes, seconds = ended.lines[1].split()
    assert thread == "headrace-io"
    assert set(outcomes[:6]) <= {"RunError", "EngineUnavailableError"}
    assert outcomes[6] == "None"
    assert float(seconds) < 1.0 * busyness()


_LOGS = """
import logging
from headrace.runs.session import Session
ended = Session.ended
client = Client()
text(client)

class Handler(logging.Handler):
    def emit(self, record):
        say(f"logged in {threading.current_thread().name} {outcome(lambda: text(client))}")
        logged.set()
        raise SystemExit(3)

def say(line):
    os.write(1, f"{line}\\n".encode())  # whole: two threads say something

logged = threading.Event()
logging.getLogger("headrace").addHandler(Handler())
is_armed = True

def raising(*arguments):
    global is_armed
    if is_armed:
        is_armed = False
        raise ValueError("injected")
    return ended(*arguments)

Session.ended = raising
say(outcome(lambda: text(client)))
logged.wait(30)
say(text(client))
"""


def test_a_log_handler_may_ask_for_runs_and_raise(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_LOGS, provider, engine=engine)

    assert set(ended.lines) == {"RunError", "logged in headrace-callbacks whole", "whole"}, ended.stderr


_SIGNALS = """
client = Client()
text(client)
lines = []
is_armed = True

def handler(*_):
    lines.append(outcome(lambda: text(client)))
    if is_armed:
        signal.setitimer(signal.ITIMER_REAL, 0.05)

signal.signal(signal.SIGALRM, handler)
stream = client.run_local(**said(repeat=100, pace=0.01), stream=True)
signal.setitimer(signal.ITIMER_REAL, 0.05)
whole = "".join(stream)
result = client.run_local(**said(repeat=100, pace=0.01)).text
for _ in range(50):
    lines.append(text(client))
is_armed = False
signal.setitimer(signal.ITIMER_REAL, 0)
print(whole == result == "".join(f"{number} " for number in range(100)), len(lines) > 50, set(lines) == {"whole"})
"""


def test_a_signal_handler_may_ask_for_runs_in_the_middle_of_others(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_SIGNALS, provider, engine=engine)

    assert ended.lines == ["True True True"], ended.stderr


_READERS = """
client = Client()
outcomes = []

def read(iterator):
    outcomes.append(outcome(lambda: "".join(chunk if isinstance(chunk, str) else getattr(chunk, "text", "") for chunk in iterator)))

async def aread(iterator):
    try:
        outcomes.append("".join([chunk if isinstance(chunk, str) else getattr(chunk, "text", "") async for chunk in iterator]))
    except HeadraceError as error:
        outcomes.append(type(error).__name__)

async def tasks(get):
    stream = await client.arun_local(**said(chunks=["a", "b"], first_token_delay=0.7), stream=True)
    iterator = get(stream)
    await asyncio.gather(*(aread(iterator) for _ in range(4)))
    print((await stream.result).text)

def threads(get):
    stream = client.run_local(**said(chunks=["a", "b"], first_token_delay=0.7), stream=True)
    iterator = get(stream)
    started = [threading.Thread(target=read, args=(iterator,)) for _ in range(4)]
    for thread in started: thread.start()
    for thread in started: thread.join(30)
    print(stream.result.result().text)

ways = {
    "a shared iterator": lambda: threads(iter),
    "the stream": lambda: threads(lambda stream: stream),
    "events": lambda: threads(lambda stream: stream.events()),
    "tasks, a shared iterator": lambda: asyncio.run(tasks(aiter)),
    "tasks, the stream": lambda: asyncio.run(tasks(lambda stream: stream)),
    "tasks, events": lambda: asyncio.run(tasks(lambda stream: stream.events())),
}
for name, way in ways.items():
    outcomes.clear()
    print(name)
    way()
    print(*sorted(outcomes))
"""
_WAYS = ("a shared iterator", "the stream", "events", "tasks, a shared iterator", "tasks, the stream", "tasks, events")


@pytest.mark.tries(len(_WAYS))
def test_a_second_reader_raises_and_the_first_gets_everything(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_READERS, provider, engine=engine)

    outcomes = ["ab", "StreamConsumedError StreamConsumedError StreamConsumedError ab"]
    assert ended.lines == [line for way in _WAYS for line in (way, *outcomes)], ended.stderr


_RESULT_BESIDE = """
client = Client()
stream = client.run_local(**said(repeat=300, pace=0.002), stream=True)
texts = []
threads = [threading.Thread(target=lambda: texts.append("".join(stream)))]
threads += [threading.Thread(target=lambda: texts.append(stream.result.result().text)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
print(len(texts), len(set(texts)))
"""


def test_results_are_asked_for_beside_the_one_that_iterates(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_RESULT_BESIDE, provider, engine=engine)

    assert ended.lines == ["4 1"], ended.stderr


_SLOW_LOGS = """
import logging

class Handler(logging.Handler):
    def emit(self, record):
        lines.append(threading.current_thread().name)
        logged.set()
        release.wait(100)

lines, logged, release = [], threading.Event(), threading.Event()
logging.basicConfig(level=logging.INFO, handlers=[Handler()])
try:
    print(text(Client(), timeout_ms=60000))
    print(logged.wait(30), *set(lines))
finally:
    release.set()  # logging's exit handler waits for it
"""


def test_a_log_handler_that_waits_holds_nobody_up(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_SLOW_LOGS, provider, engine=engine, timeout=150.0)

    assert ended.lines == ["whole", "True headrace-callbacks"], ended.stderr


_HELD = """
client = Client()

def holds(name):
    stream = client.run_local(**said(repeat=3, pace=0.05), stream=True)
    future, called = stream.result, threading.Event()
    future.add_done_callback(lambda _: called.set())
    lock = {
        "the run's": stream._delivery._lock,
        "the future's": future._condition,
        "the callbacks'": future._callbacks_lock,
    }[name]
    with lock:  # as a signal handler or a finalizer finds it, which runs in the middle of a call
        print(len(client.run_local(**said(repeat=15, pace=0.1), timeout_ms=20000).text.split()))
        print(text(client, timeout_ms=20000))
    print(future.result(30).text, called.wait(30), text(client))

for name in sys.argv[1:]:
    print(name)
    holds(name)
"""
_LOCKS = ("the run's", "the future's", "the callbacks'")


@pytest.mark.tries(len(_LOCKS))
def test_the_io_thread_waits_for_no_lock_whose_holder_waits_for_it(engine: str, provider: SimulatedProvider) -> None:
    ended = run_program(_HELD, provider, *_LOCKS, engine=engine)

    outcomes = ["15", "whole", "0 1 2  True whole"]
    assert ended.lines == [line for lock in _LOCKS for line in (lock, *outcomes)], ended.stderr


_STOPPED_CLOCK = """
client = Client()
print(text(client))
stream = client.run_local(**said(repeat=20, pace=0.02), stream=True)
iterator = iter(stream)
next(iterator)
for module in list(sys.modules.values()):
    for name, value in list(vars(module).items()):
        if value is time.monotonic and name != "real":
            setattr(module, name, lambda: float(sys.argv[1]))
time.monotonic = lambda: float(sys.argv[1])
print(len("".join(iterator).split()))
print(text(client), client.flush(60.0).pending)
print(outcome(lambda: text(Client("ipc:///tmp/no-engine-is-here", connect_timeout=2.0))))
future = client.run_local(**said(first_token_delay=600), stream=True).result
try:
    future.result(2.5)
except TimeoutError:
    print("in time")
"""


@pytest.mark.parametrize("moment", ["0", "1e9"])
def test_a_clock_that_the_program_has_stopped_is_not_asked(
    engine: str, provider: SimulatedProvider, moment: str
) -> None:
    """As freezegun does: it replaces ``time.monotonic``, in each module that has it."""
    ended = run_program(_STOPPED_CLOCK, provider, moment, engine=engine)

    assert ended.lines == ["whole", "19", "whole 0", "EngineUnavailableError", "in time"], ended.stderr
