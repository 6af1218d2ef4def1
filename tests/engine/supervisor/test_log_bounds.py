"""What is promised of the log file of an embedded engine: its size is bounded, and its time says that the engine lives."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from headrace_engine.supervisor.log_bounds import LogBounds


def test_a_log_that_is_too_long_loses_its_older_lines_and_other_processes_go_on_writing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a") as log, path.open("a") as other:
        bounds = LogBounds(log, largest=1000, kept=200)
        log.write("".join(f"line {number}\n" for number in range(100)))
        log.flush()
        bounds.look(0.0)
        assert path.read_text().startswith("line 0\n"), "900 bytes are not too many"

        log.write("".join(f"line {number}\n" for number in range(100, 200)))
        log.flush()
        bounds.look(1.0)
        assert path.stat().st_size > 1000, "it looks every few seconds"
        bounds.look(6.0)
        other.write("the next\n")
        other.flush()

    lines = path.read_text().splitlines()
    assert lines[-2:] == ["line 199", "the next"]
    assert lines[:-1] == [f"line {number}" for number in range(201 - len(lines), 200)], "whole lines, without a gap"
    assert 10 < len(lines) < 30


def test_the_time_of_a_silent_log_is_set_each_minute(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("a") as log:
        bounds = LogBounds(log)
        seen = []
        for now in (0.0, 50.0, 61.0):
            os.utime(path, (0, 0))
            bounds.look(now)
            seen.append(path.stat().st_mtime > 0)

    assert seen == [True, False, True]


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_what_is_no_file_is_left_alone(stream: io.StringIO | None) -> None:
    LogBounds(stream).look(0.0)
    read, write = os.pipe()
    with open(read, "rb"), open(write, "w") as pipe:
        pipe.write("x" * 100)
        pipe.flush()
        LogBounds(pipe, largest=10).look(0.0)
