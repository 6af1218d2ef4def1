"""Continuation tokens of the simulated provider.

A token has the script and the position, so the server keeps no state. Pure.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from headrace.testing.shared.script import Script


class _Progress(msgspec.Struct, frozen=True):
    """A script, and the number of its chunks that were sent."""

    script: Script
    position: int


def token(script: Script, position: int) -> str:
    """Return the token with which a client asks for the rest of the answer."""
    return base64.b64encode(msgspec.json.encode(_Progress(script, position))).decode()


def position_of(value: Any) -> int:
    """Return the chunk at which the answer continues; 0 without a valid token."""
    progress = _progress(value)
    return progress.position if progress is not None else 0


def script_of(body: Any) -> Script | None:
    """Return the script in the continuation token of a request; None without a valid token."""
    progress = _progress(body.get("continuationToken")) if isinstance(body, dict) else None
    return progress.script if progress is not None else None


def _progress(value: Any) -> _Progress | None:
    if not isinstance(value, str):
        return None
    try:
        return msgspec.json.decode(base64.b64decode(value, validate=True), type=_Progress)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
