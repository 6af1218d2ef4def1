"""``python -m tests.fuzz.bystander ADDRESS FIGURES``.

Reads streams on a worker that others attack, and notes the longest gap.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

from headrace import Client

CHUNKS = 400
PACE = 0.01


def main(address: str, figures: Path) -> None:
    whole = "".join(f"{number} " for number in range(CHUNKS))
    with figures.open("r+b") as file:
        shared = mmap.mmap(file.fileno(), 24)
    with Client(address) as client:
        while True:
            options = {"simulate": {"repeat": CHUNKS, "pace": PACE}}
            stream = client.run_local(
                provider="bystander",
                model="gpt-4o",
                messages=[{"role": "user", "content": "hi"}],
                stream=True,
                custom_options=options,
            )
            last, text = 0.0, ""
            for piece in stream:
                now = time.monotonic()
                gap, streams, faults = struct.unpack("3d", shared[:24])
                if last and now - last > gap:
                    shared[:8] = struct.pack("d", now - last)
                last = now
                text += piece
            _, streams, faults = struct.unpack("3d", shared[:24])
            is_fault = text != whole
            shared[8:24] = struct.pack("2d", streams + 1, faults + is_fault)


main(sys.argv[1], Path(sys.argv[2]))
