"""A client tells nothing to a process of another user, however that came to be where an engine should be."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest

from headrace import Client, EngineUnavailableError
from headrace.connections.embedded_folders import make_folder
from headrace.connections.run_links import Links
from headrace.spans.collector_link import CollectorLink
from headrace.spans.outbox import SpanOutbox
from headrace.testing import SimulatedProvider
from headrace.transport.link import StandingLink
from headrace.transport.peer_identity import credentials
from headrace.transport.reactor import Reactor
from headrace.transport.router import Router
from headrace.transport.unix_dealer import UnixDealer
from headrace.wire.codec import encode_frame, from_broker
from headrace.wire.messages import (
    CAPABILITIES,
    PROTOCOL_MINOR,
    Acquire,
    Grant,
    Heartbeat,
    Hello,
    Run,
    SpanBatch,
    Welcome,
)
from headrace_engine.spans.report_link import ReportLink
from headrace_workers.broker_link import BrokerLink
from headrace_workers.spans.worker_collector_link import WorkerCollectorLink
from tests.conftest import HELLO, processes
from tests.repetition import is_long
from tests.strangers import STRANGER, VICTIM, StrangersChild, listening, needs_root
from tests.waiting import busyness, wait_until

pytestmark = [
    needs_root,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]

TRIES = 200
KEY = "sk-of-the-victim"
HELLO_CLIENT = Hello("client", PROTOCOL_MINOR, 1, CAPABILITIES)
FORGED = encode_frame(
    1, [Welcome(PROTOCOL_MINOR, 1, CAPABILITIES, "1", 1.0), Grant("sp_1", 1, "w1", "ipc:///nowhere", 1)]
)


@pytest.fixture(autouse=True, scope="module")
def _import_all() -> None:
    """Other users may not be able to read what is imported on first use."""
    failure(Path("/nowhere"), 0.1)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in the temporary directory of all users, open to all with the sticky bit, as that is."""
    with tempfile.TemporaryDirectory(prefix="hr-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        path = Path(folder)
        path.chmod(0o1777)
        yield path


def given(path: Path, user: int, mode: int) -> Path:
    """Make a directory of a user's."""
    path.mkdir(exist_ok=True)
    os.chown(path, user, user)
    path.chmod(mode)
    return path


@pytest.fixture
def too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every check of a directory comes too early: what it looked at is exchanged a moment later."""
    for user in ("transport.checked_connection", "connections.engine_source"):
        monkeypatch.setattr(f"headrace.{user}.directory_refusal", lambda _: None)


def failure(directory: Path, timeout: float) -> tuple[str, float]:
    """Run something on the engine in a directory; return what the run ended with, and after how many seconds."""
    began = time.monotonic()
    with Client(f"ipc://{directory}", connect_timeout=timeout) as client:
        try:
            client.run_local(model="gpt-4o", messages=HELLO, provider_api_key=KEY)
        except EngineUnavailableError as error:
            return str(error), time.monotonic() - began
    return "it was answered", time.monotonic() - began


# A client and its broker.


@pytest.mark.usefixtures("too_early")
def test_a_broker_of_another_user_is_sent_nothing_and_the_run_fails_at_once(place: Path) -> None:
    directory = given(place / "engine", STRANGER, 0o777)
    with listening(directory / "broker", directory / "collector", answer=FORGED) as heard:
        said, took = StrangersChild(VICTIM, partial(failure, directory, 30.0)).result()

    assert (
        f"no engine at ipc://{directory}: a process of user {STRANGER} serves there, not one of user {VICTIM}" in said
    )
    assert took < 10.0 * busyness()
    assert heard["connections"] > 0
    assert heard["messages"] == []


@pytest.mark.parametrize("delay", [0.0, 0.2, 1.5])
def test_a_directory_that_another_user_makes_after_the_clients_start_is_not_used(place: Path, delay: float) -> None:
    """As in the temporary directory, where everybody may make a directory of any name."""
    directory = place / f"headrace-{VICTIM}" / "engine"
    is_made = threading.Event()

    def make() -> None:
        given(directory.parent, STRANGER, 0o755)
        given(directory, STRANGER, 0o777)
        is_made.set()

    with contextlib.ExitStack() as stack:
        maker = threading.Timer(delay, make)
        victim = StrangersChild(VICTIM, partial(failure, directory, 4.0))
        maker.start()
        assert is_made.wait(30)
        heard = stack.enter_context(listening(directory / "broker"))
        said, _ = victim.result()
        maker.join()

    assert "cannot be trusted" in said or "there is no directory" in said
    assert heard["connections"] == 0
    assert heard["messages"] == []


def flips(one: Path, others: list[Path]) -> Callable[[], None]:
    """Return what puts now one, now the other in a path's place, each time it is called twice: between the two nothing is there."""
    state = {"turn": 0}

    def flip() -> None:
        turn = state["turn"] = state["turn"] + 1
        if turn % 2:
            one.rename(others[turn // 2 % 2])
        else:
            others[turn // 2 % 2].rename(one)

    return flip


def link_flips(link: Path, targets: list[Path]) -> Callable[[], None]:
    """Return what leads a symbolic link now to one directory, now to the other, with nothing between the two."""
    state = {"turn": 0}

    def flip() -> None:
        turn = state["turn"] = state["turn"] + 1
        unseen = link.with_name("unseen")
        unseen.symlink_to(targets[turn // 2 % 2])
        unseen.rename(link)

    return flip


def tries(directory: Path, count: int) -> list[str]:
    """Return how runs end that look for an engine there, one after another."""
    return sorted({failure(directory, 0.02)[0] for _ in range(count)})


def place_that_flips(parent: Path, what: str) -> tuple[Path, Callable[[], None]]:
    """Make the victim's and the stranger's in the stranger's directory; return where he listens, and what exchanges them."""
    engine = parent / "engine"
    match what:
        case "directory":
            given(engine, VICTIM, 0o700)
            strangers = given(parent / "strangers", STRANGER, 0o777)
            return strangers / "broker", flips(engine, [parent / "victims", strangers])
        case "link":
            targets = [given(parent / "victims", VICTIM, 0o700), given(parent / "strangers", STRANGER, 0o777)]
            return targets[1] / "broker", link_flips(engine, targets)
        case _:
            given(engine, STRANGER, 0o777)
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(engine / "broker"))
            os.chown(engine / "broker", VICTIM, VICTIM)
            return engine / "strangers", flips(engine / "broker", [engine / "victims", engine / "strangers"])


@pytest.mark.parametrize("what", ["directory", "link", "socket"])
@pytest.mark.parametrize("is_too_early", [False, True], ids=["checked", "checked too early"])
def test_a_directory_that_flips_never_gets_a_byte_of_a_request(
    place: Path, is_too_early: bool, what: str, request: pytest.FixtureRequest
) -> None:
    if is_too_early:
        request.getfixturevalue("too_early")
    parent = given(place / "parent", STRANGER, 0o777)
    listens_at, flip = place_that_flips(parent, what)
    count = TRIES if what == "directory" or is_long() else TRIES // 4
    with listening(listens_at, each_turn=flip) as heard:
        victims = [StrangersChild(VICTIM, partial(tries, parent / "engine", count // 4)) for _ in range(4)]
        ends = {end for victim in victims for end in victim.result()}

    assert heard["messages"] == []
    assert "it was answered" not in ends
    if is_too_early:
        assert heard["connections"] > count // 20
        assert any(f"a process of user {STRANGER} serves there" in end for end in ends)
    else:
        assert heard["connections"] == 0
        assert all(f"{parent} belongs to user {STRANGER}" in end for end in ends), ends


@pytest.mark.usefixtures("too_early")
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_socket_that_another_user_has_made_is_told_nothing_whoever_listens_there(
    place: Path, is_removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells who called `listen`: here a process of the victim's that was handed the socket. The stranger has it too."""
    directory = given(place / "engine", STRANGER, 0o777)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "broker"))
        os.chown(directory / "broker", STRANGER, STRANGER)
        (directory / "broker").chmod(0o777)
        StrangersChild(VICTIM, partial(listener.listen, 64)).result()

        def look_and_lose(connection: socket.socket) -> tuple[int | None, int | None]:
            (directory / "broker").unlink(missing_ok=True)
            return credentials(connection)

        if is_removed:
            monkeypatch.setattr("headrace.transport.checked_connection.credentials", look_and_lose)
        with listening(directory / "broker", answer=FORGED, listener=listener) as heard:
            said, _ = StrangersChild(VICTIM, partial(failure, directory, 2.0 if is_removed else 30.0)).result()

    assert heard["connections"] > 0
    assert heard["messages"] == []
    assert (f"user {STRANGER} has made the socket {directory / 'broker'}" in said) == (not is_removed)
    assert "it was answered" not in said


@pytest.mark.parametrize("is_too_early", [False, True], ids=["checked", "checked too early"])
def test_root_tells_another_users_engine_nothing(
    place: Path, is_too_early: bool, request: pytest.FixtureRequest
) -> None:
    """Its keys and prompts would be that user's."""
    if is_too_early:
        request.getfixturevalue("too_early")
    directory = given(place / "engine", STRANGER, 0o700)
    with listening(directory / "broker", answer=FORGED) as heard:
        said, _ = failure(directory, 5.0)

    assert heard["messages"] == []
    wanted = f"a process of user {STRANGER} serves there" if is_too_early else f"belongs to user {STRANGER}, not to 0"
    assert wanted in said


def test_roots_engine_is_not_another_users_to_use(place: Path) -> None:
    directory = given(place / "engine", 0, 0o700)

    said, _ = StrangersChild(VICTIM, partial(failure, directory, 5.0)).result()

    assert f"{directory} belongs to user 0, not to {VICTIM}" in said


# A program and its own engine.


@pytest.fixture
def stolen(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of a stranger's, without the sticky bit; where another may be used, it is ``place``."""
    directory = given(place / "strangers", STRANGER, 0o777)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return directory


def has_engine(parent: Path) -> bool:
    """Return whether an engine runs in a folder below ``parent``."""
    return any("-m headrace_" in line and f"{parent}/" in line for _, _, line in processes())


def exchanges(directory: Path) -> Callable[[], None]:
    """Return what puts the stranger's own in the place of the first folder that somebody makes."""

    def exchange() -> None:
        for folder in directory.glob("headrace-*"):
            if (directory / "trap").exists():
                folder.rename(directory / "away")
                (directory / "trap").rename(folder)

    return exchange


@pytest.mark.usefixtures("_without_engine")
def test_an_engine_of_ones_own_is_not_made_in_a_strangers_directory(
    place: Path, stolen: Path, provider: SimulatedProvider
) -> None:
    trap = given(stolen / "trap", STRANGER, 0o777)
    with listening(trap / "broker", each_turn=exchanges(stolen)) as heard, Client() as client:
        assert client.run_local(model="gpt-4o", messages=HELLO).text
        assert list(place.glob("headrace-*")), "it is in the next place"

    assert heard["connections"] == 0
    assert trap.exists()


@pytest.mark.usefixtures("too_early", "_without_engine")
def test_the_folder_of_an_engine_that_is_renamed_gets_nothing(
    stolen: Path, provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = given(stolen / "trap", STRANGER, 0o777)

    def make_and_lose() -> Path:
        folder = Path(tempfile.mkdtemp(prefix="headrace-", dir=stolen))
        wait_until((stolen / "away").exists, 10.0, "an exchange")
        return folder

    monkeypatch.setattr("headrace.connections.embedded_engine.make_folder", make_and_lose)
    with listening(trap / "broker", trap / "collector", each_turn=exchanges(stolen)) as heard, Client() as client:
        with pytest.raises(EngineUnavailableError) as caught:
            client.run_local(model="gpt-4o", messages=HELLO, provider_api_key=KEY)
        # The engine ends by itself: it looks at its directory too.
        wait_until(lambda: not has_engine(stolen), 30.0, "the end of the engine")

    assert f"user {STRANGER}" in str(caught.value)
    assert heard["connections"] > 0
    assert heard["messages"] == []


@pytest.mark.parametrize("fault", ["owner", "mode", "link"])
def test_the_folder_of_an_engine_is_made_where_nobody_else_can_exchange_it(
    place: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the state directory where there is no other place."""
    unsafe = given(place / "unsafe", STRANGER if fault == "owner" else 0, 0o777 if fault == "mode" else 0o755)
    if fault == "link":
        (place / "link").symlink_to(given(place / "own", 0, 0o700))
        os.chown(place / "link", STRANGER, STRANGER, follow_symlinks=False)
        unsafe = place / "link"
    monkeypatch.setattr("headrace.connections.embedded_folders._parents", lambda: iter([str(unsafe)]))
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))

    assert make_folder().parent == place / "state" / "headrace" / "run"
    assert not list(unsafe.glob("headrace-*"))

    monkeypatch.setenv("XDG_STATE_HOME", str(unsafe))
    with pytest.raises(EngineUnavailableError, match=f"{unsafe}.*set TMPDIR to another"):
        make_folder()


# Each kind of link.

KINDS: dict[str, Callable[[Reactor, str, list[object]], object]] = {}


def kind(name: str) -> Callable[[Callable[[Reactor, str, list[object]], object]], None]:
    """Have a kind of link tested: it is opened, says hello, and keeps what it hears."""

    def note(make: Callable[[Reactor, str, list[object]], object]) -> None:
        KINDS[name] = make

    return note


@kind("client to broker")
def _(reactor: Reactor, endpoint: str, heard: list[object]) -> object:
    links = Links(reactor, 1)
    link = links.open_broker(endpoint, lambda _, message: heard.append(message), links.close, heard.append)
    links.queue(link, Acquire("sp_1", 1, "openai", "gpt-4o"))
    links.flush()
    return links


@kind("client to worker")
def _(reactor: Reactor, endpoint: str, heard: list[object]) -> object:
    links = Links(reactor, 1)
    grant = Grant("sp_1", 1, "w1", endpoint, 1)
    link = links.open_worker(
        grant, lambda _, message: heard.append(message), links.close, lambda _, error: heard.append(error)
    )
    links.queue(link, Run("sp_1", 1, 1, b"the prompt", 64, 65536, KEY))
    links.flush()
    return links


def _open_collector_link(role: Literal["client", "broker"], reactor: Reactor, endpoint: str, _: list[object]) -> object:
    outbox = SpanOutbox(10, 10_000)
    link = CollectorLink(reactor, UnixDealer, lambda: endpoint, role, 1, outbox)
    link.pass_on([b"a span"])
    return link


kind("client to collector")(partial(_open_collector_link, "client"))
kind("broker to collector")(partial(_open_collector_link, "broker"))


@kind("worker to broker")
def _(reactor: Reactor, endpoint: str, heard: list[object]) -> object:
    link = BrokerLink(endpoint, lambda: HELLO_CLIENT, Heartbeat, list, 1, reactor, {})
    link.open()
    link.beat()
    return link


class _Listener:
    def __init__(self, heard: list[object]) -> None:
        self.link_opened: Callable[[], None] = lambda: None
        self.acknowledged = self.flush_asked = heard.append


@kind("worker to collector")
def _(reactor: Reactor, endpoint: str, heard: list[object]) -> object:
    link = WorkerCollectorLink(endpoint, lambda: HELLO_CLIENT, 1, reactor, _Listener(heard))
    link.open()
    link.send([SpanBatch(1, [b"a span"])])
    return link


@kind("collector to broker")
def _(reactor: Reactor, endpoint: str, _: list[object]) -> object:
    link = ReportLink(reactor, endpoint, 1)
    link.open()
    return link


@kind("supervisor to broker")
def _(reactor: Reactor, endpoint: str, heard: list[object]) -> object:
    dial = partial(UnixDealer, endpoint)
    link = StandingLink("broker", reactor, dial, lambda: HELLO_CLIENT, 1, from_broker, heard.append)
    link.open()
    return link


def turn_for(reactor: Reactor, seconds: float, is_so: Callable[[], object] = lambda: False) -> None:
    """Serve a loop for a while, longer on a busy machine, or until something is so."""
    end = time.monotonic() + seconds * busyness()
    while time.monotonic() < end and not is_so():
        reactor.call_later(0.01, lambda: None)
        reactor.turn()


def open_link(name: str, endpoint: str, seconds: float = 0.3) -> list[str]:
    reactor, heard = Reactor(), list[object]()
    kept = KINDS[name](reactor, endpoint, heard)
    turn_for(reactor, seconds)
    del kept
    return [repr(message) for message in heard]


@pytest.mark.usefixtures("too_early")
@pytest.mark.parametrize("name", KINDS)
def test_a_link_to_another_users_process_says_and_believes_nothing(place: Path, name: str) -> None:
    directory = given(place / "engine", STRANGER, 0o777)
    with listening(directory / "peer", answer=FORGED) as heard:
        believed = StrangersChild(VICTIM, partial(open_link, name, f"ipc://{directory / 'peer'}")).result()

    assert heard["connections"] > 0
    assert heard["messages"] == []
    assert believed == []


def test_a_link_into_an_unsafe_directory_is_not_even_tried(place: Path) -> None:
    """The same for each kind: the directory is looked at whenever one is opened."""
    directory = given(place / "engine", STRANGER, 0o777)

    def attempt() -> list[str]:
        ends = []
        for name in KINDS:
            try:
                open_link(name, f"ipc://{directory / 'peer'}", 0.05)
            except EngineUnavailableError as error:
                ends.append(error.reason)
        return ends

    with listening(directory / "peer", answer=FORGED) as heard:
        ends = StrangersChild(VICTIM, attempt).result()

    assert heard["connections"] == 0
    assert ends == [f"{directory} belongs to user {STRANGER}, not to {VICTIM}"] * 2, "those that somebody waits for"


@pytest.mark.usefixtures("too_early")
def test_who_takes_a_place_between_two_connections_is_told_nothing(place: Path) -> None:
    """Here a stranger puts a socket where the victim's broker was, which a link knows and looks for."""
    directory = given(place / "engine", STRANGER, 0o777)

    def take() -> None:
        if (directory / "go").exists() and (directory / "taken").exists():
            (directory / "taken").rename(directory / "broker")

    def know_another_before() -> int:
        reactor = Reactor()
        router = Router(f"ipc://{directory / 'broker'}")
        known: list[bytes] = []

        def hear() -> None:
            known.extend(frame for _, frame in router.receive())

        reactor.add_reader(router.fd, hear)
        dial = partial(UnixDealer, f"ipc://{directory / 'broker'}")
        link = StandingLink("broker", reactor, dial, lambda: HELLO_CLIENT, 1, from_broker, lambda _: None)
        link.open()
        turn_for(reactor, 10.0, lambda: known)
        reactor.remove_reader(router.fd)
        (directory / "go").touch()
        turn_for(reactor, 10.0, lambda: not (directory / "taken").exists())
        router.close()
        turn_for(reactor, 0.5)
        link.send([Heartbeat()])
        turn_for(reactor, 0.1)
        return len(known)

    with listening(directory / "taken", each_turn=take) as heard:
        assert StrangersChild(VICTIM, know_another_before).result() == 1

    assert heard["connections"] > 0
    assert heard["messages"] == []
