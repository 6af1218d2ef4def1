"""The provider of the batch benchmark: Headrace's simulated provider. It answers each request after 20 ms, with five pieces.

Prints its port; ends with its stdin.
"""

from __future__ import annotations

import os

from headrace.testing import Script, run_server

ANSWER = Script(repeat=5, first_token_delay=0.02)
TEXT = "0 1 2 3 4 "
"""What each row must get."""


def _read_to_end() -> None:
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    run_server(script=ANSWER, on_ready=lambda port: print(port, flush=True), until=_read_to_end)
