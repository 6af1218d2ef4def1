"""Where the log of a program goes.

With handlers of its own the program gets every event, and Headrace writes nothing.
"""

from __future__ import annotations

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
