"""BatchRows: the rows of one batch, read from the job's file of rows, and encoded by their wire format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.errors import RemoteProtocolError
from headrace.wire.batch_frames import StoredRow, stored_rows
from headrace.wire.batch_messages import RowsFile
from headrace_workers.batches.batch_api import refused
from headrace_workers.providers.shared.wire_format import ProviderFailedError

EncodeRow = Callable[[StoredRow], list[bytes]]
"""Returns the bodies of a row's requests. Raises ProviderFailedError."""


class BatchRows:
    """The rows of one batch. ``token`` marks their ids."""

    def __init__(self, file: RowsFile, token: str, encode: EncodeRow) -> None:
        self.token = token
        self.count = file.count - len(file.skipped)
        self.place = Path(f"{file.path}.{token}.upload")
        self._file = file
        self._encode = encode

    def bodies(self) -> Iterator[tuple[StoredRow, list[bytes]]]:
        """Iterate the rows with the bodies of their requests, as JSON.

        Raises BatchCallError if a row cannot be encoded any more; its argument names the row's place, counted from 0.
        """
        skipped = frozenset(self._file.skipped)
        place = 0
        try:
            with Path(self._file.path).open("rb") as file:
                file.seek(self._file.offset)
                for _ in range(self._file.count):
                    row = stored_rows.read(file)
                    if row is None:
                        raise refused(f"the rows of the batch are no longer in {self._file.path}")
                    if row.number in skipped:
                        continue
                    yield row, self._encode(row)
                    place += 1
        except ProviderFailedError as error:
            raise refused(error.failure.reason, f"requests[{place}]") from None
        except (OSError, RemoteProtocolError) as error:
            raise refused(f"the rows of the batch cannot be read: {error}") from None
