"""ProviderRuns: runs the rows of a job through the provider's own batch API, and finds them again after a restart.

It is the way of ``--via-provider`` and ``--background``. See ``DeferredRuns`` for what is different from an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Self

import msgspec

from headrace.batch.row import FinishedRow, Row
from headrace.batch.row_runs import RowRunsState
from headrace.settings.settings import Settings

BackgroundWindow = Literal["2h", "8h"]
"""How long OpenAI may take for a background run: the longer, the cheaper."""


class ProviderBatchStatus(msgspec.Struct, frozen=True):
    """One batch of a job, for people. ``batch_id`` is the provider's id of it; empty until the provider has it.

    ``state``: ``waiting`` (it is being sent), ``running``, ``ended`` (its results are being read) or ``cancelling``.
    ``done`` and ``failed`` are what the provider told last. A background run is a batch of one row.
    """

    provider: str
    state: str
    rows: int
    batch_id: str = ""
    done: int = 0
    failed: int = 0


class ProviderRuns:
    """Rows with providers, as ``DeferredRuns``. Used by one thread.

    * ``settings``: providers, prices and keys, as ``load_settings`` returns them.
    * ``directory``: the job's directory, or a temporary one for a job without a journal. It keeps the state of the
      batches, and the rows of a batch until they are recorded (files with mode 0600).
    * ``background``: None for batches; else each row is a background run of OpenAI's Responses API.
    * ``is_wanted(number, hash)``: whether a row has no record yet, and its hash is still this one. None: always.
    * ``concurrency``: background runs with the provider at once.

    Raises EngineUnavailableError if the process for the requests cannot be started.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        *,
        background: BackgroundWindow | None = None,
        is_wanted: Callable[[int, bytes], bool] | None = None,
        concurrency: int = 1000,
    ) -> None:
        raise NotImplementedError

    def start(self, rows: Sequence[Row]) -> None:
        """Put rows into batches. A row that is with the provider already is not sent again."""
        raise NotImplementedError

    def end_input(self) -> None:
        """Send the rows that wait for a full batch. Rows that are started later are sent with the next ``take``."""
        raise NotImplementedError

    def take(self, timeout: float) -> list[FinishedRow]:
        """Return rows that have ended: some hundred at most. If there are none, wait ``timeout`` seconds at most.

        Raises AuthenticationError, InvalidRequestError or ProviderError if the provider refuses the job as a whole.
        Nothing is lost then: the next start goes on.
        """
        raise NotImplementedError

    @property
    def state(self) -> RowRunsState:
        """``running``: rows of batches that the provider has. ``waiting``: all others that are not recorded yet."""
        raise NotImplementedError

    def batches(self) -> list[ProviderBatchStatus]:
        """Return the batches of the job that are not over, for people."""
        raise NotImplementedError

    def recorded(self, numbers: Sequence[int]) -> None:
        """Note that rows that ``take`` has returned are in the journal."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Cancel all batches. ``take`` still returns what the provider has run by then."""
        raise NotImplementedError

    def abort(self) -> None:
        """Do the same as :meth:`close`."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the batches to the provider. The next start of the job finds them again. May be called twice."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def live_batches(directory: Path) -> list[ProviderBatchStatus]:
    """Return the batches of a job that are not over, read from its directory. The job may be running.

    A job that begins anew (``--force``) must not lose them: cancel them first.
    """
    raise NotImplementedError
