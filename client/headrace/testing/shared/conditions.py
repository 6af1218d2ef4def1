"""How the simulated provider is doing: its limits, keys that it refuses, an outage, late first chunks. Pure.

``SimulatedProvider`` changes it while the provider runs, by messages.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from headrace.testing.shared.provider_limits import LimitEnforcement, ProviderLimits
from headrace.testing.shared.script import Script, Seconds

OutageKind = Annotated[int, msgspec.Meta(ge=400, le=599)] | Literal["refused", "reset"]


class SetLimits(msgspec.Struct, frozen=True, tag="limits"):
    """Limit a key, by its hash; all others if it is empty."""

    key: str
    limits: ProviderLimits


class SetOutage(msgspec.Struct, frozen=True, tag="outage"):
    """Answer nothing to a key, or to all if it is empty: answer with a status, or reset connections. None: it is over.

    ``refused``: connections are refused, to everybody.
    """

    kind: OutageKind | None
    key: str = ""
    headers: dict[str, str] = {}


class RefuseKey(msgspec.Struct, frozen=True, tag="refuse_key"):
    """Refuse a key, by its hash, or take it again."""

    key: str
    is_refused: bool


class DelayFirstChunks(msgspec.Struct, frozen=True, tag="delay"):
    """Delay the first chunk of a share of the answers to a key, or to all that have no share of their own."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    seconds: Seconds
    key: str = ""


Change = SetLimits | SetOutage | RefuseKey | DelayFirstChunks


class Conditions:
    """The state. ``are_usual``: nothing of it has any effect on a request."""

    def __init__(self) -> None:
        self.limits = LimitEnforcement()
        self.are_usual = True
        self._outages: dict[str, SetOutage] = {}
        self._refused_keys: set[str] = set()
        self._delays: dict[str, _Delays] = {}

    def change(self, change: Change) -> None:
        """Carry out one change."""
        match change:
            case SetLimits():
                self.limits.set(change.key, change.limits)
            case SetOutage(None, key):
                self._outages.pop(key, None)
            case SetOutage():
                self._outages[change.key] = change
            case RefuseKey(key, True):
                self._refused_keys.add(key)
            case RefuseKey(key, False):
                self._refused_keys.discard(key)
            case DelayFirstChunks(0, _, key):
                self._delays.pop(key, None)
            case DelayFirstChunks():
                self._delays[change.key] = _Delays(change)
        self.are_usual = not (self.limits or self._outages or self._refused_keys or self._delays)

    def clear(self) -> None:
        """Return to the beginning."""
        self.limits.clear()
        self._outages.clear()
        self._refused_keys.clear()
        self._delays.clear()
        self.are_usual = True

    @property
    def accepts(self) -> bool:
        """Whether new connections are taken."""
        return all(outage.kind != "refused" for outage in self._outages.values())

    def resets(self, key: str) -> bool:
        """Whether the connections of a key are reset instead of answered. Keys are given by their hash."""
        outage = self._outage(key)
        return outage is not None and not isinstance(outage.kind, int)

    def outage_script(self, key: str) -> Script | None:
        """Return the answer to all requests of a key; None if there is no outage, or none with answers."""
        outage = self._outage(key)
        if outage is None or not isinstance(outage.kind, int):
            return None
        return Script(status=outage.kind, headers=outage.headers)

    def refuses(self, key: str) -> bool:
        """Return whether a key is refused."""
        return key in self._refused_keys

    def delay(self, key: str) -> float:
        """Return the seconds by which the next answer's first chunk is late. The share of late ones is kept exactly."""
        delays = self._delays.get(key) or self._delays.get("")
        return 0.0 if delays is None else delays.next()

    def _outage(self, key: str) -> SetOutage | None:
        return self._outages.get("") or self._outages.get(key)


class _Delays:
    """Which answers are late: each twentieth, for a share of 0.05."""

    def __init__(self, change: DelayFirstChunks) -> None:
        self._change = change
        self._due = 0.0

    def next(self) -> float:
        self._due += self._change.share
        if self._due < 1.0 - 1e-9:
            return 0.0
        self._due -= 1.0
        return self._change.seconds
