"""When a frame of chunks leaves for a client. Pure.

Everything that becomes ready in one turn of the loop leaves in one frame. If the last frame to the same client left
less than 1 ms ago, the next frame waits until that millisecond is over. Under load this makes a few large frames out of
many small ones, and the client's next requests come together too. First chunks, failures and aborts never wait. A client
without a frame in the last millisecond does not wait either.
"""

from __future__ import annotations

FRAME_INTERVAL = 0.001
"""Seconds between frames to one client under load."""


def send_at(now: float, last_sent: float, *, is_urgent: bool) -> float:
    """Return when a frame that became ready ``now`` is to leave."""
    return now if is_urgent else max(now, last_sent + FRAME_INTERVAL)
