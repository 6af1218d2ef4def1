"""The ids of runs and traces: their form, and what those of one moment share."""

from __future__ import annotations

import re

import pytest

from headrace.connections import new_ids
from headrace.connections.new_ids import IdSource


def test_ids_have_sixteen_digits_and_differ() -> None:
    source = IdSource()
    ids = [source.new_id("sp_") for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"sp_[0-9a-f]{16}", each) for each in ids)


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
