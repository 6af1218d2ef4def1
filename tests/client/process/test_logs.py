"""Where the log of a program goes.

With handlers of its own the program gets every event, and Headrace writes nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

BEGINNING = """
import logging
from headrace.process.logs import log_in_program

logger = logging.getLogger("headrace.somewhere")

class Own(logging.Handler):
    def emit(self, record):
        print("own", record.worker)
"""


def run(program: str, **environ: str) -> tuple[str, str]:
    """Run a program, in a process of its own: pytest has log handlers everywhere. Return its standard output and its errors."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_LOG")}
    command = [sys.executable, "-c", BEGINNING + program]
    done = subprocess.run(command, env=clean | environ, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout, done.stderr


def test_a_warning_has_its_fields_where_nobody_configures_logging() -> None:
    _, said = run("""
log_in_program()
log_in_program()
logger.warning("settings file is ignored", extra={"file": "/a/headrace.toml"})
logger.info("engine started")
""")

    (line,) = said.splitlines()
    assert line.endswith("client WARNING headrace.somewhere: settings file is ignored file=/a/headrace.toml")


@pytest.mark.parametrize("name", ["", "headrace", "headrace.somewhere"])
@pytest.mark.parametrize("environ", [{}, {"HEADRACE_LOG": "DEBUG"}])
def test_handlers_of_the_program_get_the_fields_and_headrace_writes_nothing(name: str, environ: dict[str, str]) -> None:
    said = run(
        f"""
log_in_program()
logging.getLogger({name!r}).addHandler(Own())
logger.warning("worker lost", extra={{"worker": "w1"}})
""",
        **environ,
    )

    assert said == ("own w1\n", "")


def test_the_level_and_the_format_are_those_of_the_variables() -> None:
    _, said = run(
        """
log_in_program()
logger.info("engine started", extra={"pid": 5})
logger.debug("run ends")
""",
        HEADRACE_LOG="info",
        HEADRACE_LOG_FORMAT="json",
    )

    (line,) = said.splitlines()
    assert '"message": "engine started", "fields": {"pid": 5}' in line


FORGED = "2026-11-28T08:21:49.314Z supervisor CRITICAL headrace: forged"
FAILING = f"""
import sys, threading
from headrace.process.logs import log_to_stderr, logged, report_start_failure

def fail():
    raise ValueError("no\\n{FORGED}")

log_to_stderr("w1")
"""


@pytest.mark.parametrize(
    ("ending", "event"),
    [
        ("assert logged(fail) == 1", "process failed"),
        ("thread = threading.Thread(target=fail)\nthread.start()\nthread.join()", "thread failed"),
    ],
)
def test_an_exception_that_ends_an_engine_process_or_its_thread_is_one_event(ending: str, event: str) -> None:
    _, said = run(FAILING + ending)
    first, *others = said.splitlines()
    assert f"w1 CRITICAL headrace.process.logs: {event}" in first
    assert others
    assert all(line.startswith("    ") for line in others)

    _, said = run(FAILING + ending, HEADRACE_LOG_FORMAT="json")
    found = json.loads(said)
    assert (found["message"], found["process"]) == (event, "w1")
    assert found["exception"].endswith(f"ValueError: no\n{FORGED}")


def test_a_process_that_cannot_start_says_why_in_the_format_of_its_log() -> None:
    program = FAILING + 'report_start_failure("a.toml: engine.workers is -1")'

    assert run(program) == ("", "headrace: a.toml: engine.workers is -1\n")
    found = json.loads(run(program, HEADRACE_LOG_FORMAT="json")[1])
    assert (found["message"], found["fields"]) == ("process cannot start", {"reason": "a.toml: engine.workers is -1"})


def test_the_log_of_an_embedded_engine_is_text_and_only_its_copy_is_json() -> None:
    copy, log = run(FAILING + "logged(fail)", HEADRACE_LOG_FORMAT="json", HEADRACE_LOG_COPY="1")

    assert json.loads(copy)["message"] == "process failed"
    assert " w1 CRITICAL headrace.process.logs: process failed\n    Traceback" in log
