"""Makes docs/images/batch.svg: a picture of the display of ``headrace batch``, captured from a terminal while a job runs.

Run ``.venv/bin/python docs/display_capture.py``. The job is real; its provider is the simulated one, with a limit of requests. The
last frame that the terminal showed at ``SHARE`` is drawn by rich.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from headrace.testing import Script, SimulatedProvider

PICTURE = Path(__file__).parent / "images" / "batch.svg"
COMMAND = ("headrace", "batch", "requests.jsonl", "-o", "results.jsonl")
ROWS = 6_000
SHARE = 60
"""Percent of the rows that have ended at least when the picture is taken."""
COLUMNS, LINES = 100, 30
TEXT = "It came on time, it works, and the colour is the one in the picture. I would buy it again."
WORSE = Script(status=400, error_message="The prompt was refused", error_code="content_policy_violation")
LIMIT = 12_000
"""Requests a minute that the provider takes."""
SCRIPT = Script(text="The customer is content with the product, its colour and its delivery.", first_token_delay=0.4)

_REDRAWN = re.compile(r"\r?(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)+")
"""What rich writes to take away the last frame."""
_ENDED = re.compile(r" rows, (\d+) %")
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Pages that show the picture load no fonts from other places."""


def rows() -> Iterator[str]:
    """Yield the lines of the input."""
    for number in range(1, ROWS + 1):
        prompt = f"Summarise this review in one sentence: {TEXT} (review {number})"
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": prompt}]}
        if number % 500 == 0:
            body["simulate"] = {
                "status": WORSE.status,
                "error_message": WORSE.error_message,
                "error_code": WORSE.error_code,
            }
        line = {"custom_id": f"review-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps(line) + ("," if number == ROWS // 3 else "")


def frame(directory: Path, environment: dict[str, str]) -> str:
    """Run the job on a terminal of its own, and return what it showed at ``SHARE``."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    command = [str(Path(sys.prefix, "bin", COMMAND[0])), *COMMAND[1:]]
    job = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=environment)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # Linux raises this when the job has closed its side
        while piece := os.read(ours, 65_536):
            shown += piece.decode()
            # The last piece may not be whole.
            frames = _REDRAWN.split(shown)[:-1]
            if frames and (share := _ENDED.search(frames[-1])) is not None and int(share[1]) >= SHARE:
                shown = frames[-1]
                break
            shown = shown[-20_000:]
    job.send_signal(signal.SIGINT)
    job.send_signal(signal.SIGINT)
    job.wait()
    os.close(ours)
    return shown


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as place, SimulatedProvider(SCRIPT, process=True) as provider:
        provider.limit(requests_per_minute=LIMIT)
        directory = Path(place)
        (directory / "requests.jsonl").write_text("\n".join(rows()) + "\n")
        environment = os.environ | provider.environment | {"TERM": "xterm-256color", "XDG_STATE_HOME": place}
        shown = frame(directory, environment)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {' '.join(COMMAND)}"))
    console.print(Text.from_ansi(shown.replace("\r\n", "\n").rstrip()))
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(_FONTS.sub("", console.export_svg(title="headrace batch", unique_id="batch")))


if __name__ == "__main__":
    main()
