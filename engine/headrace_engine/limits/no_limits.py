"""Gates for an engine in which nothing is limited: no run waits, and nothing is learned. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from headrace.settings.settings import Settings
from headrace.wire.engine_status import PoolStatus
from headrace.wire.messages import Acquire, Release, ResponseReport
from headrace_engine.limits.gate import Gate, KeyRefused, Refusal, Ticket


class NoLimits:
    """No gates."""

    def __init__(self) -> None:
        self.generation = 0
        self.is_changed = False

    def gate_of(self, question: Acquire) -> Gate | None:
        """Return None: nothing limits the run."""

    def refusal(self, question: Acquire, now: float) -> Refusal | None:
        """Return None: the run may wait."""

    def learns_from(self, question: Acquire, sign: Release | ResponseReport, now: float) -> bool:  # noqa: ARG002
        """Return False: no gate is made."""
        return False

    def adopt(self, question: Acquire, key: str, now: float, went_at: float | None = None) -> Ticket | None:
        """Return None: there is nothing to count."""

    def keys_told(self, epoch: int, keys: Mapping[str, Sequence[str]], now: float) -> None:
        """Take no notice."""

    def worker_left(self, epoch: int) -> None:
        """Take no notice."""

    def configure(self, settings: Settings, now: float) -> None:
        """Take no notice."""

    def reloaded(self) -> None:
        """Take no notice."""

    def facts(self) -> list[KeyRefused]:
        """Return nothing."""
        return []

    def pools(self, waiting: Mapping[Hashable, int], now: float) -> list[PoolStatus]:  # noqa: ARG002
        """Return no pools."""
        return []

    def state(self, now: float) -> bytes | None:
        """Return None: there is no state."""

    def restore(self, state: bytes, now: float) -> None:
        """Take no notice."""
