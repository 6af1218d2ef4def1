"""The provider of the benchmark: Headrace's simulated provider, which writes each event by its own write call, in its own HTTP chunk.

Prints its port; ends with its stdin. In works with one write (W1b) a whole answer is one write call, and still an HTTP chunk for each
event. In works with a pace each chunk's text is the time of its write call, so that a contestant's latency holds nothing of the
provider's own lateness.
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
    """OpenAI Chat Completions. With a pace, a stamp takes the place of each chunk's text."""

    headers = staticmethod(openai_chat.headers)
    refused = staticmethod(openai_chat.refused)
    refused_key = staticmethod(openai_chat.refused_key)
    refused_body = staticmethod(openai_chat.refused_body)

    def reply(self, body: dict[str, Any], script: Script, completion_id: str, created: int) -> Reply:
        """Return the scripted answer, stamped if it has a pace."""
        # Without this, the simulated provider joins the events of an answer in one HTTP chunk.
        separate = msgspec.structs.replace(script, one_write=False)
        if not script.pace or script.repeat is None:
            plain = openai_chat.reply(body, separate, completion_id, created)
            # Without this, it writes up to 64 events in one turn of its loop, which uvloop joins in one write call.
            return msgspec.structs.replace(plain, one_write=script.one_write, one_frame_per_turn=not script.one_write)
        separate = msgspec.structs.replace(separate, repeat=None, chunks=[PLACE] * script.repeat)
        plain = openai_chat.reply(body, separate, completion_id, created)
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
