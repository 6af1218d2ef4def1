"""Damages files of spans as crashes and disks do, and says which spans must still be there.

What is left of a spool is told by where its records end, not by their checksums; what is left of a database by SQLite, which reads
a copy. Nobody may have the files open meanwhile.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import msgspec

from headrace.spans.data_directory import database_files, slots
from headrace.spans.span import Rank, decode_span
from headrace.spans.spool_format import HEAD_BYTES, read_records

PAGE = 4096

Ranks = Mapping[str, Rank]
"""Runs by id, each with the best that is said of it."""


class Left(msgspec.Struct, frozen=True):
    """What is left of one file, and whether something that is not whole is left too. ``lost`` counts what is not."""

    ranks: Ranks
    is_torn: bool = False
    lost: int = 0


@contextmanager
def seeded() -> Iterator[Random]:
    """Yield chance that can be repeated: a failure names the seed."""
    named = os.environ.get("HEADRACE_FAULT_SEED")
    seed = int(named) if named else Random().getrandbits(32)
    try:
        yield Random(seed)
    except BaseException as error:
        error.add_note(f"HEADRACE_FAULT_SEED={seed} repeats all injuries, whatever seed is named above")
        raise


def best(*found: Ranks) -> dict[str, Rank]:
    """Return all runs, each with the best that is said of it."""
    ranks: dict[str, Rank] = {}
    for some in found:
        for name, rank in some.items():
            ranks[name] = max(rank, ranks.get(name, rank))
    return ranks


def spools(data: Path) -> list[Path]:
    """Return the spools that hold something."""
    return sorted(path for path in data.glob("*/spool/*.spool") if path.stat().st_size)


def journals(data: Path) -> list[Path]:
    """Return the journals of all databases."""
    return sorted(data.glob("*/*.db-wal"))


def databases(data: Path) -> list[Path]:
    """Return the databases of all slots."""
    return [path for slot in slots(data) for path in database_files(slot)]


def spoil_spool(path: Path, random: Random) -> Left:
    """Tear a spool at a random place, or change one byte there."""
    data = path.read_bytes()
    place = random.randrange(len(data))
    ends, ranks = [0], []
    for payload in read_records(data):
        ends.append(ends[-1] + HEAD_BYTES + len(payload))
        span = decode_span(payload)
        ranks.append({span.span_id: span.rank})
    if is_cut := random.random() < 0.5:
        os.truncate(path, place)
    else:
        path.write_bytes(data[:place] + bytes([data[place] ^ random.randrange(1, 256)]) + data[place + 1 :])
    kept = [
        ran
        for ran, begin, end in zip(ranks, ends[:-1], ends[1:], strict=True)
        if end <= place or (begin > place and not is_cut)
    ]
    return Left(best(*kept), is_torn=not is_cut or place not in ends, lost=len(ranks) - len(kept))


def cut_journal(path: Path, random: Random) -> Left:
    """Cut a journal short by a random number of bytes; its database then ends with the last commit that is whole."""
    database = path.with_name(path.name.removesuffix("-wal"))
    before = ranks_of(database)
    os.truncate(path, random.randrange(path.stat().st_size))
    ranks = ranks_of(database)
    return Left(ranks, lost=len(before) - len(ranks))


def ranks_of(database: Path) -> Ranks:
    """Return what is in a database, by a copy of it and its journal."""
    with tempfile.TemporaryDirectory(prefix="hr-copy-") as directory:
        for path in (database, database.with_name(f"{database.name}-wal")):
            if path.exists():
                shutil.copy(path, directory)
        with closing(sqlite3.connect(Path(directory) / database.name)) as connection:
            return {name: Rank(rank) for name, rank in connection.execute("SELECT span_id, rank FROM spans")}


def spoil_database(path: Path, random: Random, what: str) -> str:
    """Spoil a database that has no journal: ``head``, ``cut``, ``noise`` or ``zeros``; return what was done, in words."""
    pages = path.stat().st_size // PAGE
    if what == "cut":
        size = random.randrange(1, path.stat().st_size)
        os.truncate(path, size)
        return f"cut to {size} bytes"
    page = 0 if what == "head" else random.randrange(1, pages)
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(bytes(PAGE) if what == "zeros" else random.randbytes(PAGE))
    return f"{what} in page {page + 1} of {pages}"
