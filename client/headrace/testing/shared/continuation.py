"""Continuation tokens of the simulated provider: they hold the script and how far it was told, so that nothing is remembered."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from headrace.testing.shared.script import Script


class _Told(msgspec.Struct, frozen=True):
    """How far a script was told, in chunks."""

    script: Script
    position: int


def token(script: Script, position: int) -> str:
    """Return the token with which the answer goes on."""
    return base64.b64encode(msgspec.json.encode(_Told(script, position))).decode()


def position_of(value: Any) -> int:
    """Return where the answer goes on; at its start without a token of ours."""
    told = _told(value)
    return told.position if told is not None else 0


def script_of(body: Any) -> Script | None:
    """Return the script that a request carries on."""
    told = _told(body.get("continuationToken")) if isinstance(body, dict) else None
    return told.script if told is not None else None


def _told(value: Any) -> _Told | None:
    if not isinstance(value, str):
        return None
    try:
        return msgspec.json.decode(base64.b64decode(value, validate=True), type=_Told)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        return None
