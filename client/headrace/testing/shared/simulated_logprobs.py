"""Makes the log probabilities of a simulated answer: the scripted ones, else made-up ones that depend only on the token.

Pure. Each piece of the answer is one token.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from headrace.testing.shared.script import Script, ScriptedLogprob

_RANGE = 3000  # thousandths of a made-up log probability
_STEP = 0.5  # between the made-up alternatives


class SimulatedLogprob(msgspec.Struct, frozen=True):
    """A token, its log probability, and the most likely tokens at its place: (token, log probability)."""

    token: str
    logprob: float
    top: Sequence[tuple[str, float]] = ()

    def for_openai(self, *, has_bytes: bool = True) -> dict[str, Any]:
        """Return it in the form of OpenAI's APIs."""
        top = [_entry(token, logprob, has_bytes=has_bytes) for token, logprob in self.top]
        return _entry(self.token, self.logprob, has_bytes=has_bytes) | {"top_logprobs": top}


def logprobs_of(script: Script, pieces: Sequence[str], top: int) -> list[SimulatedLogprob]:
    """Return a log probability for each piece, with ``top`` alternatives. Scripted ones come first."""
    scripted = [_scripted(one, top) for one in script.logprobs[: len(pieces)]]
    return scripted + [_made_up(piece, top) for piece in pieces[len(scripted) :]]


def _scripted(one: ScriptedLogprob, top: int) -> SimulatedLogprob:
    return SimulatedLogprob(one.token, one.logprob, list(one.top_logprobs.items())[:top])


def _made_up(token: str, top: int) -> SimulatedLogprob:
    logprob = -(zlib.crc32(token.encode("utf-8", "replace")) % _RANGE) / 1000
    others = [(token if not place else f"{token}{place}", logprob - place * _STEP) for place in range(top)]
    return SimulatedLogprob(token, logprob, others)


def _entry(token: str, logprob: float, *, has_bytes: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"token": token, "logprob": logprob}
    return said | {"bytes": list(token.encode("utf-8", "replace"))} if has_bytes else said
