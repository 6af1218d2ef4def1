"""What a run asks of its shell. Pure."""

from __future__ import annotations

import enum


class Command(enum.Enum):
    """What the shell is to do."""

    SEND = "send"  # there is something to take, when it suits
    SEND_NOW = "send now"  # a first chunk or a terminal: at once
    PAUSE = "pause"  # stop reading the response
    RESUME = "resume"
    NEXT_TURN = "next turn"  # go on in the next turn of the loop, before anything more is read
    WATCH = "watch"  # a clock runs out sooner than the one that is waited for
    CLOSE = "close"  # the response is not wanted any more
    SEND_CONTINUATION = "send continuation"  # send the request that continues the response
    RELEASE = "release"  # nothing more is needed of it; the connection may be used again


Commands = tuple[Command, ...]
