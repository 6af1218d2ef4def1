"""Where a socket is bound: nothing that is there is replaced, and at the end only the socket goes."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from headrace.transport.router import Router
from headrace.transport.socket_path import ListeningSocket
from headrace.transport.unix_dealer import UnixDealer
from tests.waiting import wait_until


@pytest.fixture
def path() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="hr-"))
    yield made / "broker"
    shutil.rmtree(made)


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "directory", "pipe"])
def test_an_existing_file_is_not_replaced(path: Path, kind: str, tmp_path: Path) -> None:
    match kind:
        case "file":
            path.write_text("mine")
        case "link" | "broken link":
            path.symlink_to(tmp_path / ("" if kind == "link" else "nothing"))
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
    before = path.lstat()

    with pytest.raises(OSError, match="not the socket of an ended process"):
        Router(f"ipc://{path}")

    assert path.lstat() == before
    assert list(tmp_path.iterdir()) == []


def test_the_socket_of_a_listening_process_is_not_replaced(path: Path) -> None:
    with closing(Router(f"ipc://{path}")) as router:
        with pytest.raises(OSError, match="not the socket of an ended process"):
            Router(f"ipc://{path}")
        with closing(UnixDealer(f"ipc://{path}")) as dealer:
            dealer.send(b"for the first")
            heard: list[bytes] = []

            def is_heard() -> bool:
                dealer.receive()
                heard.extend(frame for _, frame in router.receive())
                return bool(heard)

            wait_until(is_heard)
            assert heard == [b"for the first"]


def test_the_socket_file_of_an_ended_process_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with closing(Router(f"ipc://{path}")):
        assert path.is_socket()
    assert not path.exists()


def test_another_file_at_the_sockets_path_is_not_removed(path: Path) -> None:
    router = Router(f"ipc://{path}")
    path.unlink()
    path.write_text("mine")
    router.close()
    assert path.read_text() == "mine"


def test_a_socket_is_not_renamed_over_an_existing_file(path: Path) -> None:
    place = ListeningSocket(path, 1)
    full = path.with_name("broker.full")
    full.write_text("mine")
    place.rename(full)
    assert (path.is_socket(), full.read_text()) == (True, "mine")

    full.unlink()
    place.rename(full)
    assert (path.exists(), full.is_socket()) == (False, True)

    path.write_text("mine")
    place.rename(path)
    assert (path.read_text(), full.is_socket()) == ("mine", True)

    place.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["broker"]
    place.close()
