"""A history outlives its process, and holds neither prompts nor keys."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.process.history import VARIABLE, History, open_history
from headrace.wire.messages import Abort, Acquire, Chunk, Finished, Grant, Heartbeat, Hello, Run, SpanBatch
from tests.history.model import read_histories

KEY = "sk-not-to-be-seen"
PROMPT = b"not to be seen either"


def test_sent_and_received_messages_are_written_without_prompts_and_keys(tmp_path: Path) -> None:
    history = History(tmp_path / "worker-1-7.jsonl")
    run = Run("sp_1", 1, 7, PROMPT, 64, 1000, KEY)

    history.frame("received", [Hello("client", 0, 4), run, Abort("sp_1", 1)], peer=b"\x00\x01")
    history.frame("sent", [Chunk("sp_1", 1, 0, ["a", "b"]), SpanBatch(1, [PROMPT])], epoch=7)
    history.frame("sent", [Heartbeat()])

    assert PROMPT not in (written := (tmp_path / "worker-1-7.jsonl").read_bytes())
    assert KEY.encode() not in written
    (worker,) = read_histories(tmp_path)
    assert (worker.role, worker.pid, worker.epoch) == ("worker", 1, 7)
    assert [event.event for event in worker.events] == [
        "received hello",
        "received run",
        "received abort",
        "sent chunk",
    ]
    assert {event.peer for event in worker.events[:3]} == {"0001"}
    sent = worker.events[3]
    assert (sent.span_id, sent.count, sent.characters, sent.text, sent.epoch) == ("sp_1", 2, 2, "", 7)


def test_a_client_writes_the_text_that_arrives(tmp_path: Path) -> None:
    history = History(tmp_path / "client-1-2.jsonl")

    history.frame("received", [Chunk("sp_1", 1, 3, ["a", "b"])], epoch=7)

    (client,) = read_histories(tmp_path)
    assert (client.events[0].text, client.events[0].sequence) == ("ab", 3)


def test_each_line_is_kept_when_the_process_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, signal\nfrom headrace.process.history import open_history\n"
        "history = open_history('client', 5)\n"
        "for number in range(100): history.note('submit', span_id=str(number))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", program], env={**os.environ, VARIABLE: str(tmp_path)}, check=False)

    (client,) = read_histories(tmp_path)
    assert [event.span_id for event in client.events] == [str(number) for number in range(100)]


def test_nothing_is_written_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)

    assert open_history("client", 1) is None


def test_a_folder_that_cannot_be_written_to_costs_a_warning_and_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "nowhere"))

    with caplog.at_level(logging.WARNING):
        assert open_history("client", 1) is None

    assert [record.message for record in caplog.records] == ["history cannot be written"]


def test_an_incomplete_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "client-1-2.jsonl"
    history = History(path)
    history.frame("sent", [Acquire("sp_1", 1, "openai", "m")])
    history.frame("received", [Grant("sp_1", 1, "w1", "ipc:///w1", 7)])
    path.write_bytes(path.read_bytes()[:-5])

    (client,) = read_histories(tmp_path)
    assert [event.event for event in client.events] == ["sent acquire"]


def test_a_terminal_message_is_written_with_its_totals(tmp_path: Path) -> None:
    from headrace.types import Usage

    history = History(tmp_path / "client-1-2.jsonl")

    history.frame("received", [Finished("sp_1", 1, 9, 42, "stop", "stop", Usage(), [], "m")])

    assert [(e.sequence, e.characters) for e in read_histories(tmp_path)[0].events] == [(9, 42)]
