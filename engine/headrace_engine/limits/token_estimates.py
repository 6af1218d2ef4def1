"""Estimates how many tokens a run will take from a provider's limits, before it is sent. Pure.

Providers do not agree on what counts. OpenAI counts the caller's limit for the answer when the request arrives. Others
count the tokens of the answer as they are made. Anthropic does not count input tokens that it reads from its cache.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import msgspec

from headrace.wire.messages import TokenCounts

DEFAULT_OUTPUT = 500
"""Tokens of an answer, before the first one is known."""
_PERCENTILE = 0.9
_REMEMBERED = 200
"""Past answers that are remembered."""
_REFRESH = 8
"""The percentile is computed again after this many new answers; after each one while there are few."""
_MEMORY = 0.98
"""How much of its weight a past input keeps with each newer one."""
_SAFETY = 3.0
"""How far above the mean the outputs of many runs together may be, as a multiple of what is usual."""
_MOST = 10**12
"""Tokens of one request at most. A larger figure, as a client may say by mistake, counts as this one."""
_RATIOS = (0.1, 10.0)
"""The least and the most that an estimate of input tokens is corrected by."""


class Cost(NamedTuple):
    """What one run takes from each kind of limit, in the order of ``LIMIT_KINDS``."""

    requests: int
    tokens: int
    input_tokens: int
    output_tokens: int


def cost_of(input_tokens: int, output_tokens: int) -> Cost:
    """Return the cost of one request with these tokens. A figure that no request can have is cut."""
    input_tokens, output_tokens = min(input_tokens, _MOST), min(output_tokens, _MOST)
    return Cost(1, input_tokens + output_tokens, input_tokens, output_tokens)


def counts_whole_output(wire_format: str) -> bool:
    """Return whether providers of this wire format count the caller's limit for the answer as soon as the request arrives."""
    return wire_format.startswith("openai")


def counted_tokens(tokens: TokenCounts, wire_format: str) -> tuple[int, int]:
    """Return the input and output tokens of an attempt that count for the provider's limits."""
    if wire_format == "anthropic":
        return max(tokens.input_tokens - tokens.cached_input_tokens, 0), tokens.output_tokens
    return tokens.input_tokens, tokens.output_tokens


class _State(msgspec.Struct, frozen=True):
    outputs: list[int]
    real: float
    estimated: float


class TokenEstimates:
    """Learns from the runs of one pool."""

    __slots__ = ("_estimated", "_likely", "_mean", "_new", "_outputs", "_real")

    def __init__(self) -> None:
        self._outputs: deque[int] = deque(maxlen=_REMEMBERED)
        self._likely = DEFAULT_OUTPUT
        self._mean = float(DEFAULT_OUTPUT)
        self._new = 0
        self._real = 0.0
        self._estimated = 0.0

    @property
    def likely_output(self) -> int:
        """Tokens that 90 % of the past answers did not exceed."""
        return self._likely

    @property
    def input_ratio(self) -> float:
        """Real input tokens for each estimated one."""
        if not self._estimated:
            return 1.0
        return min(max(self._real / self._estimated, _RATIOS[0]), _RATIOS[1])

    def cost(self, input_tokens: int, max_output_tokens: int, *, whole_output: bool, running: int = 0) -> Cost:
        """Return what a run reserves. ``input_tokens``: an estimate. ``max_output_tokens``: 0 for none.

        ``whole_output``: see :func:`counts_whole_output`. ``running``: other runs of the pool. The more there are, the
        nearer their outputs together are to the mean, so the less must be reserved for each.
        """
        output = self._likely
        if running > _SAFETY**2:
            output = round(min(self._mean + (output - self._mean) * _SAFETY / math.sqrt(running), output))
        if max_output_tokens and (whole_output or max_output_tokens < output):
            output = max_output_tokens
        return cost_of(round(input_tokens * self.input_ratio), output)

    def learn(self, estimated_input: int, input_tokens: int, output_tokens: int) -> None:
        """A run ended, and its provider told the tokens. ``estimated_input``: as it was given to :meth:`cost`."""
        if estimated_input > 0 and input_tokens > 0:
            self._real = self._real * _MEMORY + input_tokens
            self._estimated = self._estimated * _MEMORY + estimated_input
        self._outputs.append(min(output_tokens, _MOST))
        self._new += 1
        if self._new >= min(_REFRESH, len(self._outputs) // _REFRESH + 1):
            self._new = 0
            self._mean = sum(self._outputs) / len(self._outputs)
            self._likely = sorted(self._outputs)[int(len(self._outputs) * _PERCENTILE)]

    def to_state(self) -> dict[str, object]:
        """Return what was learned as plain objects."""
        return {"outputs": list(self._outputs), "real": self._real, "estimated": self._estimated}

    @classmethod
    def from_state(cls, state: object) -> TokenEstimates:
        """Return what an earlier broker had learned. Raises ``msgspec.ValidationError`` if :meth:`to_state` did not make the state."""
        told = msgspec.convert(state, _State)
        estimates = cls()
        for output in told.outputs[-_REMEMBERED:]:
            estimates.learn(0, 0, output)
        estimates._real, estimates._estimated = max(told.real, 0.0), max(told.estimated, 0.0)
        return estimates
