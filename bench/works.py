"""The works that are measured: what is asked for, what must arrive, and what a contestant reports.

Never measures anything itself.
"""

from __future__ import annotations

from typing import Any

import msgspec

STAMP_LENGTH = 17
"""Characters in a chunk of a paced work: 16 digits, microseconds of the provider's clock as it writes, and a blank."""
CURVE_SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
"""Of the chunks: at these shares the curve of latencies is told."""
MESSAGES = [{"role": "user", "content": "count"}]
MODEL = "gpt-4o"


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """``requests`` requests, ``at_once`` of them open, each answered by ``chunks`` chunks ``pace`` seconds apart.

    Without ``streams`` each request is answered in one JSON body. With ``stays_open`` the stream falls silent after its chunks. The
    work is given up after ``limit`` seconds. With ``is_by_streams`` it is a point of the curve that shows the cost by the number of
    streams.
    """

    name: str
    shows: str
    requests: int
    at_once: int
    chunks: int
    pace: float = 0.0
    one_write: bool = False
    streams: bool = True
    stays_open: bool = False
    is_by_streams: bool = False
    limit: float = 15.0

    @property
    def is_stamped(self) -> bool:
        """Whether each chunk says when it was written."""
        return self.pace > 0

    @property
    def unit(self) -> str:
        """What the figure is counted by."""
        return "chunk" if self.streams else "request"

    def script(self) -> dict[str, Any]:
        """Return what the simulated provider is told in a request's ``simulate`` field."""
        script: dict[str, Any] = {"repeat": self.chunks}
        if self.pace:
            script["pace"] = self.pace
        if self.one_write:
            script["one_write"] = True
        if self.stays_open:
            script["stall_after"] = self.chunks
        return script

    def body(self) -> dict[str, Any]:
        """Return the request's body, for contestants that write their own."""
        body: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "simulate": self.script()}
        return body | ({"stream": True} if self.streams else {})

    def warm_up(self) -> Work:
        """Return a small work of the same kind. It loads what a program loads only once."""
        at_once = min(self.at_once, 32)
        return msgspec.structs.replace(self, requests=2 * at_once, at_once=at_once, chunks=2, stays_open=False)

    def fault(self, texts: list[str]) -> str | None:
        """Return what is wrong with the texts of one answer, or None. Deltas may have been joined, but nothing may lack."""
        text = "".join(texts)
        if self.is_stamped:
            stamps = text.split()
            is_right = len(text) == self.chunks * STAMP_LENGTH and stamps == sorted(stamps)
        else:
            is_right = text == "".join(f"{number} " for number in range(self.chunks))
        return None if is_right else f"wrong text: {len(text)} characters in {len(texts)} chunks, {text[:40]!r}…"


WORKS = [
    Work(name="W1", shows="200 streams of 200 chunks, 32 at once, no gap", requests=200, at_once=32, chunks=200),
    Work(name="W1b", shows="W1, each answer in one write", requests=200, at_once=32, chunks=200, one_write=True),
    Work(
        name="W2", shows="500 streams of 50 chunks, all at once, 20 ms", requests=500, at_once=500, chunks=50, pace=0.02
    ),
    Work(name="W2M", shows="100 streams of 100 chunks, 20 ms", requests=100, at_once=100, chunks=100, pace=0.02),
    Work(name="W2L", shows="20 streams of 100 chunks, 20 ms", requests=20, at_once=20, chunks=100, pace=0.02),
    Work(name="W3", shows="2,000 calls without stream", requests=2000, at_once=64, chunks=1, streams=False),
    Work(name="W4", shows="500 streams left open", requests=500, at_once=500, chunks=1, stays_open=True),
    *(
        Work(
            name=f"C{streams}",
            shows=f"{streams} streams of {chunks} chunks, 20 ms"
            if streams > 1
            else f"1 stream of {chunks} chunks, 20 ms",
            requests=streams,
            at_once=streams,
            chunks=chunks,
            pace=0.02,
            is_by_streams=True,
        )
        for streams, chunks in ((1, 200), (5, 100), (20, 50), (50, 50), (100, 50), (200, 50), (500, 50))
    ),
]
USUAL_WORKS = [work.name for work in WORKS if not work.is_by_streams]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a contestant says of its own work. Times are in milliseconds, except ``seconds``."""

    seconds: float
    chunks: int
    deltas: int
    """How many pieces the chunks came in: fewer where a contestant joins them for a reader that lags."""
    complete: int
    held: int
    """How many answers were under way at the peak."""
    first: list[float]
    """Time to first chunk, from the call: p50 and p99."""
    latency: list[float]
    """From the provider's write to the reader: p50 and p99. Stamped works only."""
    latency_curve: list[float] = []
    """The same at each share of ``CURVE_SHARES``."""
    faults: int = 0
    fault: str = ""
