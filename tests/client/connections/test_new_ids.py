"""The ids of runs and traces: their form, and what those of one moment share."""

from __future__ import annotations

import os
import random
import re

import pytest

from headrace.connections import new_ids
from headrace.connections.new_ids import IdSource


def test_ids_have_sixteen_digits_and_differ() -> None:
    source = IdSource()
    ids = [source.new_id("sp_") for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"sp_[0-9a-f]{16}", each) for each in ids)


def test_both_ids_of_a_run_are_ids_that_differ() -> None:
    source = IdSource()
    both = [source.new_run_ids() for _ in range(1000)]
    digits = [each[3:] for ids in both for each in ids]

    assert len(set(digits)) == len(digits)
    assert all(re.fullmatch(r"sp_[0-9a-f]{16} tr_[0-9a-f]{16}", " ".join(ids)) for ids in both)
    assert len({each[:4] for each in digits[:20]}) <= 2


def test_ids_of_one_moment_begin_alike_and_later_ones_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(new_ids, "monotonic", lambda: now)
    source = IdSource()
    beginnings = []
    for _ in range(50):
        beginnings.append({source.new_id("tr_")[:7] for _ in range(20)})
        now += 0.1
    assert all(len(each) == 1 for each in beginnings)
    assert len(set().union(*beginnings)) > 45


def test_ids_differ_in_programs_that_seed_their_random_numbers_alike() -> None:
    ids: set[str] = set()
    for _ in range(2):
        random.seed(42)
        source = IdSource()
        ids |= {source.new_id("sp_") for _ in range(100)}
    assert len(ids) == 200


def test_a_forked_child_has_ids_of_its_own() -> None:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.write(write, new_ids.new_id("sp_").encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100).decode() != new_ids.new_id("sp_")
    os.close(read)
    os.close(write)
