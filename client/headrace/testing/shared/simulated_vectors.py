"""Makes the vectors of simulated embeddings. Pure."""

from __future__ import annotations

import hashlib
import math
import struct


def vector_of(text: str, dimensions: int) -> list[float]:
    """Return the embedding of a text: a vector of length 1, always the same for the same text."""
    digest = hashlib.shake_256(text.encode()).digest(dimensions * 2)
    raw = [number / 32768 for number in struct.unpack(f"<{dimensions}h", digest)]
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return [number / length for number in raw]
