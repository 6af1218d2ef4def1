"""``replay``: plays the recordings of real providers that ``headrace record`` has made."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

import msgspec

from headrace.testing.local_provider import LocalProvider
from headrace.testing.recording.recorded_exchange import read_recordings
from headrace.testing.replay_simulation import ReplaySimulation, ReplayState
from headrace.testing.server import ServerThread


class UnmatchedRequestError(AssertionError):
    """A request came that is not recorded. The text says how it differs from the nearest recording."""


class ReplayedProvider(LocalProvider):
    """A local server that answers with recordings. :func:`replay` makes one.

    Leaving its ``with`` block raises :class:`UnmatchedRequestError` if a request came that is not recorded, also if the
    program did not notice. An error that left the block already goes on instead.
    """

    @property
    def unused(self) -> list[str]:
        """The names of the recordings that were not played."""
        return self._state().unused

    @property
    def unmatched(self) -> list[str]:
        """What was asked and is not recorded, one text for each request."""
        return self._state().unmatched

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            unmatched = self.unmatched
        finally:
            self.close()
        if exc is None and unmatched:
            raise UnmatchedRequestError("\n".join(unmatched))

    def _state(self) -> ReplayState:
        return msgspec.json.decode(self._call("GET", "replay"), type=ReplayState)


def replay(folder: str | os.PathLike[str], *, ignored_keys: Collection[str] = (), port: int = 0) -> ReplayedProvider:
    """Return a provider that answers as recorded, without a network or a key.

    * ``folder``: what ``headrace record`` has written: a folder of recordings, or one recording.
    * ``ignored_keys``: keys of the request's body that are not compared, such as ``{"metadata"}``. Default: none.
    * ``port``: default 0, a free port.

    A request gets the first recording of an equal request that was not played yet: the same API, and the same JSON body.
    Each recording is played once. A request that is not recorded gets an error 404 that says how it differs from the
    nearest recording. Bytes, status and headers of the answers are as recorded; a stream comes in the recorded pieces,
    without pauses.

    Raises :class:`RecordingError` if there are no recordings, and OSError if the port cannot be used.
    """
    return ReplayedProvider(ServerThread(ReplaySimulation(read_recordings(Path(folder)), ignored_keys), port))
