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
    """Answer nothing: refuse connections, reset them, or answer with a status. None: the outage is over."""

    kind: OutageKind | None
    headers: dict[str, str] = {}


class RefuseKey(msgspec.Struct, frozen=True, tag="refuse_key"):
    """Refuse a key, by its hash, or take it again."""

    key: str
    is_refused: bool


class DelayFirstChunks(msgspec.Struct, frozen=True, tag="delay"):
    """Delay the first chunk of a share of the answers."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    seconds: Seconds


Change = SetLimits | SetOutage | RefuseKey | DelayFirstChunks


class Conditions:
    """The state. ``are_usual``: nothing of it has any effect on a request."""

    def __init__(self) -> None:
        self.limits = LimitEnforcement()
        self.outage = SetOutage(None)
        self.are_usual = True
        self._refused_keys: set[str] = set()
        self._delay = DelayFirstChunks(0.0, 0.0)
        self._due = 0.0

    def change(self, change: Change) -> None:
        """Carry out one change."""
        match change:
            case SetLimits():
                self.limits.set(change.key, change.limits)
            case SetOutage():
                self.outage = change
            case RefuseKey(key, True):
                self._refused_keys.add(key)
            case RefuseKey(key, False):
                self._refused_keys.discard(key)
            case DelayFirstChunks():
                self._delay, self._due = change, 0.0
        self.are_usual = not (self.limits or self.outage.kind or self._refused_keys or self._delay.share)

    def clear(self) -> None:
        """Return to the beginning."""
        self.limits.clear()
        self._refused_keys.clear()
        self.change(SetOutage(None))
        self.change(DelayFirstChunks(0.0, 0.0))

    @property
    def is_reset(self) -> bool:
        """Whether connections are reset instead of answered."""
        return self.outage.kind in {"reset", "refused"}

    def outage_script(self) -> Script | None:
        """Return the answer to all requests; None if there is no outage, or none with answers."""
        kind = self.outage.kind
        return Script(status=kind, headers=self.outage.headers) if isinstance(kind, int) else None

    def refuses(self, key: str) -> bool:
        """Return whether a key is refused, by its hash."""
        return key in self._refused_keys

    def delay(self) -> float:
        """Return the seconds by which the next answer's first chunk is late. The share of late ones is kept exactly."""
        self._due += self._delay.share
        if self._due < 1.0 - 1e-9:
            return 0.0
        self._due -= 1.0
        return self._delay.seconds
