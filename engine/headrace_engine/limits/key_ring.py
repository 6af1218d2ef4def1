"""The keys of one provider that the engine has: which are in rotation, and which are not, because the provider refused them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from headrace_engine.limits.gate import KeyRefused

SET_ASIDE = 60.0
"""Seconds for which a key gets no runs after the provider said that its money or its quota is used up."""


class KeyRing:
    """The short hashes of a provider's keys, as the workers tell them."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        # The keys of each worker, by its epoch. 0: as an earlier broker knew them, until a worker tells.
        self._told: dict[int, tuple[str, ...]] = {}
        # A key stays refused when no worker has it for a while, for example while workers are replaced.
        self._refused: set[str] = set()
        self._aside_until: dict[str, float] = {}
        self.version = 0
        """How often other keys than before may have come into rotation, the time aside."""
        self.keys: tuple[str, ...] = ()
        """The keys that any worker has, in the order in which they are configured."""

    def told(self, epoch: int, keys: Sequence[str]) -> bool:
        """A worker says which keys it has. Return whether the ring is another one now."""
        for known in (0, epoch):
            self._told.pop(known, None)
        self._told[epoch] = tuple(keys)
        return self._join()

    def worker_left(self, epoch: int) -> bool:
        """A worker is gone. Return whether the ring is another one now.

        The keys of the last worker are kept: the next worker will most likely have them too.
        """
        if epoch not in self._told or len(self._told) == 1:
            return False
        del self._told[epoch]
        return self._join()

    def restore(self, keys: Sequence[str], refused: Sequence[str]) -> None:
        """Take over what an earlier broker knew."""
        self._told = {0: tuple(keys)}
        self._join()
        self._refused = set(refused)

    @property
    def is_known(self) -> bool:
        """Whether anything is known of the provider's keys."""
        return bool(self._told or self._refused)

    @property
    def refused_keys(self) -> list[str]:
        """The keys that the provider refused."""
        return sorted(self._refused)

    def usable(self, now: float) -> list[str]:
        """Return the keys in rotation. If none is, all are: the caller shall see the provider's own error."""
        kept = [key for key in self.keys if key not in self._refused]
        return [key for key in kept if self._aside_until.get(key, now) <= now] or kept or list(self.keys)

    def usable_on(self, epoch: int, now: float) -> list[str]:
        """Return the keys in rotation that this worker has; all in rotation if it has none, or has not said."""
        usable = self.usable(now)
        told = self._told.get(epoch, ())
        return [key for key in usable if key in told] or usable

    def back_at(self, now: float) -> float | None:
        """Return when the next key that was set aside gets runs again; ``None`` if there is none."""
        return min((until for until in self._aside_until.values() if until > now), default=None)

    def refused(self, key: str) -> KeyRefused | None:
        """The provider refused a key with 401. Return what is to be logged; ``None`` if that is known, or the only key stays.

        While the settings are read again, a worker that does not have the key yet uses another one: then nobody knows
        which key was refused.
        """
        if key in self._refused or key not in self.keys or len(self.keys) == 1:
            return None
        if any(key not in told for told in self._told.values()):
            return None
        self._refused.add(key)
        self.version += 1
        return KeyRefused(self._provider, key, sum(other not in self._refused for other in self.keys))

    def used_up(self, key: str, now: float) -> None:
        """The money or the quota of a key is used up. It gets no runs for a minute, if there are others."""
        if key in self.keys:
            self._aside_until[key] = now + SET_ASIDE
            self.version += 1

    def reloaded(self) -> None:
        """The settings are read again: each key is tried again."""
        self._refused.clear()
        self._aside_until.clear()

    def why_not(self, key: str, now: float) -> str:
        """Return why a key is out of rotation: ``401`` or ``quota``; empty if it is not."""
        if key in self._refused:
            return "401"
        return "quota" if self._aside_until.get(key, now) > now else ""

    def _join(self) -> bool:
        before = self.keys
        # A worker that came later was started with newer settings: its order counts.
        self.keys = tuple(dict.fromkeys(key for epoch in reversed(self._told) for key in self._told[epoch]))
        return self.keys != before
