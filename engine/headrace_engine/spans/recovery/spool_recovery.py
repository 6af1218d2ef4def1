"""Recovers spans from the spools of ended processes: moves them into the store. A spool that is not locked has no writer any more.

:func:`recover` and :func:`recover_others` are generators. Each step commits one batch, so that their caller can do other work in
between. A step may raise StoreError; a later call goes on with the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from headrace.errors import RemoteProtocolError
from headrace.files.file_locks import is_locked
from headrace.settings.settings import SpansConfig
from headrace.spans.data_directory import SPOOL, database_files, is_own_folder, slots, spool_files
from headrace.spans.span import Span, decode_span
from headrace.spans.spool_format import is_spool, read_spool
from headrace_engine.spans.recovery.slots import try_slot
from headrace_engine.spans.storage.batching import MAX_COMMIT_BYTES
from headrace_engine.spans.storage.database import Cost
from headrace_engine.spans.storage.store import Store

logger = logging.getLogger(__name__)

Clock = Callable[[], float]

_BATCH = 256
_NEW = 5.0
"""Seconds before an empty file is removed: its writer may be about to lock it."""


class RecoveryCounts(msgspec.Struct, frozen=True):
    """The result of one step.

    ``spans``: stored spans. ``new``: runs that had no row before. ``torn``: parts of files without a whole record. ``unreadable``: records
    that are not spans. ``unstorable``: spans that no database can hold.
    """

    spans: int = 0
    new: int = 0
    torn: int = 0
    unreadable: int = 0
    unstorable: int = 0


def has_spools(slot: Path) -> bool:
    """Return whether a slot has spool files, locked or not."""
    return bool(spool_files(slot))


def writer_epochs(slot: Path) -> set[int]:
    """Return the epochs of the processes that write spool files in a slot: they hold the locks of their files."""
    epochs = set()
    for path in spool_files(slot):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if is_locked(path):
                epochs.add(int(path.stem.split("-")[-2], 16))
    return epochs


def has_leavings(slot: Path) -> bool:
    """Return whether an ended writer has left spans in a slot."""
    for path in spool_files(slot):
        with contextlib.suppress(OSError):
            if path.stat().st_size and not is_locked(path):
                return True
    return False


def recover(slot: Path, store: Store, clock: Clock) -> Iterator[RecoveryCounts]:
    """Store the spans in the spools of ended writers, and remove these files. ``clock`` is the wall clock.

    If another user has put a directory in the slot's place, nothing in it is read or removed.
    """
    if not all(map(is_own_folder, (slot.parent, slot, slot / SPOOL))):
        return
    for path in spool_files(slot):
        with contextlib.suppress(OSError), _opened_in(path) as (folder, descriptor):
            if _is_left(path, descriptor, clock()):
                yield from _recover_file(path, folder, descriptor, store, clock)


def recover_others(
    own: Path, config: SpansConfig, cost: Cost, clock: Clock, retire_for: Collection[str] | None = None
) -> Iterator[RecoveryCounts]:
    """Do the same in all slots without an engine. Each slot has its own store.

    ``retire_for``: the names of the sinks. If it is set, files that are too old are removed too.
    """
    for path in slots(own.parent) if is_own_folder(own.parent) else []:
        is_old = retire_for is not None and database_files(path)
        if path == own or not is_own_folder(path) or not (has_spools(path) or is_old):
            continue
        try:
            slot = try_slot(path)
        except OSError:
            continue
        if slot is None:
            continue
        with slot, contextlib.closing(Store(path, config, cost)) as store:
            yield from recover(path, store, clock)
            if retire_for is not None:
                store.retire(clock(), retire_for)


@contextlib.contextmanager
def _opened_in(path: Path) -> Iterator[tuple[int, int]]:
    """Open a file's directory and the file in it. Yield both descriptors: their names may lead elsewhere later."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = os.open(path.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=folder)
        try:
            yield folder, descriptor
        finally:
            os.close(descriptor)
    finally:
        os.close(folder)


def _is_left(path: Path, descriptor: int, now: float) -> bool:
    """Return whether a file has no writer. Then it is locked by this process until its descriptor is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    status = os.fstat(descriptor)
    is_named_so = path.lstat().st_ino == status.st_ino
    return is_named_so and (status.st_size > 0 or now - status.st_mtime > _NEW)


def _recover_file(path: Path, folder: int, descriptor: int, store: Store, clock: Clock) -> Iterator[RecoveryCounts]:
    with os.fdopen(os.dup(descriptor), "rb") as file:
        data = file.read()
    batch: list[Span] = []
    torn = unreadable = size = count = 0
    for record in read_spool(data):
        if record is None:
            torn += 1
            continue
        try:
            batch.append(decode_span(record))
        except RemoteProtocolError:
            unreadable += 1
            continue
        count, size = count + 1, size + len(record)
        if len(batch) >= _BATCH or size > MAX_COMMIT_BYTES:
            yield _stored(batch, store, clock)
            batch, size = [], 0
    if batch:
        yield _stored(batch, store, clock)
    with contextlib.suppress(FileNotFoundError):
        if not os.path.samestat(os.stat(path.name, dir_fd=folder, follow_symlinks=False), os.fstat(descriptor)):
            return
        if count or unreadable or is_spool(data):
            os.unlink(path.name, dir_fd=folder)
        else:  # not a spool: something else wrote the file, or the disk lost its content
            os.rename(path.name, f"{path.name}.{os.urandom(4).hex()}.unreadable", src_dir_fd=folder, dst_dir_fd=folder)
    logger.info("spool recovered", extra={"file": path.name, "spans": count, "torn": torn})
    yield RecoveryCounts(torn=torn, unreadable=unreadable)


def _stored(batch: list[Span], store: Store, clock: Clock) -> RecoveryCounts:
    written = store.write(batch, clock())
    return RecoveryCounts(len(batch), written.new, unstorable=written.unstorable)
