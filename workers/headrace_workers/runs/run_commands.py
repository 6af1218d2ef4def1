"""The commands that a run's core returns to its shell. Pure."""

from __future__ import annotations

import enum


class Command(enum.Enum):
    """One thing that the shell must do."""

    SEND = "send"  # take the run's messages at the end of this turn, together with those of other runs
    PAUSE = "pause"  # stop reading the response
    RESUME = "resume"  # read the response again
    NEXT_TURN = "next turn"  # call next_turn() in the next turn of the loop, before anything more is read
    SET_TIMER = "set timer"  # a clock now runs out earlier: set the timer again
    CLOSE = "close"  # close the connection to the provider
    SEND_CONTINUATION = "send continuation"  # send the request that continues the response
    RELEASE = "release"  # the response is read to its end: keep the connection for another request


Commands = tuple[Command, ...]
"""What the shell must do, in this order."""

SEND: Commands = (Command.SEND,)
"""The commands that follow from most pieces of a stream."""
