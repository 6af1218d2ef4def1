"""The load: Headrace's simulated provider, which in paced works writes the time into each chunk.

Prints its port; ends with its stdin.

The stamp is made as the frame is written, so that a contestant's latency holds nothing of the provider's own lateness.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.testing import Script, run_server
from headrace.testing.openai_chat import answer as openai_chat
from headrace.testing.shared.reply import Frame, Reply
from headrace.testing.simulation import FORMAT_AT_PATH

PLACE = "0" * 16 + " "


class StampedChat:
    """OpenAI Chat Completions with a stamp in the place of each chunk's text, where chunks have a pace."""

    headers = staticmethod(openai_chat.headers)
    refused = staticmethod(openai_chat.refused)
    refused_key = staticmethod(openai_chat.refused_key)
    refused_body = staticmethod(openai_chat.refused_body)

    def reply(self, body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
        """Return the scripted answer, stamped."""
        if not script.pace or script.repeat is None:
            return openai_chat.reply(body, script, completion_id, created)
        script = msgspec.structs.replace(script, repeat=None, chunks=[PLACE] * script.repeat)
        plain = openai_chat.reply(body, script, completion_id, created)
        return msgspec.structs.replace(plain, frames=_stamped(plain.frames))


def _stamped(frames: Iterator[Frame]) -> Iterator[Frame]:
    # The sender takes a frame when it is due, and writes it at once.
    place = PLACE.encode()
    for data, text, chunks in frames:
        if chunks:
            stamp = b"%016d " % (time.monotonic_ns() // 1000)
            yield data.replace(place, stamp, 1), stamp.decode(), chunks
        else:
            yield data, text, chunks


def _read_to_end() -> None:
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    FORMAT_AT_PATH[openai_chat.PATH] = StampedChat()
    run_server(on_ready=lambda port: print(port, flush=True), until=_read_to_end)
